"""Arrays of a result as columns of one table, and intervals as plain types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..theory.bootstrap import BootstrapInterval, block_bootstrap

Table = dict[str, np.ndarray]
FEWEST = 3  # values that an interval needs


def columns(name: str, values: np.ndarray) -> Table:
    """One column for a series, ``name_1`` to ``name_m`` for an (N, m) array.

    >>> sorted(columns("h", np.zeros((5, 2))))
    ['h_1', 'h_2']
    """
    if values.ndim == 1:
        return {name: values}
    return {f"{name}_{j + 1}": values[:, j] for j in range(values.shape[1])}


def plain_interval(interval: BootstrapInterval, index: Any = ()) -> dict[str, float]:
    """``value``, ``low``, ``high`` of one entry of an interval, and ``n_units``, the blocks behind it."""
    ends = {name: float(getattr(interval, name)[index]) for name in ("value", "low", "high")}
    return {**ends, "n_units": float(interval.n_units)}


def time_interval(
    statistic: Callable[..., Any], *series: ArrayLike, block: int, n_boot: int, rng: np.random.Generator
) -> BootstrapInterval:
    """Moving-block bootstrap of a vectorised statistic; ends are NaN where there are fewer than two blocks.

    Args:
        statistic: Takes stacks (n_boot, N, ...) of the series, returns (n_boot, ...).
        *series: (N, ...) in step.
        block: Entries in a block.
        n_boot: Number of resamples.
        rng: Source of randomness.

    Returns:
        The statistic with its percentile interval at 95 %. Source: standard result.
    """
    arrays = [np.asarray(x, dtype=np.float64) for x in series]
    n = len(arrays[0])
    if n < max(FEWEST, 2 * block):
        value = np.asarray(statistic(*(x[None] for x in arrays)), dtype=np.float64)[0]
        unknown = np.full_like(value, np.nan)
        return BootstrapInterval(value, unknown, unknown, 0.95, n / block)
    return block_bootstrap(statistic, *arrays, block=block, n_boot=n_boot, rng=rng, vectorized=True)


def known_mean(values: np.ndarray, axis: int | tuple[int, ...] = 1) -> np.ndarray:
    """Mean of the finite entries along ``axis``; NaN where there is none.

    >>> known_mean(np.array([[1.0, np.nan, 3.0], [np.nan] * 3]))
    array([ 2., nan])
    """
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=axis) / np.where(
            known.any(axis=axis), known.sum(axis=axis), np.nan
        )


def known_median(values: np.ndarray) -> float:
    """Median of the entries that are not NaN (infinite bounds count); NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
