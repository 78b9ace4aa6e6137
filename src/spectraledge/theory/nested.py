"""Does a refined prediction beat the plain one, on data that neither was fitted to?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.bootstrap import BootstrapInterval, block_bootstrap
from spectraledge.theory.regression import Regression, ols_hac

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NestedTest:
    """A small model against a larger one that contains it.

    Attributes:
        difference: Mean of (squared error of the small - of the full model) over windows ahead of the fit
            [unit^2], with its interval; above 0 where the full model predicts better.
        gain: The same over the small model's mean squared error: 0.1 is a 10 % smaller error.
        wald_p: P-value of the added coefficients being 0, in sample, Newey-West.
        fit: The full model on all windows; the coefficients of x_small come first, after the intercept.
        n_test: Windows predicted.
        improves: The difference's interval lies above 0 and wald_p is below 1 - level. Needing both keeps the
            level: the full model pays for its extra coefficients out of sample, and the interval alone has
            few blocks.
    """

    difference: BootstrapInterval
    gain: float
    wald_p: float
    fit: Regression
    n_test: int
    improves: bool


def nested_test(
    y: ArrayLike,
    x_small: ArrayLike,
    x_full: ArrayLike,
    *,
    block: int,
    n_boot: int = 2000,
    rng: np.random.Generator,
    level: float = 0.95,
    intercept: bool = True,
    first: int | None = None,
    purge: int | None = None,
) -> NestedTest:
    """Forward-chaining comparison of nested linear models.

    Both are fitted to all windows before a fold of ``block`` windows, less ``purge`` windows that still share
    updates with it, and predict the fold; then the fold joins the past. For the question whether stability
    coefficients improve a loss decomposition: y the measured change, x_small the sum of the contributions at
    alpha = 1, x_full that and the alpha-weighted sum. Theory expects no gain: along v_j(t-) the unweighted
    product already is the first-order change. Baselines may stand in both models.

    Args:
        y: (N,) measured changes.
        x_small: (N, p) or (N,) columns of the small model.
        x_full: (N, q) columns of the full model, the first p of which are x_small.
        block: Windows in a fold and in a bootstrap block, and lags of the Wald test; at least 2 W.
        n_boot: Number of resamples.
        rng: Source of randomness.
        level: Confidence level.
        intercept: Fit an intercept in both models.
        first: Windows before the first fold, N // 3 by default.
        purge: Windows left out between past and fold, block // 2 by default: W for a block of 2 W.

    Returns:
        The test. Windows with a missing value are left out. Source: standard result (forward chaining with
        purging; Newey and West 1987).

    Raises:
        SettingError: If x_full does not begin with x_small or adds nothing, or if there are too few windows
            for two blocks ahead of the first fit.
    """
    target, small, full = np.asarray(y, dtype=np.float64), _columns(x_small), _columns(x_full)
    n, p, q = len(target), small.shape[1], full.shape[1]
    if target.ndim != 1 or len(small) != n or len(full) != n or q <= p:
        raise SettingError(
            f"x_full must add columns to x_small, with a row for each of {n} changes; got shapes {small.shape} "
            f"and {full.shape}. Put the columns of x_small first and the new ones after them."
        )
    if not np.array_equal(full[:, :p], small, equal_nan=True):
        raise SettingError(f"The first {p} columns of x_full must be those of x_small; they differ.")
    start = n // 3 if first is None else first
    gap = block // 2 if purge is None else purge
    if block < 1 or gap < 0 or n - start < 2 * block or start - gap < q + 2:
        raise SettingError(
            f"At least {2 * block} windows (two blocks) must follow the first {start}, and {q + 2} be left of "
            f"those after purging {gap}; got {n} in all. Record more windows or use a shorter block."
        )
    known = np.isfinite(target) & np.isfinite(full).all(axis=1)
    losses = np.full((2, n), np.nan)
    for begin in range(start, n, block):
        past = np.flatnonzero(known[: begin - gap])
        for row, x in enumerate((small, full)):
            design = np.c_[np.ones(n), x] if intercept else x
            b = np.linalg.lstsq(design[past], target[past], rcond=None)[0]
            fold = slice(begin, begin + block)
            losses[row, fold] = np.square(target[fold] - design[fold] @ b)
    ahead = losses[:, start:]
    interval = block_bootstrap(
        _mean_difference,
        ahead[0],
        ahead[1],
        block=block,
        n_boot=n_boot,
        rng=rng,
        level=level,
        interval="t",
        vectorized=True,
    )
    fit = ols_hac(target, full, lag=min(block, n - 1), intercept=intercept)
    wald_p = float(fit.wald(range(p + intercept, q + intercept)))
    used = np.isfinite(ahead).all(axis=0)
    small_loss = float(ahead[0, used].mean()) if used.any() else float("nan")
    return NestedTest(
        difference=interval,
        gain=float(interval.value) / small_loss if small_loss > 0.0 else float("nan"),
        wald_p=wald_p,
        fit=fit,
        n_test=int(used.sum()),
        improves=bool(interval.low > 0.0 and wald_p < 1.0 - level),
    )


def _mean_difference(small: Array, full: Array) -> Array:
    difference = small - full
    known = np.isfinite(difference)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, difference, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def _columns(x: ArrayLike) -> Array:
    x = np.asarray(x, dtype=np.float64)
    return x[:, None] if x.ndim == 1 else x
