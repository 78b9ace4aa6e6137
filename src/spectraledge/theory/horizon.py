"""How far a step reaches: effective learning rate, limit of stability, and modes that relax within a window."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]

OptimizerKind = Literal["gd", "sgd", "adam", "adamw", "frozen_adamw"]
Mode = Literal["strict", "author"]

KINDS = ("gd", "sgd", "adam", "adamw", "frozen_adamw")
THRESHOLDS = (0.5, 1.0, 2.0)


def effective_lr(kind: str, lr: ArrayLike, momentum: ArrayLike = 0.0) -> Array:
    """Learning rate at which slow modes relax: eta_eff [parameter^2 / loss, or 1 for Adam].

    ``gd``, ``sgd`` (torch: the buffer sums gradients): eta / (1 - beta). Adam's kinds: eta, because their
    first moment is an average. For Adam it goes with the eigenvalues of P^-1/2 H P^-1/2.

    Args:
        kind: "gd", "sgd", "adam", "adamw" or "frozen_adamw".
        lr: (...) eta.
        momentum: (...) beta of SGD, beta_1 of Adam.

    Returns:
        (...). Source: standard result.

    Raises:
        SettingError: For an unknown kind or a momentum outside [0, 1).

    >>> effective_lr("sgd", 0.1, 0.9).round(12), effective_lr("adamw", 0.1, 0.9)
    (np.float64(1.0), np.float64(0.1))
    """
    lr, beta = _checked(kind, lr, momentum)
    return lr / (1.0 - beta) if _sums(kind) else lr * np.ones_like(beta)


def stability_limit(kind: str, lr: ArrayLike, momentum: ArrayLike = 0.0, weight_decay: ArrayLike = 0.0) -> Array:
    """Largest curvature at which the optimizer does not diverge on a quadratic [loss / parameter^2].

    ``gd``, ``sgd``: 2 (1 + beta) / eta - omega, the decay being coupled. Adam's kinds, for eigenvalues of
    P^-1/2 H P^-1/2: (1 + beta_1)(2 - eta omega) / (eta (1 - beta_1)), the decay being decoupled; 38 / eta at
    beta_1 = 0.9 and no decay. Without noise and decay, successive steps along a mode are negatively
    correlated beyond half the limit; with gradient noise at rest, at any curvature (-eta h / 2 for beta = 0).

    Args:
        kind: "gd", "sgd", "adam", "adamw" or "frozen_adamw".
        lr: (...) eta.
        momentum: (...) beta of SGD, beta_1 of Adam.
        weight_decay: (...) omega.

    Returns:
        (...). Source: standard result; with decay, derived.

    Raises:
        SettingError: For an unknown kind or a momentum outside [0, 1).

    >>> [round(float(stability_limit(kind, 1.0, beta)), 9) for kind, beta in (("gd", 0), ("sgd", 0.9), ("adam", 0.9))]
    [2.0, 3.8, 38.0]
    """
    lr, beta = _checked(kind, lr, momentum)
    omega = np.asarray(weight_decay, dtype=np.float64)
    if _sums(kind):
        return 2.0 * (1.0 + beta) / lr - omega
    return (1.0 + beta) * (2.0 - lr * omega) / (lr * (1.0 - beta))


def active_modes(
    curvatures: ArrayLike,
    lr_eff: ArrayLike,
    stride: int,
    window: int,
    *,
    thresholds: ArrayLike = THRESHOLDS,
    mode: str = "strict",
) -> Array:
    """Number of modes that relax within one window: K_s = #{j: eta_eff h_j s W >= threshold}.

    ``strict`` counts optimizer steps, of which a window of W updates holds s W. ``author`` counts h_j >=
    threshold / (eta W) as printed, which leaves the stride out and so sees s times fewer modes. With weight
    decay pass h + omega. That k* <= 1 + K_s is no theorem: see `profile_bound` for what holds.

    Args:
        curvatures: (..., n) h_j; for Adam, eigenvalues of P^-1/2 H P^-1/2. Negative ones are not counted.
        lr_eff: (...) of `effective_lr`.
        stride: s, optimizer steps per update.
        window: W.
        thresholds: (m).
        mode: "strict" or "author".

    Returns:
        (..., m) counts; NaN where an eigenvalue is NaN. Source: arXiv:2603.28964 (author), derived (strict).

    Raises:
        SettingError: For another mode, or a stride or window below 1.

    Five eigenvalues at lr 1e-3, a window of ten updates of 200 steps:

    >>> active_modes([100, 10, 1, 0.1, 0.01], 1e-3, 200, 10)
    array([3., 3., 3.])
    >>> active_modes([100, 10, 1, 0.1, 0.01], 1e-3, 200, 10, mode="author")
    array([1., 1., 0.])
    """
    if mode not in ("strict", "author"):
        raise SettingError(f"mode must be strict or author; got {mode}. Use strict.")
    if stride < 1 or window < 1:
        raise SettingError(f"stride and window must be at least 1; got {stride} and {window}. Use those of the run.")
    h = np.asarray(curvatures, dtype=np.float64)
    lr = np.asarray(lr_eff, dtype=np.float64)[..., None]
    steps = window * stride if mode == "strict" else window
    # In this order 1e-3 * 10 * 100 is exactly 1, which counts.
    reach = np.asarray(lr * steps * h)[..., None]
    counts = (reach >= np.asarray(thresholds, dtype=np.float64)).sum(axis=-2).astype(np.float64)
    return np.where(np.isnan(reach).any(axis=-2), np.nan, counts)


def _sums(kind: str) -> bool:
    return kind in ("gd", "sgd")


def _checked(kind: str, lr: ArrayLike, momentum: ArrayLike) -> tuple[Array, Array]:
    check_kind(kind)
    beta = np.asarray(momentum, dtype=np.float64)
    if np.any((beta < 0.0) | (beta >= 1.0)):
        raise SettingError(f"momentum must lie in [0, 1); got {beta.tolist()}. Pass 0 for none.")
    return np.asarray(lr, dtype=np.float64), beta


def check_kind(kind: str) -> None:
    """Raise on an optimizer that has no linear map here.

    Raises:
        SettingError: If ``kind`` is not one of `KINDS`.
    """
    if kind not in KINDS:
        raise SettingError(f"kind must be one of {', '.join(KINDS)}; got {kind}. Use sgd for momentum SGD.")
