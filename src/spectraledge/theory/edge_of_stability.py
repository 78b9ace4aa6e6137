"""Edge of stability, read from single steps: how near the limit, and does a mode change sign each step?

Limits are those of ``horizon.stability_limit``. Everything here needs updates of ONE optimizer step: over s
steps an alternation cancels for even s and looks like s = 1 for odd s.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.bootstrap import BootstrapInterval, block_bootstrap
from spectraledge.theory.horizon import effective_lr, stability_limit

Array = NDArray[np.float64]
Regime = Literal["noise", "deterministic"]


def sharpness_ratio(sharpness: ArrayLike, kind: str, lr: ArrayLike, momentum: ArrayLike = 0.0) -> Array:
    """Top curvature over the largest stable one; 1 is the edge.

    Args:
        sharpness: (...) largest eigenvalue of the Hessian [loss / parameter^2]; for Adam's kinds of P^-1/2 H
            P^-1/2, the raw one says nothing.
        kind: ``gd``, ``sgd``, ``adam``, ``adamw`` or ``frozen_adamw``.
        lr: (...) eta.
        momentum: (...) beta of SGD, beta_1 of Adam.

    Returns:
        (...). Source: standard result.

    Raises:
        SettingError: For an unknown kind or a momentum outside [0, 1).

    >>> round(float(sharpness_ratio(38.0, "adamw", 1.0, 0.9)), 9)
    1.0
    """
    return np.asarray(sharpness, dtype=np.float64) / stability_limit(kind, lr, momentum)


def predicted_alternation(
    curvature: ArrayLike, kind: str, lr: ArrayLike, momentum: ArrayLike = 0.0, *, regime: Regime = "noise"
) -> Array:
    """Lag-1 correlation of <v, delta> at s = 1 for one mode of curvature h on a quadratic.

    With c = eta (1 - beta) h for Adam's kinds and c = eta h for SGD. ``noise``: at rest in gradient noise,
    ``beta - c / 2``; it is negative below any limit: from c = 2 beta on, and for plain SGD at every curvature
    (-eta h / 2). Only -1 marks the edge, c = 2 (1 + beta). ``deterministic``: without noise the updates of
    one mode obey x_{t+1} = (1 + beta - c) x_t - beta x_{t-1}; the value is the cosine of the angle they turn
    by each step, ``(1 + beta - c) / (2 sqrt(beta))`` clipped to [-1, 1]: negative beyond half the limit,
    c > 1 + beta.

    Args:
        curvature: (...) h >= 0 [loss / parameter^2]; preconditioned for Adam's kinds.
        kind: As in :func:`sharpness_ratio`.
        lr: (...) eta.
        momentum: (...) beta.
        regime: ``noise`` or ``deterministic``.

    Returns:
        (...) in [-1, 1]; NaN at and beyond the limit for ``noise``, where nothing rests. Source: derived.

    Raises:
        SettingError: For an unknown kind or regime, or a momentum outside [0, 1).

    >>> predicted_alternation([0.5, 1.0, 1.9], "gd", 1.0)
    array([-0.25, -0.5 , -0.95])
    >>> predicted_alternation([0.5, 1.9], "gd", 1.0, regime="deterministic")
    array([ 1., -1.])
    """
    if regime not in get_args(Regime):
        raise SettingError(f"regime must be noise or deterministic; got {regime!r}. The default is noise.")
    beta = np.asarray(momentum, dtype=np.float64)
    # eta_eff = eta / (1 - beta) where the buffer sums gradients, eta where it averages: c in both cases
    c = effective_lr(kind, lr, momentum) * (1.0 - beta) * np.asarray(curvature, dtype=np.float64)
    if regime == "noise":
        return np.where(c < 2.0 * (1.0 + beta), beta - 0.5 * c, np.nan)
    trace = 1.0 + beta - c
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(beta > 0.0, trace / (2.0 * np.sqrt(beta)), np.copysign(np.inf, trace))
    return np.where(trace == 0.0, 0.0, np.clip(turn, -1.0, 1.0))


def sign_alternation(
    projections: ArrayLike,
    *,
    block: int,
    n_boot: int = 999,
    level: float = 0.95,
    rng: np.random.Generator,
) -> BootstrapInterval:
    """Lag-1 correlation of <v_j, delta_t> over single steps, mode by mode, with a block-bootstrap interval.

    ``sum_t x_t x_{t+1} / sqrt(sum x_t^2 sum x_{t+1}^2)``, about zero and not about the mean: an alternation
    is about zero, and a drift, which has a mean, is what it must not be taken for. Compare with
    :func:`predicted_alternation`; below zero is not yet the edge of stability.

    Args:
        projections: (T, J) or (T,): v_j fixed over the T steps, taken from updates before them.
        block: Steps in a block, at least some relaxation times 1 / (eta h) and 1 / (1 - beta).
        n_boot: Resamples.
        level: Of the interval.
        rng: Source of randomness.

    Returns:
        Value and ends, (J,) or scalars; NaN where a projection is missing or always zero. Source: standard
        result.

    Raises:
        SettingError: If there are fewer than 4 steps or the block is longer than the record.

    >>> x = (-1.0) ** np.arange(50)
    >>> float(sign_alternation(x, block=5, n_boot=50, rng=np.random.default_rng(0)).value)
    -1.0
    """
    x = np.asarray(projections, dtype=np.float64)
    if x.ndim not in (1, 2) or len(x) < 4:
        raise SettingError(f"projections must be (T, J) with at least 4 steps; got shape {x.shape}. Time goes first.")
    return block_bootstrap(
        _lag_one,
        x[:-1],
        x[1:],
        block=block,
        n_boot=n_boot,
        rng=rng,
        level=level,
        vectorized=True,
    )


def _lag_one(now: Array, later: Array) -> Array:
    scale = np.sqrt(np.square(now).sum(axis=1) * np.square(later).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 0.0, (now * later).sum(axis=1) / scale, np.nan)
