"""The gap position k* by every rule, and how unusual the guarded gap is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colors import BLUE, GREEN, GREY, PURPLE, VERMILION
from .kind import Kind, Table, window_facts
from .null import p_eff_words, p_values
from .panel import Line, Mark, Points, Row, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording
    from ..recording.select import BlockChoice

_RULES = ("guarded", "plain", "weighted")
_COLORS = {"guarded": BLUE, "plain": GREEN, "weighted": PURPLE}
_LEVEL = 0.05
_TESTED = 400  # windows with a p-value, at most: more cannot be told apart in a figure


def gap_position_table(
    recording: Recording,
    *,
    window: int = 10,
    stride: int = 1,
    block: BlockChoice = "all",
    normalisation: str = "raw",
    seed: int = 0,
) -> Table:
    """Gap positions of all windows.

    Args:
        recording: T updates.
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union.
        normalisation: "raw", "row" or "lr".
        seed: Of the surrogates behind the p-values.

    Returns:
        ``steps`` (N); for each rule ``guarded``, ``plain``, ``weighted``: ``<rule>_position`` (N), 0 where
        nothing is resolved, and ``<rule>_ratio`` (N); ``tested`` (n) indices of the windows with a
        ``p_value`` (n) of the guarded rule; ``window``; ``facts``, ``note``.

    Raises:
        SettingError: If the band is too narrow for the window.
        DataError: If there are fewer updates than one window needs.
    """
    spectra = recording.spectra(window, stride, block, normalisation)
    table: Table = {"steps": spectra.steps, "window": window}
    counts = []
    for rule in _RULES:
        gap = spectra.gap(rule)  # type: ignore[arg-type]
        table |= {f"{rule}_position": gap.position, f"{rule}_ratio": gap.ratio}
        known = gap.position[gap.position > 0]
        if len(known):
            k, n = np.unique(known, return_counts=True)
            counts.append(f"{rule} k* = {k[np.argmax(n)]} in {n.max()} of {len(known)}")
    tested = spread(len(spectra.steps), _TESTED)
    p = p_values(spectra, tested, seed=seed)
    note = ""
    if not np.isfinite(p).any() and counts:
        note = (
            "No p-value: the effective dimension of the noise is unknown. Record more lags, or use a larger stride."
        )
    facts = window_facts(spectra, recording.n_steps) + p_eff_words(spectra.p_eff)
    return table | {"tested": tested, "p_value": p, "facts": " · ".join([facts, *counts]), "note": note}


def gap_position_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    steps, w = table["steps"], table["window"]
    rows = []
    for rule in _RULES:
        k = table[f"{rule}_position"].astype(np.float64)
        k[k == 0] = np.nan
        last = w // 2 if rule == "guarded" else w - 1
        reach = "j ≤ W/2, resolved" if rule == "guarded" else "any j"
        every = max(1, round(last / 5))
        ticks = tuple((float(j), str(j)) for j in range(1, last + 1, every))
        rows.append(
            Row(
                f"k*, {rule} ({reach})",
                (Points(steps, k, f"k* {rule}", _COLORS[rule], size=4.0),),
                limits=(0.4, last + 0.6),
                ticks=ticks,
                height=0.6,
            )
        )
    p = table["p_value"]
    if np.isfinite(p).any():
        at = steps[table["tested"]]
        level = Line(at[[0, -1]], np.full(2, _LEVEL), "p = 0.05", GREY, width=1.0, dash="dash")
        rows.append(
            Row(
                "p-value of the guarded gap",
                (level, Points(at, p, "p-value", VERMILION, size=4.0)),
                log=True,
                limits=(0.004, 1.3),
                ticks=((0.005, "0.005"), (0.05, "0.05"), (0.5, "0.5")),
                height=0.8,
            )
        )
    return rows


GAP_POSITION = Kind(
    key="gap_position",
    title="Gap position k* by all three rules",
    reading=(
        "A gap is real where its p-value stays low over many windows; a position that hops about, or that only one "
        "rule reports, is what noise does."
    ),
    method=(
        "plain: largest σⱼ/σⱼ₊₁; weighted: that ratio times σⱼ's share of the sum, which favours 1; guarded: plain "
        "with j ≤ W/2 and resolved modes. p: share of 199 draws of the null with a gap as large; windows overlap, so "
        "neighbouring p-values are not independent."
    ),
    table=gap_position_table,
    rows=gap_position_rows,
)


def plot_gap_position(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw k* by every rule, and the p-value of the guarded gap.

    Args:
        source: A recording, or a table of ``gap_position_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: Of ``gap_position_table``.
    """
    return GAP_POSITION.draw(source, ax, marks=marks, **options)
