"""Local projections: does one series lead another, horizon by horizon, beyond what the past already tells?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.regression import lagged_design, ols_hac

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LocalProjection:
    """Response of one series to another.

    Attributes:
        horizons: (H,) in windows.
        response: (H,) coefficient of x_t in the regression of y_{t+h} [unit of y / unit of x].
        low: (H,) lower end of the HAC interval.
        high: (H,) its upper end.
        p_values: (H,) two-sided, not corrected for the number of horizons.
        n: (H,) rows.
    """

    horizons: NDArray[np.int64]
    response: Array
    low: Array
    high: Array
    p_values: Array
    n: Array


def local_projection(
    y: ArrayLike,
    x: ArrayLike,
    horizons: Sequence[int],
    *,
    controls: ArrayLike | None = None,
    lags: Sequence[int] = (0,),
    hac_lag: int,
    level: float = 0.95,
) -> LocalProjection:
    """Regress y_{t+h} on x_t, on y at the given lags and on controls, for each horizon h.

    The alpha loop (larger gap, more stable directions, larger gap) is two of these: alpha_{t+h} on g_t, and
    g_{t+h} on alpha_t, both positive from h = W on. Alpha must be an overlap of disjoint windows: the
    Davis-Kahan form is computed from the gap, so that gap -> alpha would be a definition; and at h < W the
    windows of both sides share updates.

    Args:
        y: (T,) response, for instance stability alpha.
        x: (T,) impulse, for instance the gap.
        horizons: h >= 1 in windows; from W on no update is on both sides.
        controls: (T,) or (T, C): step norm, learning rate, loss; in t.
        lags: Lags of y among the regressors; (0,) is y_t itself. Of x only x_t: its coefficient is the total
            effect.
        hac_lag: Lags of the Newey-West covariance, at least W + h - 1 (errors of an h-step forecast overlap
            h - 1 times, those of windows W - 1); the horizon is added here, give 2 W.
        level: Of the intervals.

    Returns:
        Responses; NaN where the record is too short. Source: standard result (Jorda 2005); use for the loop of
        arXiv:2603.28964v1-v3 derived.

    Raises:
        SettingError: If shapes do not match or a horizon is below 1.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal(300)
    >>> y = np.r_[0.0, 0.5 * x[:-1]] + 0.1 * rng.standard_normal(300)
    >>> local_projection(y, x, [1, 2], hac_lag=0).response.round(1)
    array([0.5, 0. ])
    """
    response, impulse = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    extra = np.zeros((len(response), 0)) if controls is None else np.asarray(controls, dtype=np.float64)
    extra = extra.reshape(len(extra), -1)
    if response.ndim != 1 or impulse.shape != response.shape or len(extra) != len(response):
        raise SettingError(
            f"y and x must be (T,) and controls (T, C); got {response.shape}, {impulse.shape} and {extra.shape}. "
            "Cut them to the windows that they share."
        )
    if not horizons or min(horizons) < 1:
        raise SettingError(f"horizons must be at least 1 window; got {list(horizons)}. Use W and 2 W.")
    design = np.concatenate([impulse[:, None], lagged_design(response, lags), extra], axis=1)
    found = []
    for h in horizons:
        future = np.full(len(response), np.nan)
        future[: max(len(response) - h, 0)] = response[h:]
        fit = ols_hac(future, design, lag=min(hac_lag + h - 1, len(response) - 1))
        low, high = fit.interval(level)
        found.append([fit.coefficients[1], low[1], high[1], fit.p_values[1], float(fit.n)])
    return LocalProjection(np.asarray(horizons, dtype=np.int64), *np.array(found, dtype=np.float64).T)
