"""What moves the gap according to its flow: the share of each term over time, and where the gap should settle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dynamics.gap_dynamics import PARTS, gap_flow_terms
from .colors import BLUE, GREEN, GREY, PURPLE, VERMILION
from .kind import Kind, Table
from .panel import Layer, Line, Mark, Row, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording

_LABELS = {
    "asymmetry": ("T₁ curvature asymmetry", BLUE),
    "damping": ("T₂ damping", GREEN),
    "drive": ("T₃ drive", VERMILION),
    "schedule": ("learning-rate schedule", GREY),
    "repulsion": ("repulsion", PURPLE),
}


def flow_terms_table(recording: Recording) -> Table:
    """Terms of the strict gap flow at the probes of a run.

    Returns:
        ``steps`` (N); ``share_<part>`` (N) in [0, 1] for asymmetry, damping, drive, schedule and repulsion;
        ``change`` (N) dg/dt of the flow and ``realised`` (N) mean change over the horizon [parameter / step];
        ``gap``, ``equilibrium`` (N) [parameter]; ``facts``, ``note``.

    Raises:
        DataError: If no probe measured curvature on both sides of a gap.
    """
    found = gap_flow_terms(recording)
    span = np.full(len(found.steps), np.nan)
    ends = np.searchsorted(recording.steps, found.steps)
    there = ends + found.horizon < recording.n_updates
    span[there] = (recording.steps[ends[there] + found.horizon] - found.steps[there]).astype(float)
    fit = found.fits["strict"]
    words = (
        "coefficients " + ", ".join(f"{c:.2g}" for c in fit.coefficients)
        if np.isfinite(fit.coefficients).all()
        else fit.status
    )
    relaxation = found.equilibrium.relaxation_snapshots
    finite = relaxation[np.isfinite(relaxation)]
    rest = f" · relaxation {np.median(finite):.3g} snapshots" if len(finite) else ""
    return {
        "steps": found.steps,
        **{f"share_{name}": found.shares[name] for name in PARTS},
        "change": found.strict.total,
        "realised": (found.later_gap - found.gap) / span,
        "gap": found.gap,
        "equilibrium": found.equilibrium.gap,
        "facts": f"n = {len(found.steps)} probes · change over {found.horizon} updates · {words} "
        f"(1, 1, 1 if the flow holds){rest}",
        "note": "; ".join(found.notes),
    }


def flow_terms_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    steps = table["steps"]
    shares: list[Layer] = [
        Line(steps, table[f"share_{name}"], label, color)
        for name, (label, color) in _LABELS.items()
        if np.nanmax(table[f"share_{name}"], initial=0.0) > 0.0
    ]
    if not shares:
        return []
    rows = [Row("share of |dg/dt|", tuple(shares), limits=(-0.03, 1.03), height=1.2)]
    sides = (
        Line(steps, table["gap"], "gap g", BLUE),
        Line(steps, positive(table["equilibrium"]), "equilibrium g* where positive", GREY, dash="dot"),
    )
    rows.append(Row("width at k* [parameter]", sides, log=True))
    both = (
        Line(steps, np.abs(table["change"]), "|dg/dt| of the flow", VERMILION),
        Line(steps, np.abs(table["realised"]), "|Δg/Δt| realised", BLUE),
    )
    rows.append(
        Row("change [parameter / step]", tuple(Line(x.x, positive(x.y), x.name, x.color) for x in both), log=True)
    )
    return rows


FLOW_TERMS = Kind(
    key="flow_terms",
    title="Terms of the gap flow",
    reading=(
        "Which term moves the gap; where the flow's change lies far above the realised one, as for modes that come "
        "to rest within an update, its terms cancel against something that it leaves out."
    ),
    method=(
        "Strict flow: curvature in the optimizer's metric, injection of the interval before each probe, repulsion "
        "from the 2 W windows before. k* by the guarded rule. Regression of the forward change on T₁, T₂, T₃ with a "
        "constant."
    ),
    table=flow_terms_table,
    rows=flow_terms_rows,
    options=(),
)


def plot_flow_terms(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw shares of the terms of the gap flow, the gap with its equilibrium, and predicted against realised change.

    Args:
        source: A recording with probes, or a table of ``flow_terms_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: None are taken.
    """
    return FLOW_TERMS.draw(source, ax, marks=marks, **options)
