"""Do the terms of the gap flow explain how the gap changed? A regression whose right answer is 1, 1, 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.regression import ols_hac
from spectraledge.theory.window_series import check_horizon, future

Array = NDArray[np.float64]
Status = Literal["ok", "too few windows", "no variation", "ill-conditioned"]

_CURES = {
    "ok": "",
    "too few windows": "Record more often or for longer, or use a smaller window or horizon.",
    "no variation": "Leave out the term that does not vary, or take windows from a phase in which it does.",
    "ill-conditioned": "The terms move together: add up those that do, or vary learning rate and weight decay.",
}
_WORST_CONDITION = 30.0  # of the centred design with columns of unit length, the usual rule
_LEAST_BLOCKS_PER_TERM = 3.0  # independent windows for each coefficient


@dataclass(frozen=True)
class GapFlowFit:
    """Regression of the forward change of a gap on the terms of its flow.

    Attributes:
        status: ``ok``, ``too few windows``, ``no variation`` or ``ill-conditioned``.
        cure: What to do about it, in words; empty if ok.
        coefficients: (k) of the terms, 1 each if the flow holds; NaN unless a fit could be made.
        standard_errors: (k) Newey-West.
        low: (k) lower ends of the intervals.
        high: (k) upper ends.
        p_all_one: p-value of all coefficients being 1.
        p_all_zero: p-value of all being 0: the terms say nothing.
        r_squared: Of the fit.
        r_squared_flow: Of the flow itself, coefficients 1 and no constant, against the mean change; may be negative.
        condition: Condition number of the centred design.
        n: Windows used.
        n_effective: n / max(W, H), about the number of independent ones.
    """

    status: Status
    cure: str
    coefficients: Array
    standard_errors: Array
    low: Array
    high: Array
    p_all_one: float
    p_all_zero: float
    r_squared: float
    r_squared_flow: float
    condition: float
    n: int
    n_effective: float


def fit_gap_flow(
    gap: ArrayLike,
    terms: ArrayLike,
    *,
    window: int,
    horizon: int | None = None,
    stride: int = 1,
    later_gap: ArrayLike | None = None,
    level: float = 0.95,
) -> GapFlowFit:
    """Regress ``(g(t + H) - g(t)) / (H s)`` on the terms of dg/dt at t, with a constant.

    Correlating g with its own centred difference, as published, has expectation zero for any stationary series;
    this asks instead whether measured terms predict what comes. The damping term contains g(t), which
    regression to the mean makes predictive in any stationary series: a coefficient of it alone is no evidence,
    and horizons beyond 1 / gamma bias all coefficients towards 0.

    Args:
        gap: (N) width at the position of each window [parameter].
        terms: (N, k) e.g. asymmetry, damping, drive [parameter / step], none using later windows.
        window: W.
        horizon: H [snapshots]; None takes W, which makes the two windows disjoint.
        stride: Optimizer steps s per snapshot.
        later_gap: (N) the width H snapshots later at the position of NOW; None shifts ``gap``, right for a fixed
            position only.
        level: Confidence level.

    Returns:
        The fit. An ill-conditioned one has numbers, with a status that says not to read them one by one.
        Source: derived; errors Newey and West with lag max(W, H) + W.

    Raises:
        SettingError: If shapes differ or stride is below 1.
    """
    h = window if horizon is None else horizon
    check_horizon(h)
    g, x = np.asarray(gap, dtype=np.float64), np.asarray(terms, dtype=np.float64)
    if g.ndim != 1 or x.ndim != 2 or len(x) != len(g) or x.shape[1] < 1 or stride < 1:
        raise SettingError(
            f"gap must be (N), terms (N, k) and stride at least 1; got {g.shape}, {x.shape}, {stride}. "
            "Stack the terms along the last axis."
        )
    later = future(g, h) if later_gap is None else np.asarray(later_gap, dtype=np.float64)
    change = (later - g) / (h * stride)
    known = np.isfinite(change) & np.isfinite(x).all(axis=1)
    n, k = int(known.sum()), x.shape[1]
    n_effective = n / max(window, h)
    if n_effective < _LEAST_BLOCKS_PER_TERM * (k + 1):
        return _empty("too few windows", k, n, n_effective)
    centred = x[known] - x[known].mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    if np.any(size <= 1e-12 * np.linalg.norm(x[known], axis=0)):
        return _empty("no variation", k, n, n_effective)
    condition = float(np.linalg.cond(centred / size))
    status: Status = "ok" if condition <= _WORST_CONDITION else "ill-conditioned"
    lag = min(max(window, h) + window, len(g) - 1)
    # Subtracting the flow turns "all coefficients are 1" into "all are 0".
    fit, rest = ols_hac(change, x, lag=lag), ols_hac(change - x.sum(axis=1), x, lag=lag)
    low, high = fit.interval(level)
    moved = change[known] - change[known].mean()
    miss = change[known] - x[known].sum(axis=1)
    scatter = float(np.square(moved).sum())
    return GapFlowFit(
        status=status,
        cure=_CURES[status],
        coefficients=fit.coefficients[1:],
        standard_errors=fit.standard_errors[1:],
        low=low[1:],
        high=high[1:],
        p_all_one=float(rest.wald(range(1, k + 1))),
        p_all_zero=float(fit.wald(range(1, k + 1))),
        r_squared=float(fit.r_squared),
        r_squared_flow=1.0 - float(np.square(miss).sum()) / scatter if scatter > 0.0 else np.nan,
        condition=condition,
        n=n,
        n_effective=n_effective,
    )


def _empty(status: Status, k: int, n: int, n_effective: float) -> GapFlowFit:
    none = np.full(k, np.nan)
    numbers = (np.nan,) * 5
    return GapFlowFit(status, _CURES[status], none, none, none, none, *numbers, n, n_effective)
