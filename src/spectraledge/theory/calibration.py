"""Whether predicted changes come true, and whether a refinement of the prediction earns its place.

A prediction that is right has slope 1, intercept 0 and beats both the mean and "nothing changes". All
intervals resample blocks of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from spectraledge.errors import SettingError
from spectraledge.theory.autocorrelation import effective_n
from spectraledge.theory.bootstrap import BootstrapInterval, IntervalKind, block_bootstrap
from spectraledge.theory.nested import NestedTest, nested_test

__all__ = ["Calibration", "NestedTest", "calibrate", "nested_test"]

Array = NDArray[np.float64]
Status = Literal["ok", "few blocks", "too few windows"]

_FEWEST_BLOCKS = 10

_NAMES = ("slope", "intercept", "slope_zero", "r2_mean", "r2_zero", "spearman", "advantage")


@dataclass(frozen=True)
class Calibration:
    """How m predictions of one series came true. Every interval holds (m,) values.

    Attributes:
        slope: Of measured on predicted, with an intercept; 1 for a right prediction.
        intercept: Its intercept [unit of the series]; 0 for a right prediction.
        slope_zero: Of measured on predicted, through zero.
        r2_mean: ``1 - sum (y - p)^2 / sum (y - mean y)^2`` of the prediction as it is, nothing refitted.
        r2_zero: ``1 - sum (y - p)^2 / sum y^2``: against predicting no change at all.
        spearman: Rank correlation.
        advantage: r2_zero of the first column minus that of each: above 0 where the first beats a baseline.
        n: Windows used: those with every prediction and the measurement.
        n_effective: (m,) independent windows that the prediction errors amount to.
        status: ``ok``; ``few blocks`` (fewer than 10 blocks: intervals are too short); ``too few windows``
            (fewer than 3 used, or none of two blocks: values only, intervals NaN).
    """

    slope: BootstrapInterval
    intercept: BootstrapInterval
    slope_zero: BootstrapInterval
    r2_mean: BootstrapInterval
    r2_zero: BootstrapInterval
    spearman: BootstrapInterval
    advantage: BootstrapInterval
    n: int
    n_effective: Array
    status: Status


def calibrate(
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    block: int,
    n_boot: int = 2000,
    rng: np.random.Generator,
    level: float = 0.95,
    interval: IntervalKind = "percentile",
) -> Calibration:
    """Calibration of one or more predictions of the same changes.

    Give the prediction first and its baselines as further columns (for a decomposition of the loss:
    ``-lr_sum <grad L_train, grad L_val>``, a top Hessian basis, the last change): all share the same
    resamples, so that :attr:`Calibration.advantage` compares them window by window. Windows with a missing
    value keep their place in time and are left out of every statistic.

    Args:
        predicted: (N,) or (N, m), the prediction in column 0 [unit of measured].
        measured: (N,) changes that came about.
        block: Length of a bootstrap block; at least 2 W for windows of W updates.
        n_boot: Number of resamples.
        rng: Source of randomness.
        level: Confidence level.
        interval: Kind of interval, see :func:`~spectraledge.theory.bootstrap.block_bootstrap`.

    Returns:
        The calibration. Noise in the *prediction* pulls its slope below 1 (attenuation); that is a property
        of the prediction, and not corrected for. Source: standard result.

    Raises:
        SettingError: If the lengths differ or the block is out of range.

    >>> x = np.sin(np.arange(400.0))
    >>> fit = calibrate(0.5 * x, x, block=20, n_boot=100, rng=np.random.default_rng(0))
    >>> fit.slope.value.round(6), fit.r2_zero.value.round(6)
    (array([2.]), array([0.75]))
    """
    y, p = np.asarray(measured, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    p = p[:, None] if p.ndim == 1 else p
    if y.ndim != 1 or p.ndim != 2 or len(p) != len(y) or p.shape[1] < 1:
        raise SettingError(
            f"predicted must be (N,) or (N, m) for N measured changes; got shapes {np.shape(predicted)} and "
            f"{y.shape}. Give one row for each update."
        )
    if not 1 <= block <= max(len(y), 1):
        raise SettingError(f"block must lie in 1..{len(y)}; got {block}. Use 2 W for windows of W updates.")
    known = np.isfinite(y) & np.isfinite(p).all(axis=1)
    n = int(known.sum())
    errors = np.where(known[:, None], y[:, None] - p, np.nan)
    spread = effective_n(errors.T, min(block, len(y) - 1)) if n > 1 else np.full(p.shape[1], np.nan)
    if n < 3 or len(y) < 2 * block:
        value = _statistics(p[None], y[None])[0]
        unknown = np.full_like(value, np.nan)
        result = BootstrapInterval(value, unknown, unknown, level, len(y) / block)
        status: Status = "too few windows"
    else:
        result = block_bootstrap(
            _statistics,
            p,
            y,
            block=block,
            n_boot=n_boot,
            rng=rng,
            level=level,
            interval=interval,
            vectorized=True,
        )
        status = "ok" if result.n_units >= _FEWEST_BLOCKS else "few blocks"
    parts = {
        name: BootstrapInterval(result.value[i], result.low[i], result.high[i], level, result.n_units)
        for i, name in enumerate(_NAMES)
    }
    return Calibration(**parts, n=n, n_effective=spread, status=status)


def _statistics(p: Array, y: Array) -> Array:
    """(B, n, m) predictions and (B, n) measurements to (B, 7, m) statistics in the order of _NAMES."""
    known = (np.isfinite(y) & np.isfinite(p).all(axis=-1))[..., None]
    count = known.sum(axis=-2)
    target = np.where(known, y[..., None], 0.0)
    guess = np.where(known, p, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        y_mean, p_mean = target.sum(axis=-2) / count, guess.sum(axis=-2) / count
        dy = np.where(known, target - y_mean[..., None, :], 0.0)
        dp = np.where(known, guess - p_mean[..., None, :], 0.0)
        slope = _over((dp * dy).sum(axis=-2), np.square(dp).sum(axis=-2))
        slope_zero = _over((guess * target).sum(axis=-2), np.square(guess).sum(axis=-2))
        misfit = np.square(target - guess).sum(axis=-2)
        r2_mean = 1.0 - _over(misfit, np.square(dy).sum(axis=-2))
        r2_zero = 1.0 - _over(misfit, np.square(target).sum(axis=-2))
    spearman = _rank_correlation(guess, np.broadcast_to(target, guess.shape), known)
    rows = [slope, y_mean - slope * p_mean, slope_zero, r2_mean, r2_zero, spearman, r2_zero[..., :1] - r2_zero]
    return np.stack(rows, axis=-2)


def _rank_correlation(x: Array, y: Array, known: NDArray[np.bool_]) -> Array:
    # Unknown pairs rank above all others, and then do not count: the ranks of the rest stay what they were.
    count = known.sum(axis=-2, keepdims=True)
    centred = []
    for series in (x, y):
        ranks = rankdata(np.where(known, series, np.inf), axis=-2)
        centred.append(np.where(known, ranks - 0.5 * (count + 1.0), 0.0))
    a, b = centred
    return _over((a * b).sum(axis=-2), np.sqrt(np.square(a).sum(axis=-2) * np.square(b).sum(axis=-2)))


def _over(numerator: Array, denominator: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0.0, numerator / denominator, np.nan)
