"""Curvature along the modes beside random directions, and the regime that it puts them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dynamics import curvature
from ..dynamics.columns import known_mean
from .colors import CYCLE, GREY, INK
from .kind import Kind, Table, sub
from .panel import Layer, Line, Mark, Row, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording

_MODES = 4


def curvature_table(recording: Recording) -> Table:
    """Curvature at all probes.

    Returns:
        ``steps`` (N); ``mode`` (N, J), ``span`` (N), ``random`` (N), the last two averaged, and the same with
        ``preconditioned_`` before them; ``top`` (N) largest eigenvalue of H; ``regime`` (N, J); ``slope`` (N);
        ``facts``, ``note``.

    Raises:
        DataError: If there are no probes, or none measured curvature.
    """
    found = curvature(recording)
    table: Table = {"steps": found.steps, "regime": found.regime, "slope": found.slope}
    for prefix in ("", "preconditioned_"):
        table[f"{prefix}mode"] = getattr(found, f"{prefix}mode")
        for kind in ("span", "random"):
            table[f"{prefix}{kind}"] = known_mean(getattr(found, f"{prefix}{kind}"))
    top = found.eigenvalues
    table["top"] = top[:, 0] if top.shape[1] else np.full(len(found.steps), np.nan)
    slope = found.intervals["slope"]
    words = f"slope {float(slope.value):.2f}"
    if np.isfinite(slope.low):
        words += f" [{float(slope.low):.2f}, {float(slope.high):.2f}]"
    facts = f"n = {len(found.steps)} probes · {words} · slope -1/2: {found.verdict}"
    return table | {"facts": facts, "note": "; ".join(found.notes)}


def curvature_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    steps = table["steps"].astype(np.float64)
    rows = []
    for prefix, label in (
        ("", "vᵀHv [loss / parameter²]"),
        ("preconditioned_", "vᵀP⁻¹Hv [1 / learning rate]"),
    ):
        modes = table[f"{prefix}mode"]
        layers: list[Layer] = [
            Line(steps, table[f"{prefix}random"], "random directions", GREY, dash="dot"),
            Line(steps, table[f"{prefix}span"], "random in the span", INK, dash="dash"),
        ]
        layers += _by_mode(steps, modes)
        if np.isfinite(modes).any():
            rows.append(Row(label, tuple(layers), height=1.2))
    if np.isfinite(table["top"]).any():
        rows.append(
            Row("top eigenvalue of H", (Line(steps, positive(table["top"]), "top eigenvalue", INK),), log=True)
        )
    if np.isfinite(positive(table["regime"])).any():
        one = Line(steps[[0, -1]], np.ones(2), "1", GREY, width=1.0, dash="dash", guide=True)
        rows.append(Row("η s (h + ω): above 1 at rest", (one, *_by_mode(steps, positive(table["regime"]))), log=True))
    if np.isfinite(table["slope"]).any():
        guide = Line(steps[[0, -1]], np.full(2, -0.5), "-1/2", GREY, width=1.0, dash="dash")
        line = Line(steps, table["slope"], "slope", CYCLE[0], markers=True)
        rows.append(Row("slope of log d on log(h + ω)", (guide, line)))
    return rows


def _by_mode(steps: np.ndarray, values: np.ndarray) -> list[Layer]:
    return [
        Line(steps, values[:, j], f"v{sub(j + 1)}", CYCLE[j % len(CYCLE)], width=1.2, markers=True)
        for j in range(min(values.shape[1], _MODES))
    ]


CURVATURE = Kind(
    key="curvature",
    title="Curvature along the modes",
    reading=(
        "The published hierarchy, strong modes in flat directions with slope -1/2, belongs to modes at rest "
        "(η s h above 1) in white noise; random directions in the span show what any direction would."
    ),
    method=(
        "Training loss at the probes; η holds momentum's gain. The slope uses P⁻¹H where the optimizer's metric is "
        "known, with an intercept for each probe; its interval resamples blocks of probes."
    ),
    table=curvature_table,
    rows=curvature_rows,
    options=(),
)


def plot_curvature(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw the curvature at the probes of a run.

    Args:
        source: A recording with probes, or a table of ``curvature_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: None are taken.
    """
    return CURVATURE.draw(source, ax, marks=marks, **options)
