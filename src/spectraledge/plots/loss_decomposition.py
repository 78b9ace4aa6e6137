"""The change of the validation loss after each probe, and what the modes of the past window hold of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dynamics import loss_decomposition
from .colors import BLUE, CYCLE, GREEN, GREY, INK, VERMILION
from .kind import Kind, Table, sub
from .panel import Layer, Line, Mark, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording

_MODES = 3


def loss_decomposition_table(recording: Recording) -> Table:
    """Changes of the validation loss, forecasts and coverage at all probes that were followed.

    Returns:
        ``steps`` (N); ``measured``, ``first_order``, ``captured`` (by the window's modes), ``published`` (alpha
        = 1) and ``optimizer`` (N) [loss]; ``coverage``, ``gradient_coverage``, ``chance`` (N);
        ``contributions`` (N, W) [loss]; ``facts``, ``note``.

    Raises:
        DataError: If no probe has a validation loss and a next update.
    """
    found = loss_decomposition(recording)
    parts, coverage = found.decomposition, found.pooled_coverage
    words = f"share held by the modes {float(coverage.value):.2f}"
    if np.isfinite(coverage.low):
        words += f" [{float(coverage.low):.2f}, {float(coverage.high):.2f}]"
    return {
        "steps": found.steps,
        "measured": parts.measured,
        "first_order": parts.first_order,
        "captured": parts.captured,
        "published": found.predicted["alpha_1"],
        "optimizer": found.predicted["optimizer"],
        "coverage": parts.coverage,
        "gradient_coverage": found.gradient_coverage,
        "chance": found.chance,
        "contributions": parts.contributions,
        "facts": f"n = {len(found.steps)} probes with a next update · {words}",
        "note": "; ".join(found.notes),
    }


def loss_decomposition_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    steps = table["steps"].astype(np.float64)
    totals = (
        ("measured", "measured", INK, 1.8),
        ("first_order", "⟨g, δ⟩", GREY, 1.2),
        ("captured", "held by the modes", BLUE, 1.2),
        ("published", "published, α = 1", VERMILION, 1.2),
        ("optimizer", "optimizer's direction, no modes", GREEN, 1.2),
    )
    lines: list[Layer] = [
        Line(steps, table[key], name, color, width=width, markers=True)
        for key, name, color, width in totals
        if np.isfinite(table[key]).any()
    ]
    rows = [Row("next change of the validation loss", tuple(lines), height=1.4)] if lines else []
    shares = (
        ("coverage", "of ⟨g, δ⟩", BLUE, "solid"),
        ("gradient_coverage", "of ‖g‖²", VERMILION, "solid"),
        ("chance", "of ‖g‖² by chance", GREY, "dash"),
    )
    layers: list[Layer] = [
        Line(steps, np.clip(table[key], -0.5, 1.5), name, color, width=1.2, dash=dash)  # type: ignore[arg-type]
        for key, name, color, dash in shares
        if np.isfinite(table[key]).any()
    ]
    if layers:
        rows.append(Row("share in the span of the modes", tuple(layers), limits=(-0.55, 1.55)))
    c = table["contributions"]
    if np.isfinite(c).any():
        by_mode: list[Layer] = [
            Line(steps, c[:, j], f"v{sub(j + 1)}", CYCLE[j], width=1.2) for j in range(min(_MODES, c.shape[1]))
        ]
        rows.append(Row("contribution of each mode [loss]", tuple(by_mode)))
    return rows


LOSS_DECOMPOSITION = Kind(
    key="loss_decomposition",
    title="Changes of the validation loss, by mode",
    reading=(
        "The modes of the past window hold as much of the next change as the blue line shows of the black one; the "
        "published product of gradients has the right scale for plain SGD only."
    ),
    method=(
        "Modes of the W updates before a probe, the update after it; held: Σ ⟨v, g⟩⟨v, δ⟩, published: -Σ lr ⟨v, g⟩ "
        "of both losses. Shares are cut at -0.5 and 1.5; a share of a change near 0 means nothing."
    ),
    table=loss_decomposition_table,
    rows=loss_decomposition_rows,
    options=(),
)


def plot_loss_decomposition(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw measured changes of the validation loss beside forecasts, and what the modes hold of them.

    Args:
        source: A recording with probes, or a table of ``loss_decomposition_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: None are taken.
    """
    return LOSS_DECOMPOSITION.draw(source, ax, marks=marks, **options)
