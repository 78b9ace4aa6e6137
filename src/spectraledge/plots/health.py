"""Whether the recording can be trusted: unchanged entries, remarks on updates, time spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .colors import BLUE, GREEN, VERMILION
from .kind import Kind, Table
from .panel import Line, Mark, Points, Row, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording


def health_table(recording: Recording) -> Table:
    """What is known of the quality of every update.

    Returns:
        ``steps`` (T); ``unchanged_share`` (T) of entries that are exactly as before; ``nonfinite`` (T)
        entries; ``seconds`` (T) spent on recording; ``remarks``: remark to the steps (n) that carry it, seams
        and updates with non-finite entries among them; ``facts``, ``note``.

    Raises:
        DataError: If the recording holds no update.
    """
    r = recording
    if not r.n_updates:
        raise DataError("A run must have at least 1 update to be drawn; it has 0. Wait for the first snapshot.")
    remarks: dict[str, list[int]] = {}
    for t, flags in enumerate(r.flags):
        for flag in flags:
            remarks.setdefault(flag, []).append(t)
    for name, found in (("seam", r.seams), ("nonfinite", np.flatnonzero(np.nansum(r.nonfinite, axis=1) > 0))):
        remarks[name] = sorted({*remarks.get(name, []), *(int(t) for t in found)})
    total = _n_parameters(r)
    seconds = r.seconds[np.isfinite(r.seconds)]
    spent = (
        f" · {np.median(seconds) * 1e3:.3g} ms a snapshot (median), {seconds.sum():.3g} s in all"
        if len(seconds)
        else ""
    )
    return {
        "steps": r.steps,
        "unchanged_share": r.unchanged[:, 0] / total if total else np.full(r.n_updates, np.nan),
        "nonfinite": r.nonfinite[:, 0],
        "seconds": r.seconds,
        "remarks": {name: r.steps[found] for name, found in sorted(remarks.items()) if len(found)},
        "facts": f"n = {r.n_updates} updates{spent}",
        "note": "",
    }


def health_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    steps, rows = table["steps"], []
    if np.isfinite(table["unchanged_share"]).any():
        line = Line(steps, table["unchanged_share"], "unchanged share", BLUE)
        rows.append(Row("share of entries left unchanged", (line,), limits=(-0.03, 1.03), height=0.7))
    if np.isfinite(table["seconds"]).any():
        line = Line(steps, positive(table["seconds"]), "seconds", GREEN)
        rows.append(Row("time on recording a snapshot [s]", (line,), log=True, height=0.7))
    # An empty strip says that nothing was remarked on.
    names = list(table["remarks"]) or ["no remarks"]
    points = tuple(
        Points(at.astype(float), np.full(len(at), float(i)), name.replace("_", " "), VERMILION, size=6.0)
        for i, (name, at) in enumerate(table["remarks"].items())
    )
    empty = Points(steps[:0].astype(float), np.empty(0), "remarks", VERMILION)
    ticks = tuple((float(i), name.replace("_", " ")) for i, name in enumerate(names))
    limits = (-0.6, len(names) - 0.4)
    rows.append(
        Row("remarks on updates", points or (empty,), limits=limits, ticks=ticks, height=0.3 + 0.16 * len(names))
    )
    return rows


def _n_parameters(recording: Recording) -> int:
    segments = recording.meta.get("segments", [])
    return int(segments[-1].get("n_parameters") or 0) if segments else 0


HEALTH = Kind(
    key="health",
    title="Health of the recording",
    reading=(
        "Many unchanged entries mean a precision too coarse for the updates; no window crosses a seam or holds an "
        "update with non-finite entries, so that the lines above have holes there."
    ),
    method="As recorded. Remarks: seam, lost, uneven (another number of steps), zero update, nonfinite.",
    table=health_table,
    rows=health_rows,
    options=(),
)


def plot_health(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw unchanged entries, the time spent and the remarks on updates.

    Args:
        source: A recording, or a table of ``health_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: None are taken.
    """
    return HEALTH.draw(source, ax, marks=marks, **options)
