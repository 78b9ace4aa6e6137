"""Gradient descent on a quadratic loss in closed form: positions, updates, their Gram, decay of strengths.

Everything is per mode, an eigenvector of the Hessian. Loss: sum_j h_j (theta_j - c_j)^2 / 2. Weight decay omega
adds to every curvature and pulls the rest point to theta* = h c / (h + omega); without momentum it is the
same whether decay is coupled (added to the gradient) or decoupled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.hankel import hankel_gram, one_minus_power

Array = NDArray[np.float64]


def rest_point(h: ArrayLike, optimum: ArrayLike = 0.0, weight_decay: ArrayLike = 0.0) -> Array:
    """theta* = h c / (h + omega), where gradient and decay balance; (...) [parameter].

    A mode with h + omega = 0 moves nowhere; its rest point is given as its optimum. Source: standard result.

    >>> rest_point([3.0, 1.0], 1.0, weight_decay=1.0)
    array([0.75, 0.5 ])
    """
    h, c = np.asarray(h, dtype=np.float64), np.asarray(optimum, dtype=np.float64)
    total = h + np.asarray(weight_decay, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total == 0.0, c, h / total * c)


def descent_path(
    theta_0: ArrayLike,
    h: ArrayLike,
    lr: float,
    steps: ArrayLike,
    *,
    optimum: ArrayLike = 0.0,
    weight_decay: float = 0.0,
) -> Array:
    """theta_t = theta* + (1 - eta (h + omega))^t (theta_0 - theta*) after each of ``steps`` [parameter].

    Args:
        theta_0: (..., n) start along each mode.
        h: (..., n) curvatures [loss / parameter^2].
        lr: eta.
        steps: (T) numbers of optimizer steps.
        optimum: (..., n) c.
        weight_decay: omega.

    Returns:
        (..., T, n). Source: standard result.

    >>> descent_path([1.0], [0.5], 1.0, [0, 1, 2]).ravel()
    array([1.  , 0.5 , 0.25])
    """
    rest = rest_point(h, optimum, weight_decay)
    h = np.asarray(h, dtype=np.float64)
    power = (1.0 - lr * (h + weight_decay))[..., None, :] ** np.asarray(steps)[:, None]
    away = np.asarray(theta_0, dtype=np.float64) - rest
    return rest[..., None, :] + power * away[..., None, :]


def descent_profiles(
    theta_0: ArrayLike,
    h: ArrayLike,
    lr: float,
    stride: int,
    *,
    start: int = 0,
    optimum: ArrayLike = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """Weights w_j = (1 - rho_j)^2 (theta_start - theta*)_j^2 and rates rho_j = (1 - eta (h_j + omega))^s.

    Args:
        theta_0: (..., n).
        h: (..., n).
        lr: eta.
        stride: s, optimizer steps per update.
        start: Optimizer steps before the first update of the window.
        optimum: (..., n) c.
        weight_decay: omega.

    Returns:
        (weights [parameter^2], rates), (..., n) each, for the functions of ``theory.hankel``. Source: derived.

    Raises:
        SettingError: If the stride is below 1 or the start negative.
    """
    if stride < 1 or start < 0:
        raise SettingError(
            f"stride must be at least 1 and start at least 0; got {stride} and {start}. Use those of the run."
        )
    h = np.asarray(h, dtype=np.float64)
    x = lr * (h + weight_decay)
    away = np.asarray(theta_0, dtype=np.float64) - rest_point(h, optimum, weight_decay)
    return (one_minus_power(x, stride) * (1.0 - x) ** start * away) ** 2, (1.0 - x) ** stride


def descent_gram(
    theta_0: ArrayLike,
    h: ArrayLike,
    lr: float,
    stride: int,
    window: int,
    *,
    start: int = 0,
    optimum: ArrayLike = 0.0,
    weight_decay: float = 0.0,
) -> Array:
    """Gram of W updates of s steps each under gradient descent without noise [parameter^2].

    Returns:
        (..., W, W), oldest update first. Source: derived; see `descent_profiles` for the arguments.

    Raises:
        SettingError: If a stride or window is below 1 or the start negative.

    >>> descent_gram([1.0], [0.5], 1.0, 1, 2)
    array([[0.25  , 0.125 ],
           [0.125 , 0.0625]])
    """
    weights, rates = descent_profiles(theta_0, h, lr, stride, start=start, optimum=optimum, weight_decay=weight_decay)
    return hankel_gram(weights, rates, window)


def free_strengths(
    strengths: ArrayLike, h: ArrayLike, lr: float, steps: ArrayLike, *, weight_decay: float = 0.0
) -> Array:
    """d_j(t) = |1 - eta (h_j + omega)|^t d_j(0): strengths of gradient descent along Hessian eigenvectors.

    The strict flow d' = -eta (h + omega) d with nothing injected (N_j = 0), in the exact discrete form. The
    published flow adds a drive eta W |G|^2 / d, under which strengths would settle at a level instead of
    decaying; on this problem there is no such drive, so there is no ``author`` form here.

    Args:
        strengths: (..., n) d_j(0), root of the summed squared updates of a window [parameter].
        h: (..., n).
        lr: eta.
        steps: (T) optimizer steps later; windows further on by that many steps.
        weight_decay: omega.

    Returns:
        (..., T, n) [parameter]. Source: derived.
    """
    rate = np.abs(1.0 - lr * (np.asarray(h, dtype=np.float64) + weight_decay))
    power = rate[..., None, :] ** np.asarray(steps)[:, None]
    return power * np.asarray(strengths, dtype=np.float64)[..., None, :]


def decay_time(h: ArrayLike, lr: float, *, weight_decay: float = 0.0) -> Array:
    """Optimizer steps in which a mode's strength falls by e: -1 / log|1 - eta (h + omega)|; (...).

    Infinite for a mode that does not decay or grows. Source: derived.
    """
    rate = np.abs(1.0 - lr * (np.asarray(h, dtype=np.float64) + weight_decay))
    with np.errstate(divide="ignore"):
        return np.where(rate < 1.0, -1.0 / np.log(rate), np.where(np.isnan(rate), np.nan, np.inf))


def collapse_time(strengths: ArrayLike, h: ArrayLike, lr: float, *, weight_decay: float = 0.0) -> Array:
    """Optimizer steps until the gap between two free modes closes: log(d_1 / d_2) / log(r_2 / r_1), d_1 > d_2.

    r = |1 - eta (h + omega)|. Infinite where the stronger mode decays no faster: the gap in log strength then
    never closes. The modes cross, since nothing couples them.

    Args:
        strengths: (..., 2) stronger mode first [parameter].
        h: (..., 2).
        lr: eta.
        weight_decay: omega.

    Returns:
        (...). Source: derived.

    Raises:
        SettingError: If the last axis is not two long.

    >>> round(float(collapse_time([4.0, 1.0], [0.5, 0.0], 1.0)), 12)
    2.0
    """
    d, h = np.asarray(strengths, dtype=np.float64), np.asarray(h, dtype=np.float64)
    if d.shape[-1:] != (2,) or h.shape[-1:] != (2,):
        raise SettingError(f"strengths and h must hold two modes; got shapes {d.shape} and {h.shape}. Pass a pair.")
    rate = np.abs(1.0 - lr * (h + weight_decay))
    with np.errstate(divide="ignore", invalid="ignore"):
        closing = np.log(rate[..., 1]) - np.log(rate[..., 0])
        distance = np.log(d[..., 0]) - np.log(d[..., 1])
        return np.where(closing > 0.0, distance / closing, np.where(np.isnan(closing + distance), np.nan, np.inf))
