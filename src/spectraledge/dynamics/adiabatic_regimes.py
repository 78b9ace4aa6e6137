"""Where the adiabatic parameter of a run lies: against surrogate histories, or by cuts that nothing supports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..theory.regimes import AUTHOR_CUTS, Regimes, regimes
from .draws import WindowDraws


@dataclass(frozen=True, eq=False)
class Regime:
    """Where A lies, at one distance m of the two windows.

    Attributes:
        lag: m in rows.
        label: (N) ``below``, ``within`` or ``above`` the null; by the author's cuts ``plateau``, ``transition``
            or ``forgetting``; ``undefined`` where A is not known or there is no null.
        quantile: (N) share of null draws below A; NaN by cuts.
        shares: Label to its share among the windows with a label.
        above_p: P-value of the share of windows above, against whole surrogate histories; NaN by cuts.
        below_p: That of the share below.
        arbitrary: Whether the limits are conventions that nothing supports.
    """

    lag: int
    label: np.ndarray
    quantile: np.ndarray
    shares: dict[str, float]
    above_p: float
    below_p: float
    arbitrary: bool


def by_cuts(values: np.ndarray, lag: int) -> Regime:
    """Regimes of (N) values by the author's cuts, which are arbitrary."""
    found = regimes(values, mode="author", cuts=AUTHOR_CUTS)
    return Regime(lag, found.label, found.quantile, _shares(found.label), np.nan, np.nan, True)


def by_null(values: np.ndarray, lag: int, draws: WindowDraws | None) -> Regime:
    """Regimes of windows against the draws of the nearest covered window; p-values over the covered ones."""
    n = len(values)
    if draws is None:
        label = np.full(n, "undefined")
        return Regime(lag, label, np.full(n, np.nan), {}, np.nan, np.nan, False)
    first = lag - 1  # place 0 of the draws is the window that ends at row W + lag - 1
    label, quantile = np.full(n, "undefined", dtype="<U9"), np.full(n, np.nan)
    found: Regimes = regimes(values[first:], draws.at_all())
    label[first:], quantile[first:] = found.label, found.quantile
    null = draws.values
    with np.errstate(invalid="ignore"):
        low, high = np.nanquantile(null, [0.05, 0.95], axis=1)
        seen = values[first:][draws.covered]
        known = np.isfinite(seen)
        p = []
        for outside, of_null in ((seen > high, null > high[:, None]), (seen < low, null < low[:, None])):
            share = of_null[known].mean(axis=0) if known.any() else np.full(null.shape[1], np.nan)
            reached = np.sum(share >= outside[known].mean() - 1e-12) if known.any() else np.nan
            p.append(float((1.0 + reached) / (1.0 + null.shape[1])))
    return Regime(lag, label, quantile, _shares(label), p[0], p[1], False)


def _shares(label: np.ndarray) -> dict[str, float]:
    known = label[label != "undefined"]
    names = (
        ("plateau", "transition", "forgetting")
        if np.isin(known, ("plateau", "transition", "forgetting")).any()
        else (
            "below",
            "within",
            "above",
        )
    )
    return {name: float(np.mean(known == name)) for name in names} if len(known) else {}
