"""Optimizers with momentum on a quadratic loss as linear maps, and the update Gram that such a map produces.

State x = (theta - theta*, m - m*): parameters and first moment, counted from their rest point. One step:
x <- A x + noise. Everything here holds for any such A; `momentum_map` builds those of torch's SGD with
momentum and of AdamW with a frozen second moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.horizon import check_kind
from spectraledge.theory.linear_descent import rest_point

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearMap:
    """One optimizer step as x <- step x + noise, the first half of x being parameters.

    Attributes:
        step: (..., k, k) A.
        noise: (..., k, k) covariance of the noise of one step.
        initial: (..., k) state before the first step, the first moment being 0.
        rest: (..., k) what the state is counted from: theta* and m*.
    """

    step: Array
    noise: Array
    initial: Array
    rest: Array


def momentum_map(
    kind: str,
    theta_0: ArrayLike,
    h: ArrayLike,
    lr: float,
    momentum: float,
    *,
    noise_variance: ArrayLike = 0.0,
    optimum: ArrayLike = 0.0,
    weight_decay: float = 0.0,
) -> LinearMap:
    """Each mode's own 2 x 2 map.

    ``gd``, ``sgd``: m <- beta m + g + omega theta, theta <- theta - eta m (torch, no dampening; decay
    coupled). Adam's kinds: m <- beta m + (1 - beta) g, theta <- (1 - eta omega) theta - eta m (decay
    decoupled; no bias correction; in the modes of `preconditioned_modes` where the frozen second moment is
    not 1). At beta = 0 the two are the same.

    Args:
        kind: "gd", "sgd", "adam", "adamw" or "frozen_adamw".
        theta_0: (..., n).
        h: (..., n).
        lr: eta.
        momentum: beta, or beta_1.
        noise_variance: (..., n) of the gradient.
        optimum: (..., n) c.
        weight_decay: omega.

    Returns:
        A map with leading axes (..., n) and k = 2. Source: derived.

    Raises:
        SettingError: For an unknown kind.
    """
    check_kind(kind)
    h, theta_0, variance, c = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (h, theta_0, noise_variance, optimum))
    )
    summed = kind in ("gd", "sgd")
    gain = 1.0 if summed else 1.0 - momentum
    pull = h + weight_decay if summed else h
    kept = 1.0 if summed else 1.0 - lr * weight_decay
    step, noise = np.empty((*h.shape, 2, 2)), np.empty((*h.shape, 2, 2))
    step[..., 0, 0], step[..., 0, 1] = kept - lr * gain * pull, -lr * momentum
    step[..., 1, 0], step[..., 1, 1] = gain * pull, momentum
    kick = np.array([-lr * gain, gain])
    noise[:] = variance[..., None, None] * kick[:, None] * kick
    rest = rest_point(h, c, weight_decay)
    # At Adam's rest point the average gradient balances the decay that acts on theta directly.
    m_rest = np.zeros_like(rest) if summed else -weight_decay * rest
    rest = np.stack([rest, m_rest], axis=-1)
    initial = np.stack([theta_0, np.zeros_like(theta_0)], axis=-1) - rest
    return LinearMap(step, noise, initial, rest)


def preconditioned_modes(hessian: ArrayLike, preconditioner: ArrayLike) -> tuple[Array, Array]:
    """Curvatures h~ and directions B of P^-1 H, P diagonal: theta = B y decouples the optimizer's modes.

    h~ and Z are the eigenpairs of P^-1/2 H P^-1/2 and B = P^-1/2 Z, so that y = Z^T P^1/2 theta = B^-1 theta.
    Decoupled decay acts on y as on theta. The columns of B are not orthogonal: inner products of updates need
    B^T B.

    Args:
        hessian: (n, n) symmetric.
        preconditioner: (n) positive, for Adam sqrt(v) + eps.

    Returns:
        h~ (n) descending and B (n, n). Source: standard result.

    Raises:
        SettingError: If a preconditioner entry is not positive.
    """
    p = np.asarray(preconditioner, dtype=np.float64)
    if not np.all(p > 0.0):
        raise SettingError(f"preconditioner must be positive; got {np.min(p):g}. Add eps as the optimizer does.")
    root = 1.0 / np.sqrt(p)
    values, vectors = np.linalg.eigh(root[:, None] * np.asarray(hessian, dtype=np.float64) * root)
    return values[::-1], root[:, None] * vectors[:, ::-1]


def linear_path(linear: LinearMap, steps: int) -> Array:
    """Parameters after 0, 1, ..., ``steps`` steps without noise; (..., steps + 1, k / 2) [parameter]."""
    k = linear.step.shape[-1]
    state, path = linear.initial, []
    for _ in range(steps + 1):
        path.append((state + linear.rest)[..., : k // 2])
        state = np.einsum("...ij,...j->...i", linear.step, state)
    return np.stack(path, axis=-2)


def joint_map(linear: LinearMap, covariance: ArrayLike) -> LinearMap:
    """All modes in one map, with gradient noise that may be correlated between them.

    Args:
        linear: From `momentum_map` with ``noise_variance=1``, leading axes (n).
        covariance: (n, n) of the gradient noise of one step, in the modes' coordinates: B^T C B for
            noise of covariance C in parameters, B of `preconditioned_modes`.

    Returns:
        A map of size 2 n: first all parameters, then all first moments. Source: derived.
    """
    n = len(linear.step)
    step, noise = np.zeros((2, n, 2, n)), np.empty((2, n, 2, n))
    modes = np.arange(n)
    step[:, modes, :, modes] = linear.step
    noise[:] = linear.noise[0][:, None, :, None] * np.asarray(covariance, dtype=np.float64)[:, None, :]
    size = 2 * n
    return LinearMap(
        step.reshape(size, size), noise.reshape(size, size), linear.initial.T.reshape(-1), linear.rest.T.reshape(-1)
    )


def rest_covariance(linear: LinearMap) -> Array:
    """Stationary covariance S = A S A^T + N of the state; (..., k, k).

    NaN for a map whose largest eigenvalue is not below 1 in size, unless it has no noise. Source: standard
    result (discrete Lyapunov equation), summed by doubling.
    """
    a, n = linear.step, linear.noise
    usable = np.asarray(np.isfinite(a).all(axis=(-2, -1)) & np.isfinite(n).all(axis=(-2, -1)))
    safe = np.where(usable[..., None, None], a, 0.0)
    stable = usable & (np.abs(np.linalg.eigvals(safe)).max(axis=-1) < 1.0)
    power = np.where(stable[..., None, None], a, 0.0)
    total = np.where(usable[..., None, None], n, np.nan)
    # 2^60 steps: enough for the largest double below 1.
    for _ in range(60):
        total = total + _carry(power, total)
        power = power @ power
    still = usable & (n == 0.0).all(axis=(-2, -1))
    return np.where((stable | still)[..., None, None], total, np.nan)


def linear_gram(
    linear: LinearMap, stride: int, window: int, *, start: int | None = 0, metric: ArrayLike | None = None
) -> Array:
    """Expected Gram of W updates of s steps each [parameter^2].

    With B = A^s, Q the noise collected in s steps and M_a = E x x^T at the start of update a:
    E delta_b delta_a^T = (B - 1) B^(b-a-1) [B M_a (B - 1)^T + Q] for b > a and (B - 1) M_a (B - 1)^T + Q for
    b = a; no difference of large numbers is taken.

    Args:
        linear: From `momentum_map` (2 x 2 per mode: one Gram per mode), or of any size.
        stride: s.
        window: W.
        start: Optimizer steps before the first update, or None at rest, all memory of the start gone.
        metric: (k/2, k/2) M of the inner product delta^T M delta; the identity where None.

    Returns:
        (..., W, W), oldest update first; NaN where there is no stationary state. Source: derived.

    Raises:
        SettingError: If a stride or window is below 1 or the start negative.
    """
    if stride < 1 or window < 1 or (start is not None and start < 0):
        raise SettingError(
            f"stride and window must be at least 1 and start at least 0; got {stride}, {window} and {start}. "
            "Use those of the run."
        )
    half = linear.step.shape[-1] // 2
    inner = np.eye(half) if metric is None else np.asarray(metric, dtype=np.float64)
    power, collected = _compose(linear.step, linear.noise, stride)
    if start is None:
        moment = rest_covariance(linear)
    else:
        moment = linear.initial[..., :, None] * linear.initial[..., None, :]
        before, noise_before = _compose(linear.step, linear.noise, start)
        moment = _carry(before, moment) + noise_before
    moved = power - np.eye(2 * half)
    gram = np.empty((*linear.step.shape[:-2], window, window))
    for a in range(window):
        gram[..., a, a] = _inner(inner, _carry(moved, moment) + collected)
        mixed = power @ moment @ np.swapaxes(moved, -1, -2) + collected
        for b in range(a + 1, window):
            gram[..., a, b] = gram[..., b, a] = _inner(inner, moved @ mixed)
            mixed = power @ mixed
        moment = _carry(power, moment) + collected
    return gram


def _compose(step: Array, noise: Array, n: int) -> tuple[Array, Array]:
    """(A^n, sum_{i<n} A^i N A^iT), by doubling."""
    power, total = np.broadcast_to(np.eye(step.shape[-1]), step.shape), np.zeros_like(noise)
    for bit in bin(n)[2:]:
        total = total + _carry(power, total)
        power = power @ power
        if bit == "1":
            total = noise + _carry(step, total)
            power = step @ power
    return power, total


def _carry(map_: Array, moment: Array) -> Array:
    return map_ @ moment @ np.swapaxes(map_, -1, -2)


def _inner(metric: Array, product: Array) -> Array:
    half = len(metric)
    return np.einsum("ij,...ij->...", metric, product[..., :half, :half])
