"""SGD with known gradient noise on a quadratic loss: the update Gram to expect, at rest and on the way there.

One step along a mode: x <- r x - eta xi with r = 1 - eta (h + omega) and Var xi = sigma^2, x counted from the
rest point. No momentum; ``theory.linear_maps`` holds the general case.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.hankel import one_minus_power

Array = NDArray[np.float64]

Time = Literal["discrete", "continuous"]


def stationary_strengths(
    h: ArrayLike,
    lr: float,
    noise_variance: ArrayLike,
    stride: int,
    window: int,
    *,
    weight_decay: float = 0.0,
    time: str = "discrete",
    mode: str = "strict",
) -> Array:
    """Mode energy d_j = sqrt(E sum_a <v_j, delta_a>^2) of a window at rest [parameter].

    ``strict``, discrete: d^2 = 2 W V (1 - r^s), V = eta^2 sigma^2 / (1 - r^2), exact for SGD; continuous:
    d^2 = W (eta sigma^2 / h)(1 - exp(-eta h s)), its limit of small eta h, h including omega. A mode without
    curvature diffuses: d^2 = W eta^2 sigma^2 s. ``author``: d = sqrt(W / (h + omega)) |G|, sigma standing
    for |G|: no learning rate and no stride, and other units, so that only its slope can be compared.

    Args:
        h: (...) curvatures [loss / parameter^2].
        lr: eta.
        noise_variance: (...) sigma^2 per step along each mode [(loss / parameter)^2].
        stride: s, optimizer steps per update.
        window: W.
        weight_decay: omega.
        time: "discrete" or "continuous".
        mode: "strict" or "author".

    Returns:
        (...); NaN for a mode without a stationary state (|r| > 1, or r = -1). Source: arXiv:2603.28964
        (author), derived (strict).

    Raises:
        SettingError: For another mode or time, or a stride or window below 1.

    >>> stationary_strengths([0.05, 1.0, 10.0], 0.01, 1.0, 500, 10).round(4)
    array([0.6653, 0.316 , 0.1026])
    """
    if mode not in ("strict", "author") or time not in ("discrete", "continuous"):
        raise SettingError(
            f"mode must be strict or author and time discrete or continuous; got {mode} and {time}. "
            "Use strict and discrete."
        )
    _check(stride, window)
    total = np.asarray(h, dtype=np.float64) + weight_decay
    variance = np.asarray(noise_variance, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if mode == "author":
            return np.sqrt(window * variance / total)
        if time == "continuous":
            x = lr * total
            relaxed = np.where(x == 0.0, float(stride), -np.expm1(-x * stride) / x)
            return np.sqrt(np.where(x >= 0.0, window * lr**2 * variance * relaxed, np.nan))
        return np.sqrt(window * _rest_variance(total, lr, variance, stride))


def stationary_gram(
    h: ArrayLike, lr: float, noise_variance: ArrayLike, stride: int, window: int, *, weight_decay: float = 0.0
) -> Array:
    """Expected update Gram at rest, summed over modes: Toeplitz in the lag k [parameter^2].

    Per mode 2 V (1 - rho) at k = 0 and -V rho^(k-1) (1 - rho)^2 beyond, rho = r^s.

    Args:
        h: (..., n).
        lr: eta.
        noise_variance: (..., n) or scalar.
        stride: s.
        window: W.
        weight_decay: omega.

    Returns:
        (..., W, W); NaN where a mode has no stationary state. Source: derived.

    Raises:
        SettingError: If a stride or window is below 1.
    """
    _check(stride, window)
    total = np.asarray(h, dtype=np.float64) + weight_decay
    diagonal = _rest_variance(total, lr, np.asarray(noise_variance, dtype=np.float64), stride)
    rho, lost = (1.0 - lr * total) ** stride, one_minus_power(lr * total, stride)
    lags = np.arange(window)
    beyond = -0.5 * (diagonal * lost)[..., None] * rho[..., None] ** np.maximum(lags - 1, 0)
    by_lag = np.where(lags == 0, diagonal[..., None], beyond).sum(axis=-2)
    return by_lag[..., np.abs(lags[:, None] - lags)]


def expected_gram(
    theta_0: ArrayLike,
    h: ArrayLike,
    lr: float,
    noise_variance: ArrayLike,
    stride: int,
    window: int,
    *,
    start: int = 0,
    weight_decay: float = 0.0,
) -> Array:
    """Expected Gram of SGD that left ``theta_0`` with certainty ``start`` steps before the window [parameter^2].

    With u_a = E x^2 at the start of update a and q = eta^2 sigma^2 (1 - r^(2s)) / (1 - r^2), the noise that one
    update collects: E delta_a^2 = (1 - rho)^2 u_a + q and, for b > a,
    E delta_a delta_b = -(1 - rho) rho^(b-a-1) [q - rho (1 - rho) u_a]. Holds for modes that diffuse or grow too.

    Args:
        theta_0: (..., n) distance from the rest point at step 0 [parameter].
        h: (..., n).
        lr: eta.
        noise_variance: (..., n) or scalar; 0 gives `descent_gram`.
        stride: s.
        window: W.
        start: Optimizer steps before the first update.
        weight_decay: omega.

    Returns:
        (..., W, W), summed over modes. Source: derived.

    Raises:
        SettingError: If a stride or window is below 1 or the start negative.
    """
    _check(stride, window)
    if start < 0:
        raise SettingError(f"start must be at least 0; got {start}. Count steps from the run's beginning.")
    x = lr * (np.asarray(h, dtype=np.float64) + weight_decay)
    step_noise = lr**2 * np.asarray(noise_variance, dtype=np.float64)
    rho, lost = (1.0 - x) ** stride, one_minus_power(x, stride)
    q = step_noise * _noise_sum(x, stride)
    gram = np.empty((*np.broadcast_shapes(x.shape, q.shape)[:-1], window, window))
    for a in range(window):
        now = start + a * stride
        u = ((1.0 - x) ** now * np.asarray(theta_0, dtype=np.float64)) ** 2 + step_noise * _noise_sum(x, now)
        gram[..., a, a] = (lost**2 * u + q).sum(axis=-1)
        for b in range(a + 1, window):
            gram[..., a, b] = gram[..., b, a] = (-lost * rho ** (b - a - 1) * (q - rho * lost * u)).sum(axis=-1)
    return gram


def _rest_variance(total: Array, lr: float, variance: Array, stride: int) -> Array:
    """E <v_j, delta>^2 of one update at rest: 2 V (1 - r^s), written so that r = 1 is no exception."""
    x = lr * total
    with np.errstate(divide="ignore", invalid="ignore"):
        geometric = np.where(x == 0.0, float(stride), one_minus_power(x, stride) / x)
        found = 2.0 * lr**2 * variance * geometric / (2.0 - x)
    return np.where((x >= 0.0) & (x < 2.0), found, np.nan)


def _noise_sum(x: Array, n: int) -> Array:
    """sum_{i<n} r^(2i), r = 1 - x."""
    y = x * (2.0 - x)  # 1 - r^2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(y == 0.0, float(n), one_minus_power(y, n) / y)


def _check(stride: int, window: int) -> None:
    if stride < 1 or window < 1:
        raise SettingError(f"stride and window must be at least 1; got {stride} and {window}. Use those of the run.")
