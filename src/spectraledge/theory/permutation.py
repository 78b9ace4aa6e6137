"""Tests by shifting one series against another, and corrections for having made many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MaxStatisticTest:
    """Result of a scan whose best entry was looked for.

    Attributes:
        observed: (K,) the statistics, larger for more dependence.
        p_adjusted: (K,) chance under the null that *any* of the K is at least as large: family-wise p-values.
        p: Smallest of them, the p-value of the scan as a whole.
        n_shifts: Number of shifts drawn.
    """

    observed: Array
    p_adjusted: Array
    p: float
    n_shifts: int


def circular_shift_p(
    statistic: Callable[[Array, Array], Any],
    x: ArrayLike,
    y: ArrayLike,
    n: int = 999,
    rng: np.random.Generator | None = None,
) -> float:
    """P-value of a dependence between two series against circular shifts of the second.

    Each series keeps its own autocorrelation; only their timing is broken. Valid for stationary series: a
    common trend is dependence to this test, so take trends out or compare runs instead.

    Small shifts, which leave the series almost in step, count as well. Leaving them out looks like a cleaner
    null, and rejects too often: the correlation is a smooth function of the shift, so that its neighbours are
    what says how many independent values there are. For series with correlation time tau the p-value cannot
    fall much below ``2 tau / T``, which is the resolution that the record has.

    Args:
        statistic: ``statistic(x, y)`` -> number, larger for more dependence (take the absolute value
            yourself for a two-sided test).
        x: (T,) series.
        y: (T,) series in step with it.
        n: Number of shifts; all of them, each once, where there are no more than n.
        rng: Source of randomness; needed only if there are more than n shifts.

    Returns:
        ``(1 + #{shifted >= observed}) / (1 + #shifts)``; NaN if the observed statistic is. Source: standard
        result.

    Raises:
        SettingError: If the lengths differ, the series is too short, or rng is missing.
    """
    return max_statistic_p(statistic, x, y, n, rng).p


def max_statistic_p(
    statistic: Callable[[Array, Array], Any],
    x: ArrayLike,
    y: ArrayLike,
    n: int = 999,
    rng: np.random.Generator | None = None,
) -> MaxStatisticTest:
    """P-values of a scan over lags, layers or windows, corrected for having looked at all of them.

    Under every shift the whole scan is repeated and its maximum kept. Entries must be comparable (absolute
    correlations of one kind), or the most variable one decides alone.

    Args:
        statistic: ``statistic(x, y)`` -> (K,) or a number, larger for more dependence; for lags
            ``lambda x, y: abs(lagged_correlations(x, y, lags))``.
        x: (T, ...) series, time first.
        y: (T, ...) series in step with it; this one is shifted.
        n: Number of shifts, see :func:`circular_shift_p`.
        rng: Source of randomness.

    Returns:
        The test; a scan over lags -L..L resolves p-values down to about ``(2 L + 2 tau) / T``. Source:
        standard result (max-T, Westfall and Young 1993).

    Raises:
        SettingError: If the lengths differ, the series is too short, or rng is missing.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim < 1 or b.ndim < 1 or len(a) != len(b):
        raise SettingError(f"x and y must be series in step; got shapes {a.shape} and {b.shape}. Cut them to match.")
    shifts = np.arange(1, len(a))
    if len(shifts) == 0 or n < 1:
        raise SettingError(
            f"A test by shifts needs a series of at least 2 and n of at least 1; got {len(a)} and {n}. "
            "Use a longer series."
        )
    if len(shifts) > n:
        if rng is None:
            raise SettingError(f"{len(shifts)} shifts are possible and {n} are wanted, so rng must be given.")
        shifts = rng.choice(shifts, size=n, replace=False)
    observed = np.atleast_1d(np.asarray(statistic(a, b), dtype=np.float64))
    null = np.array([np.atleast_1d(statistic(a, np.roll(b, s, axis=0))) for s in shifts], dtype=np.float64)
    made = np.isfinite(observed)
    # A shift that gives no number counts against the finding; entries that give none at all do not count.
    scan = np.where(np.isfinite(null), null, np.inf)[:, made]
    largest = scan.max(axis=-1, initial=-np.inf)
    reached = (largest[:, None] >= observed).sum(axis=0)
    p = np.where(made, (1.0 + reached) / (1.0 + len(shifts)), np.nan)
    known = p[np.isfinite(p)]
    return MaxStatisticTest(observed, p, float(known.min()) if len(known) else float("nan"), len(shifts))


def lagged_correlations(x: ArrayLike, y: ArrayLike, lags: Sequence[int]) -> Array:
    """Correlation of x_t with y_{t + lag} for each lag; a positive lag means that x leads.

    Args:
        x: (T,) series.
        y: (T,) series.
        lags: K lags of either sign, smaller than T - 2 in size.

    Returns:
        (K,) in [-1, 1]; NaN for a constant series. Signed: a scan that keeps the most negative one only can
        never find a positive relation, so scan the absolute values. Source: standard result.

    Raises:
        SettingError: If the lengths differ or a lag leaves fewer than 3 pairs.

    >>> x = np.sin(np.arange(50.0))
    >>> lagged_correlations(x[1:], x[:-1], [1]).round(6)
    array([1.])
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or max((abs(lag) for lag in lags), default=0) > len(a) - 3:
        raise SettingError(
            f"lags must leave at least 3 pairs of two series of equal length; got shapes {a.shape}, {b.shape} and "
            f"lags {list(lags)}. Use shorter lags."
        )
    n = len(a)
    pairs = [(a[max(-lag, 0) : n - max(lag, 0)], b[max(lag, 0) : n - max(-lag, 0)]) for lag in lags]
    return np.array([_correlation(u, v) for u, v in pairs], dtype=np.float64)


def holm(p: ArrayLike) -> Array:
    """Holm-adjusted p-values over the last axis: family-wise error under any dependence.

    Args:
        p: (..., K); NaN marks a test that was not made and does not count.

    Returns:
        (..., K) adjusted, at most 1. Source: standard result (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    return _adjust(p, lambda p, rank, k: np.maximum.accumulate(p * (k - rank), axis=-1))


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Benjamini-Hochberg adjusted p-values over the last axis: false discovery rate, independent tests.

    Args:
        p: (..., K); NaN marks a test that was not made and does not count.

    Returns:
        (..., K) adjusted, at most 1. Source: standard result (Benjamini and Hochberg 1995).

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    array([0.03, 0.04, 0.04])
    """

    def step_up(p: Array, rank: Array, k: Array) -> Array:
        return np.minimum.accumulate((p * k / (rank + 1.0))[..., ::-1], axis=-1)[..., ::-1]

    return _adjust(p, step_up)


def _adjust(p: ArrayLike, rule: Callable[[Array, Array, Array], Array]) -> Array:
    """Apply a rule to sorted p-values; tests not made sort last and are left out of the count."""
    values = np.asarray(p, dtype=np.float64)
    made = np.isfinite(values)
    filled = np.where(made, values, 1.0)
    if values.ndim < 1 or np.any((filled < 0.0) | (filled > 1.0)):
        raise SettingError("p must be p-values in [0, 1] along the last axis. Pass NaN for a test not made.")
    order = np.argsort(np.where(made, values, np.inf), axis=-1, kind="stable")
    count = made.sum(axis=-1, keepdims=True).astype(np.float64)
    ranked = np.take_along_axis(np.where(made, values, np.inf), order, axis=-1)
    # Tests not made stand in as inf, which no minimum takes; Holm's maximum meets them last.
    rank = np.minimum(np.arange(values.shape[-1]), np.maximum(count - 1.0, 0.0))
    adjusted = np.minimum(rule(ranked, rank, np.maximum(count, 1.0)), 1.0)
    out = np.empty_like(values)
    np.put_along_axis(out, order, adjusted, axis=-1)
    return np.where(made, out, np.nan)


def _correlation(x: Array, y: Array) -> float:
    u, v = x - x.mean(), y - y.mean()
    scale = np.sqrt((u @ u) * (v @ v))
    return float(u @ v / scale) if scale > 0.0 else float("nan")
