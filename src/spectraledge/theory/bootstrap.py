"""Bootstrap of dependent series: resample blocks of time, or whole runs, never single windows.

Overlapping windows repeat each other for W snapshots, so that a block must be at least 2 W long, and a record
of N windows holds about N / W independent ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from spectraledge.errors import SettingError

Array = NDArray[np.float64]
IntervalKind = Literal["percentile", "basic", "t"]

_CHUNK = 4_000_000  # numbers gathered at once: 32 MB for each series
_FEWEST_FINITE = 0.9  # share of resamples that must give a number


@dataclass(frozen=True)
class BootstrapInterval:
    """A statistic with its interval.

    Attributes:
        value: (...) statistic of the data themselves.
        low: (...) lower end.
        high: (...) upper end.
        level: Confidence level.
        n_units: Number of blocks n / block, or of runs. With fewer than about ten the interval is too short.
    """

    value: Array
    low: Array
    high: Array
    level: float
    n_units: float


def moving_block_indices(n: int, block: int, n_boot: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the moving-block bootstrap: blocks of equal length that start anywhere.

    Args:
        n: Length of the series.
        block: Length of a block, 1..n.
        n_boot: Number of resamples.
        rng: Source of randomness.

    Returns:
        (n_boot, n) indices; the last block is cut to length. Source: standard result (Kuensch 1989).

    Raises:
        SettingError: If a number is out of range.
    """
    _check_blocks(n, block, n_boot)
    starts = rng.integers(0, n - block + 1, size=(n_boot, -(-n // block)))
    return (starts[..., None] + np.arange(block)).reshape(n_boot, -1)[:, :n]


def stationary_indices(n: int, block: float, n_boot: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the stationary bootstrap: geometric block lengths of mean ``block``, wrapping at the end.

    Args:
        n: Length of the series.
        block: Mean length of a block, 1..n.
        n_boot: Number of resamples.
        rng: Source of randomness.

    Returns:
        (n_boot, n) indices. Source: standard result (Politis and Romano 1994).

    Raises:
        SettingError: If a number is out of range.
    """
    _check_blocks(n, block, n_boot)
    fresh = rng.random((n_boot, n)) < 1.0 / block
    fresh[:, 0] = True
    starts = rng.integers(0, n, size=(n_boot, n))
    position = np.arange(n)
    begun = np.maximum.accumulate(np.where(fresh, position, 0), axis=1)
    return (np.take_along_axis(starts, begun, axis=1) + position - begun) % n


def block_bootstrap(
    statistic: Callable[..., Any],
    *series: ArrayLike,
    block: int,
    n_boot: int = 2000,
    rng: np.random.Generator,
    level: float = 0.95,
    interval: IntervalKind = "percentile",
    vectorized: bool = False,
) -> BootstrapInterval:
    """Moving-block bootstrap of a statistic of one or more series in step.

    ``percentile``: quantiles of the resampled values. ``basic``: the same, reflected about the value; right
    where the error does not depend on the truth. ``t``: value +- t sd, with the variance divided by
    ``1 - block/n`` (block means scatter about the mean of all of them) and 1.5 n / block degrees of freedom,
    those of the equivalent Bartlett estimate (fewer for few resamples); the one to prefer for few blocks and
    a smooth statistic.

    Blocks cut the dependence at their ends, which loses a share of about ``2 rho / ((1 - rho^2) block)`` of
    the variance of an AR(1) mean.

    Args:
        statistic: ``statistic(*series)`` -> number or array.
        *series: (n,) or (n, ...) each, time first; the same blocks are drawn in all.
        block: Length of a block; at least 2 W for series of windows.
        n_boot: Number of resamples.
        rng: Source of randomness.
        level: Confidence level in (0, 1).
        interval: ``percentile``, ``basic`` or ``t``.
        vectorized: The statistic takes (n_boot, n, ...) stacks and returns (n_boot, ...).

    Returns:
        The value and its interval; NaN ends where over 10 % of the resamples give no number. Source: standard
        result, corrections of ``t`` derived.

    Raises:
        SettingError: For series of different lengths, a block beyond n, or an unknown interval.

    >>> x = np.sin(np.arange(200.0))
    >>> mean = block_bootstrap(np.mean, x, block=20, n_boot=200, rng=np.random.default_rng(0))
    >>> bool(mean.low < mean.value < mean.high)
    True
    """
    arrays = [np.asarray(x, dtype=np.float64) for x in series]
    if not arrays or any(x.ndim < 1 or len(x) != len(arrays[0]) for x in arrays):
        raise SettingError(
            f"series must be at least one, all of the same length; got lengths "
            f"{[len(x) if x.ndim else 0 for x in arrays]}. Cut them to the windows that they share."
        )
    n = len(arrays[0])
    index = moving_block_indices(n, block, n_boot, rng)
    if vectorized:
        value = np.asarray(statistic(*(x[None] for x in arrays)), dtype=np.float64)[0]
        rows = max(1, _CHUNK // max(x.size for x in arrays))
        parts = [statistic(*(x[index[i : i + rows]] for x in arrays)) for i in range(0, n_boot, rows)]
        draws = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])
    else:
        value = np.asarray(statistic(*arrays), dtype=np.float64)
        draws = np.array([statistic(*(x[i] for x in arrays)) for i in index], dtype=np.float64)
    shrink = 1.0 - block / n if block > 1 else 1.0 - 1.0 / n
    return _interval(value, draws, level, interval, n / block, shrink, 1.5 * n / block)


def cluster_bootstrap(
    statistic: Callable[[list[Any]], Any],
    clusters: Sequence[Any],
    *,
    n_boot: int = 2000,
    rng: np.random.Generator,
    level: float = 0.95,
    interval: IntervalKind = "percentile",
) -> BootstrapInterval:
    """Bootstrap over whole runs: clusters are drawn with replacement, each kept entire.

    Args:
        statistic: Takes a list of clusters, returns a number or array.
        clusters: One entry for each run: anything the statistic understands.
        n_boot: Number of resamples.
        rng: Source of randomness.
        level: Confidence level in (0, 1).
        interval: ``percentile``, ``basic`` or ``t`` (n - 1 degrees of freedom, variance times n / (n - 1)).

    Returns:
        The value and its interval. Three runs give an interval that means little: ``n_units`` says so.
        Source: standard result.

    Raises:
        SettingError: For fewer than two clusters or an unknown interval.
    """
    n = len(clusters)
    if n < 2 or n_boot < 1:
        raise SettingError(
            f"A cluster bootstrap needs at least 2 runs and 1 resample; got {n} and {n_boot}. "
            "Use block_bootstrap within a single run."
        )
    value = np.asarray(statistic(list(clusters)), dtype=np.float64)
    index = rng.integers(0, n, size=(n_boot, n))
    draws = np.array([statistic([clusters[i] for i in row]) for row in index], dtype=np.float64)
    return _interval(value, draws, level, interval, n, 1.0 - 1.0 / n, n - 1.0)


def _interval(
    value: Array, draws: Array, level: float, kind: str, n_units: float, shrink: float, dof: float
) -> BootstrapInterval:
    if not 0.0 < level < 1.0:
        raise SettingError(f"level must lie in (0, 1); got {level}. Use 0.95.")
    if kind not in get_args(IntervalKind):
        raise SettingError(f"interval must be one of {', '.join(get_args(IntervalKind))}; got {kind!r}.")
    finite = np.isfinite(draws)
    usable = (finite.mean(axis=0) >= _FEWEST_FINITE) & np.isfinite(value)
    # Unusable columns get a stand-in, so that no quantile of nothing is taken.
    kept = np.where(usable, np.where(finite, draws, np.nan), 0.0)
    tail = 0.5 * (1.0 - level)
    if kind == "t":
        spread = np.nanstd(kept, axis=0) / np.sqrt(shrink) if shrink > 0.0 else np.full(value.shape, np.nan)
        # Relative variances of independent estimates add: that of n_boot resamples to that of the blocks.
        dof = 1.0 / (1.0 / dof + 1.0 / max(len(draws) - 1, 1))
        reach = student.ppf(1.0 - tail, dof) * spread
        low, high = value - reach, value + reach
    else:
        low, high = np.nanquantile(kept, [tail, 1.0 - tail], axis=0)
        if kind == "basic":
            low, high = 2.0 * value - high, 2.0 * value - low
    low, high = (np.where(usable, end, np.nan) for end in (low, high))
    return BootstrapInterval(value, low, high, level, float(n_units))


def _check_blocks(n: int, block: float, n_boot: int) -> None:
    if n < 2 or not 1 <= block <= n or n_boot < 1:
        raise SettingError(
            f"block must lie in 1..n and n_boot be at least 1; got block {block}, n {n} and n_boot {n_boot}. "
            "Use a block of 2 W for windows of W updates, over a record of 20 W or more."
        )
