"""Ratios of neighbouring singular values by position, with their null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colors import BLUE, GREY
from .kind import Kind, Table, window_facts
from .null import METHOD, null_table, p_eff_words
from .panel import Band, Layer, Line, Mark, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording
    from ..recording.select import BlockChoice


def ratio_profile_table(
    recording: Recording,
    *,
    window: int = 10,
    stride: int = 1,
    block: BlockChoice = "all",
    normalisation: str = "raw",
    seed: int = 0,
) -> Table:
    """Distribution of sigma_j / sigma_{j+1} over the windows of a run, for each j.

    Args:
        recording: T updates.
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union.
        normalisation: "raw", "row" or "lr".
        seed: Of the null's draws.

    Returns:
        ``position`` (W-1) j; ``low``, ``median``, ``high`` (W-1) at 5, 50 and 95 % of the windows;
        ``null_low``, ``null_median``, ``null_high`` (W-1): the quantiles of one window under the null, at
        their median over windows; ``facts``, ``note``.

    Raises:
        SettingError: If the band is too narrow for the window.
        DataError: If there are fewer updates than one window needs.
    """
    spectra = recording.spectra(window, stride, block, normalisation)
    null = null_table(spectra, seed=seed)
    low, median, high = _column_quantiles(spectra.ratios, (0.05, 0.5, 0.95))
    table: Table = {"position": np.arange(1, window), "low": low, "median": median, "high": high}
    for level in ("low", "median", "high"):
        table[f"null_{level}"] = _column_quantiles(null[f"ratio_{level}"], (0.5,))[0]
    facts = window_facts(spectra, recording.n_steps) + p_eff_words(null["p_eff"])
    return table | {"facts": facts, "note": null["note"]}


def ratio_profile_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    j = table["position"].astype(np.float64)
    layers: list[Layer] = []
    if np.isfinite(table["null_median"]).any():
        layers += [
            Band(j, table["null_low"], table["null_high"], "null, 5-95 % of one window", GREY, opacity=0.28),
            Line(j, table["null_median"], "null, median", GREY, width=1.2, dash="dash"),
        ]
    layers += [
        Band(j, table["low"], table["high"], "5-95 % of the windows", BLUE, opacity=0.14),
        Line(j, table["median"], "median over windows", BLUE, width=1.8, markers=True),
    ]
    return [Row("σⱼ / σⱼ₊₁", tuple(layers), log=True, height=1.6)]


RATIO_PROFILE = Kind(
    key="ratio_profile",
    title="Where the gap lies",
    reading=(
        "A gap at position j is a ratio above the grey band; noise alone raises both ends, so that the largest "
        "ratio of all tends to the first or last position."
    ),
    method="Over all windows of the run; neighbouring windows share W-1 rows. " + METHOD,
    table=ratio_profile_table,
    rows=ratio_profile_rows,
    x_label="position j",
)


def plot_ratio_profile(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw the median ratio at each position against its null.

    Args:
        source: A recording, or a table of ``ratio_profile_table``.
        ax: Where to draw; a new figure where None.
        marks: Not used: x is a position.
        **options: Of ``ratio_profile_table``.
    """
    return RATIO_PROFILE.draw(source, ax, marks=marks, **options)


def _column_quantiles(values: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(levels, columns) quantiles of the finite values of each column; NaN for an empty column."""
    out = np.full((len(levels), values.shape[1]), np.nan)
    for k in range(values.shape[1]):
        known = values[:, k][np.isfinite(values[:, k])]
        if len(known):
            out[:, k] = np.quantile(known, levels)
    return out
