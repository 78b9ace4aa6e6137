"""Dependence of a series on its own past: long-run variance, effective length, AR(1), lagged columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def bartlett_long_run(scores: ArrayLike, lag: int) -> Array:
    """Sum over lags of score products, ``Gamma_0 + sum_l (1 - l/(lag + 1)) (Gamma_l + Gamma_l^T)``.

    ``Gamma_l = sum_t s_t s_{t-l}^T``; positive semidefinite for every series.

    Args:
        scores: (..., n, k).
        lag: Lags, at least 0.

    Returns:
        (..., k, k). Source: standard result (Newey and West 1987).
    """
    s = np.asarray(scores, dtype=np.float64)
    out = np.swapaxes(s, -1, -2) @ s
    for step in range(1, min(lag, s.shape[-2] - 1) + 1):
        gamma = np.swapaxes(s[..., step:, :], -1, -2) @ s[..., :-step, :]
        out = out + (1.0 - step / (lag + 1.0)) * (gamma + np.swapaxes(gamma, -1, -2))
    return out


def effective_n(series: ArrayLike, lag: int) -> Array:
    """Number of independent values that would give the mean of a series the same variance.

    ``n Gamma_0 / (Bartlett sum of Gamma_l)``, at most n: a negative correlation is not counted in favour. The
    estimated mean lowers the sum by a factor ``1 - b + b^2/3``, ``b = (lag + 1)/n``, which is divided out.

    Args:
        series: (..., n), NaN where missing.
        lag: Lags, at least W for windows of W updates.

    Returns:
        (...); NaN for a series without variation. Source: standard result, division derived.

    >>> float(effective_n([1.0, -1.0] * 50, 1)), float(effective_n(np.repeat([1.0, -1.0] * 25, 2), 0))
    (100.0, 100.0)
    """
    x = np.asarray(series, dtype=np.float64)
    known = np.isfinite(x)
    n = known.sum(axis=-1)
    mean = np.where(known, x, 0.0).sum(axis=-1) / np.maximum(n, 1)
    centred = np.where(known, x - mean[..., None], 0.0)
    long_run = bartlett_long_run(centred[..., None], lag)[..., 0, 0]
    if lag:
        b = (lag + 1.0) / np.maximum(n, lag + 1.0)
        long_run = long_run / (1.0 - b + b**2 / 3.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.square(centred).sum(axis=-1) / long_run
        return np.where(long_run > 0.0, np.minimum(n * ratio, n), np.nan)


@dataclass(frozen=True)
class AR1:
    """``x_t = mean + phi (x_{t-1} - mean) + innovation``.

    Attributes:
        mean: (...).
        phi: (...) coefficient.
        innovation_sd: (...) unit of the series.
        n: (...) pairs used.
    """

    mean: Array
    phi: Array
    innovation_sd: Array
    n: Array


def ar1_fit(series: ArrayLike, *, unbiased: bool = True) -> AR1:
    """Fit an AR(1) by the correlation of neighbours.

    Args:
        series: (..., n); pairs with a missing value are left out.
        unbiased: Add ``(1 + 3 phi) / n`` to phi (Kendall), up to 1: with an estimated mean phi is low on
            average, by 0.05 at phi = 0.9 and n = 74.

    Returns:
        The fit; NaN for fewer than 3 pairs or a constant series. Source: standard result (Kendall 1954).
    """
    x = np.asarray(series, dtype=np.float64)
    if x.ndim < 1 or x.shape[-1] < 2:
        raise SettingError(f"An AR(1) needs a series of at least 2 values; got shape {x.shape}. Use a longer record.")
    known = np.isfinite(x)
    count = known.sum(axis=-1)
    mean = np.where(count > 0, np.where(known, x, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)
    c = np.where(known, x - mean[..., None], 0.0)
    pairs = known[..., 1:] & known[..., :-1]
    before, after = np.where(pairs, c[..., :-1], 0.0), np.where(pairs, c[..., 1:], 0.0)
    n = pairs.sum(axis=-1)
    energy = np.square(before).sum(axis=-1)
    usable = (n >= 3) & (energy > 0.0)
    phi = np.where(usable, (before * after).sum(axis=-1) / np.where(usable, energy, 1.0), np.nan)
    if unbiased:
        phi = np.minimum(phi + (1.0 + 3.0 * phi) / np.maximum(n, 1), np.maximum(phi, 1.0))
    innovation = np.square(after - phi[..., None] * before).sum(axis=-1) / np.maximum(n - 2, 1)
    return AR1(np.where(usable, mean, np.nan), phi, np.sqrt(innovation), np.asarray(n))


def lagged_design(series: ArrayLike, lags: Sequence[int]) -> Array:
    """Columns ``x_{t - lag}`` of a series, NaN where the past is not recorded.

    Args:
        series: (..., n).
        lags: K lags, at least 0: the past only, so that no forecast sees its own future.

    Returns:
        (..., n, K). Source: standard result.

    Raises:
        SettingError: If a lag is negative.

    >>> lagged_design([1.0, 2.0, 3.0], [1])[:, 0]
    array([nan,  1.,  2.])
    """
    x = np.asarray(series, dtype=np.float64)
    if any(lag < 0 for lag in lags):
        raise SettingError(f"lags must not be negative; got {list(lags)}. A negative lag would use the future.")
    out = np.full((*x.shape, len(lags)), np.nan)
    for column, lag in enumerate(lags):
        out[..., lag:, column] = x[..., : x.shape[-1] - lag] if lag < x.shape[-1] else np.nan
    return out


def gap_damping_correlation(g: ArrayLike, *, difference: Literal["centred", "forward"] = "centred") -> Array:
    """Correlation of the gap with its own rate of change, the published test of damping. It tells nothing.

    ``centred``: corr(g_t, (g_{t+1} - g_{t-1}) / 2), the author's. For every stationary series its expectation
    is 0, damped or not, because an autocovariance is even: gamma(1) - gamma(-1) = 0. Its numerator even
    telescopes, ``sum g_t (g_{t+1} - g_{t-1})`` keeps only the two ends of the record, so that it is near 0 in
    every record, too; only a curved trend gives it a value. ``forward``: corr(g_t, g_{t+1} - g_t) is
    ``-sqrt((1 - rho_1) / 2)``, below 0 for every stationary series. Neither value, pass or fail, bears on the
    gap flow; regress forward changes on the measured terms instead.

    With k* frozen per window, as in the published script, the zero also needs a time-reversible series.

    Args:
        g: (..., n) a gap of fixed position, n >= 4.
        difference: ``centred`` or ``forward``.

    Returns:
        (...); NaN for a missing value or a constant series. Source: author's code (centred); that both are
        uninformative is derived.

    Raises:
        SettingError: For another difference or a series shorter than 4.
    """
    x = np.asarray(g, dtype=np.float64)
    if difference not in ("centred", "forward"):
        raise SettingError(f"difference must be centred or forward; got {difference!r}. The author's is centred.")
    if x.ndim < 1 or x.shape[-1] < 4:
        raise SettingError(f"A series of at least 4 gaps is needed; got shape {x.shape}. Use a longer record.")
    if difference == "centred":
        level, change = x[..., 1:-1], 0.5 * (x[..., 2:] - x[..., :-2])
    else:
        level, change = x[..., :-1], np.diff(x, axis=-1)
    a = level - level.mean(axis=-1, keepdims=True)
    b = change - change.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.square(a).sum(axis=-1) * np.square(b).sum(axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 0.0, (a * b).sum(axis=-1) / scale, np.nan)
