"""Mode strengths of a deep linear network: W_L ... W_1 learns the singular values of its target one by one.

Loss: half the squared error, inputs whitened, layers balanced and aligned with the target. Then every mode is
alone: all layers share the factor u of a mode of strength a = u^L, and du/dt = u^(L-1) (s - u^L) with t =
learning rate times steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def deep_linear_flow(targets: ArrayLike, initial: ArrayLike, layers: int, times: ArrayLike) -> Array:
    """Strengths under gradient flow: da/dt = L a^(2 - 2/L) (s - a).

    L = 1: a = s + (a_0 - s) e^-t. L = 2: the logistic s / (1 + (s / a_0 - 1) e^(-2 s t)), which stays low for
    about log(s / a_0) / (2 s) and then rises, larger s first. L > 2 is integrated numerically (relative error
    about 1e-9).

    Args:
        targets: (n) singular values s of the target, above 0 for L > 1.
        initial: (n) or scalar a_0, above 0 for L > 1.
        layers: L.
        times: (T) eta times steps, ascending from 0 or later.

    Returns:
        (T, n). Source: Saxe, McClelland, Ganguli 2014 (L = 2), standard result (any L).

    Raises:
        SettingError: If layers is below 1, or a target or initial strength is not positive for L > 1.

    >>> deep_linear_flow([2.0], 0.01, 2, [0.0, 1.0, 5.0]).ravel().round(4)
    array([0.01  , 0.4306, 2.    ])
    """
    s, a_0, t = *_checked(targets, initial, layers), np.asarray(times, dtype=np.float64)
    if layers == 1:
        return s + (a_0 - s) * np.exp(-t)[:, None]
    if layers == 2:
        return s / (1.0 + (s / a_0 - 1.0) * np.exp(-2.0 * s * t[:, None]))
    power = 2.0 - 2.0 / layers
    solution = solve_ivp(
        lambda _, a: layers * np.maximum(a, 0.0) ** power * (s - a),
        (0.0, max(float(t.max()), 1e-300)),
        a_0,
        method="DOP853",
        t_eval=t,
        rtol=1e-10,
        atol=1e-14 * float(s.max()),
    )
    return solution.y.T


def deep_linear_descent(
    targets: ArrayLike, initial: ArrayLike, layers: int, lr: float, steps: int, *, weight_decay: float = 0.0
) -> Array:
    """Strengths under gradient descent, exactly: u <- u - eta [u^(L-1) (u^L - s) + omega u], a = u^L.

    Args:
        targets: (n).
        initial: (n) or scalar a_0.
        layers: L.
        lr: eta.
        steps: Optimizer steps.
        weight_decay: omega of every layer.

    Returns:
        (steps + 1, n), the start first. Source: standard result.

    Raises:
        SettingError: If layers is below 1, or a target or initial strength is not positive for L > 1.
    """
    s, a_0 = _checked(targets, initial, layers)
    u = np.sign(a_0) * np.abs(a_0) ** (1.0 / layers)
    path = np.empty((steps + 1, len(s)))
    path[0] = a_0
    for step in range(1, steps + 1):
        u = u - lr * (u ** (layers - 1) * (u**layers - s) + weight_decay * u)
        path[step] = u**layers
    return path


def learning_time(targets: ArrayLike, initial: ArrayLike, share: float = 0.5) -> Array:
    """Time at which a mode of a two-layer network has reached ``share`` of its target; (n), eta times steps.

    t = log[(s / a_0 - 1) share / (1 - share)] / (2 s). Source: Saxe, McClelland, Ganguli 2014.

    Raises:
        SettingError: If share is not in (0, 1), or a strength is not positive.
    """
    if not 0.0 < share < 1.0:
        raise SettingError(f"share must lie in (0, 1); got {share}. Use 0.5 for the half-way time.")
    s, a_0 = _checked(targets, initial, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log((s / a_0 - 1.0) * share / (1.0 - share)) / (2.0 * s)


def _checked(targets: ArrayLike, initial: ArrayLike, layers: int) -> tuple[Array, Array]:
    s = np.atleast_1d(np.asarray(targets, dtype=np.float64))
    a_0 = np.broadcast_to(np.asarray(initial, dtype=np.float64), s.shape)
    if layers < 1:
        raise SettingError(f"layers must be at least 1; got {layers}. Use 2.")
    if layers > 1 and (np.any(s <= 0.0) or np.any(a_0 <= 0.0)):
        raise SettingError(
            f"targets and initial strengths must be positive for {layers} layers: 0 is a rest point; "
            f"got at least {min(s.min(), a_0.min()):g}. Use initial=0.001."
        )
    return s, a_0
