"""How far the leading directions turn, beside the bounds on it, and how much of them is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dynamics import stability
from ..errors import DataError
from ..recording.derive import check_window
from .colors import BLUE, CYCLE, GREY, VERMILION
from .kind import Kind, Table, sub
from .panel import Line, Mark, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording
    from ..recording.select import BlockChoice

_MODES = 2


def stability_table(recording: Recording, *, window: int = 10, stride: int = 1, block: BlockChoice = "all") -> Table:
    """Rotations, bounds and stability coefficients of all windows, without nulls.

    Args:
        recording: T updates.
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union.

    Returns:
        ``steps`` (N); ``rotation``, ``rotation_far``, ``bound`` (N, W): sin of the angle at lag 1, at lag W,
        and its bound at lag 1; ``alpha``: name to (N, W); ``window``, ``facts``, ``note``.

    Raises:
        SettingError: If the band is too narrow for two neighbouring windows.
        DataError: If there are too few updates for them.
    """
    needed = stride * (window + 1)
    if recording.lags + 1 < needed and window >= 2 and stride >= 1:
        check_window(window, stride, recording.n_updates, recording.lags)
        raise DataError(
            f"Two neighbouring windows of {window} rows need {needed - 1} lags; the recording has {recording.lags}. "
            f"Use a smaller window, or record with lags={needed - 1}."
        )
    found = stability(recording, window, block, stride, n_draws=0)
    vacuous = ", ".join(f"v{sub(j + 1)} {100 * found.vacuous[j]:.0f} %" for j in range(min(window, 3)))
    n = int(np.isfinite(found.rotation).any(axis=1).sum())
    return {
        "steps": found.steps,
        "rotation": found.rotation,
        "rotation_far": found.rotation_far,
        "bound": found.vector_bound,
        "alpha": dict(found.alpha),
        "window": window,
        "facts": f"W = {window} · block {found.block} · n = {n} pairs of windows · useless bounds: {vacuous}",
        "note": "; ".join(found.notes),
    }


def stability_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    steps = table["steps"].astype(np.float64)
    rows = []
    for j in range(min(_MODES, table["window"])):
        bound = np.minimum(table["bound"][:, j], 1.0)
        lines = (
            Line(steps, bound, "bound (1 says nothing)", GREY, width=1.8),
            Line(steps, table["rotation"][:, j], "lag 1", BLUE, width=1.2),
            Line(steps, table["rotation_far"][:, j], "lag W", VERMILION, width=1.2),
        )
        if any(np.isfinite(line.y).any() for line in lines):
            rows.append(Row(f"sin of the turn of v{sub(j + 1)}", lines, limits=(-0.03, 1.03)))
    known = [(name, a[:, 0]) for name, a in table["alpha"].items() if np.isfinite(a[:, 0]).any()]
    if known:
        alphas = tuple(Line(steps, a, f"α₁ {name}", color, width=1.2) for (name, a), color in zip(known, CYCLE))
        rows.append(Row("stability coefficient α₁", alphas, limits=(-0.03, 1.03)))
    return rows


STABILITY = Kind(
    key="stability",
    title="Turns of the leading directions, and their bounds",
    reading=(
        "A bound at 1 says nothing, and measured turns at lag 1 are small in noise, too, since windows share rows; "
        "compare with the null of the overlaps."
    ),
    method=(
        "Bound: spread of the exact change of XᵀX over the two-sided gap. α: overlap² of disjoint windows, of "
        "neighbouring ones, and 1 - bound² (dk), at least 0."
    ),
    table=stability_table,
    rows=stability_rows,
    options=("window", "stride", "block"),
)


def plot_stability(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw measured turns of the leading directions and their bounds.

    Args:
        source: A recording, or a table of ``stability_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: Of ``stability_table``.
    """
    return STABILITY.draw(source, ax, marks=marks, **options)
