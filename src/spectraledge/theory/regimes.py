"""Sorting values of the adiabatic parameter: against a null, or by conventions flagged as such."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.stability import Mode, check_mode

Array = NDArray[np.float64]

AUTHOR_CUTS = (0.3, 3.0)
"""Cut-offs in the spirit of the paper's "A << 1, ~ 1, >> 1". No value was ever published: these are arbitrary."""


@dataclass(frozen=True)
class Regimes:
    """Labels of a series of A.

    Attributes:
        label: (...) strings. Against a null ``below``, ``within`` or ``above`` it; by cut-offs ``plateau``,
            ``transition`` or ``forgetting``; ``undefined`` where A is NaN.
        quantile: (...) share of null draws below A, ties half; NaN by cut-offs.
        cuts: (2, ...) the limits used.
        arbitrary: True where the cut-offs are conventions that no null supports.
    """

    label: NDArray[np.str_]
    quantile: Array
    cuts: Array
    arbitrary: bool


def regimes(
    values: ArrayLike,
    null_draws: ArrayLike | None = None,
    *,
    percentiles: tuple[float, float] = (5.0, 95.0),
    mode: Mode = "strict",
    cuts: tuple[float, float] = AUTHOR_CUTS,
) -> Regimes:
    """Sort values of A into regimes.

    ``strict``: by percentiles of draws from a null, for instance ``adiabatic_null``; ``above`` is then said of
    5 % of windows without any structure. ``author``: the paper's plateau (A << 1), transition (~ 1) and forgetting
    (>> 1) with cut-offs 0.3 and 3, which are arbitrary; for A_abs they depend on the unit of the loss.

    Args:
        values: (...) A.
        null_draws: (..., n) draws of A under the null for each value, or (n,) for all; needed for ``strict``.
        percentiles: Lower and upper one.
        mode: ``strict`` or ``author``.
        cuts: Lower and upper cut-off in author mode.

    Returns:
        The labels. Source: arXiv:2603.28964v1-v3 (the three regimes), derived (limits).

    Raises:
        SettingError: For another mode, limits out of order, or ``strict`` without draws.

    >>> regimes([0.1, 1.0, 10.0, np.nan], mode="author").label.tolist()
    ['plateau', 'transition', 'forgetting', 'undefined']
    """
    check_mode(mode)
    a = np.asarray(values, dtype=np.float64)
    if mode == "author":
        limits, names, quantile = np.asarray(cuts, dtype=np.float64), ("plateau", "transition", "forgetting"), None
    elif null_draws is None:
        raise SettingError("regimes are set against a null; got none. Pass null_draws, or mode='author'.")
    else:
        draws = np.asarray(null_draws, dtype=np.float64)
        if not 0.0 <= percentiles[0] < percentiles[1] <= 100.0:
            raise SettingError(f"percentiles must increase within 0..100; got {percentiles}. Use (5, 95).")
        limits, names = np.percentile(draws, percentiles, axis=-1), ("below", "within", "above")
        with np.errstate(invalid="ignore"):
            lower, equal = draws < a[..., None], draws == a[..., None]
        quantile = (lower + 0.5 * equal).mean(axis=-1)
    if np.any(limits[0] > limits[1]):
        raise SettingError(f"cuts must increase; got {cuts}. Pass the lower one first.")
    with np.errstate(invalid="ignore"):
        label = np.where(a < limits[0], names[0], np.where(a > limits[1], names[2], names[1]))
    unknown = np.isnan(a) | np.isnan(limits).any(axis=0)
    label = np.where(unknown, "undefined", label)
    quantile = np.full(a.shape, np.nan) if quantile is None else np.where(unknown, np.nan, quantile)
    return Regimes(label, quantile, limits, arbitrary=mode == "author")
