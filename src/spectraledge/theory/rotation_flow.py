"""What moves the gradient between modes: rotation of the directions, and the injection that is left over."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.signal_flow import check_choice

Array = NDArray[np.float64]


def rotation_rates(overlaps: ArrayLike, *, steps: ArrayLike, method: Literal["log", "difference"] = "log") -> Array:
    """Omega_jk = <d v_j / dt, v_k> from the overlaps of two windows.

    With ``O = V^T V'``: ``difference`` is ``(O^T - O) / (2 steps)``, right for small turns; ``log`` is the constant
    rate that turns V into the nearest rotation of it in the given time, the antisymmetric logarithm of O's
    orthogonal (polar) factor. Columns of V' are flipped first so that no mode turns by more than 90 degrees.

    Args:
        overlaps: (..., k, k) signed cosines <v_j, v'_k>, from :func:`mode_overlaps`.
        steps: (...) optimizer steps between the windows.
        method: ``log`` or ``difference``.

    Returns:
        (..., k, k) antisymmetric [1 / optimizer step]; NaN where an overlap is NaN or, for ``log``, the
        rotation is not below 90 degrees in every plane, so that its rate is not determined. Source: derived.

    Raises:
        SettingError: For an unknown method or overlaps that are not square.

    >>> c, s = np.cos(0.3), np.sin(0.3)
    >>> rotation_rates([[c, -s], [s, c]], steps=3.0).round(12) + 0.0
    array([[ 0. ,  0.1],
           [-0.1,  0. ]])
    """
    check_choice("method", method, ("log", "difference"))
    o = np.asarray(overlaps, dtype=np.float64)
    if o.ndim < 2 or o.shape[-1] != o.shape[-2]:
        raise SettingError(
            f"overlaps must have shape (..., k, k); got {o.shape}. Compare as many modes as there are."
        )
    time = np.asarray(steps, dtype=np.float64)[..., None, None]
    sign = np.where(np.diagonal(o, axis1=-2, axis2=-1) < 0.0, -1.0, 1.0)
    o = o * sign[..., None, :]
    finite = np.asarray(np.isfinite(o).all(axis=(-2, -1)))[..., None, None]
    safe = np.where(finite, o, np.eye(o.shape[-1]))
    if method == "difference":
        return np.where(finite, (np.swapaxes(safe, -1, -2) - safe) / (2.0 * time), np.nan)
    left, _, right = np.linalg.svd(safe)
    q = left @ right
    transposed = np.swapaxes(q, -1, -2)
    # The antisymmetric part has eigenvalues i sin(angle); below 90 degrees the angle follows from its sine.
    # i times it is Hermitian, so that equal angles do no harm.
    sine, vectors = np.linalg.eigh(0.5j * (q - transposed))
    angle = np.arcsin(np.clip(sine, -1.0, 1.0))
    logarithm = np.real(-1j * (vectors * angle[..., None, :]) @ np.conj(np.swapaxes(vectors, -1, -2)))
    least_cosine = np.linalg.eigvalsh(0.5 * (q + transposed))[..., 0]
    known = finite & (least_cosine > 1e-8)[..., None, None]
    return np.where(known, -0.5 * (logarithm - np.swapaxes(logarithm, -1, -2)) / time, np.nan)


def conservative_coupling(projections: ArrayLike, rotation: ArrayLike) -> Array:
    """S_j = 2 G_j sum_k Omega_jk G_k, the exchange between modes; sum_j S_j = 0.

    Args:
        projections: (..., k) G_j.
        rotation: (..., k, k) antisymmetric Omega [1 / optimizer step], from :func:`rotation_rates`.

    Returns:
        (..., k) [G^2 per optimizer step]. Source: derived; the paper names the term "conservative coupling".

    Raises:
        SettingError: If the rotation is not antisymmetric.

    >>> conservative_coupling([1.0, 2.0], [[0.0, 0.5], [-0.5, 0.0]])
    array([ 2., -2.])
    """
    g = np.asarray(projections, dtype=np.float64)
    return 2.0 * g * _rotated(g, rotation)


def measured_injection(
    projections: ArrayLike,
    next_projections: ArrayLike,
    curvature: ArrayLike,
    *,
    learning_rate: ArrayLike,
    steps: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    rotation: ArrayLike | None = None,
) -> Array:
    """N_j, what remains of the change of G_j: ``(G' - G) / steps + eta (h + omega) G - Omega G``.

    A residual: with N of the same interval the flow is an identity. Predict with N of the interval before.

    Args:
        projections: (..., k) G_j at the start, at t.
        next_projections: (..., k) G_j at the end, along the same modes (signs matched).
        curvature: (..., k) h_j [1 / (learning rate * step)].
        learning_rate: (...) eta.
        steps: (...) optimizer steps between the two.
        weight_decay: (...) omega.
        rotation: (..., k, k) Omega; None for fixed directions.

    Returns:
        (..., k) [G per optimizer step]. Source: derived.

    >>> measured_injection([1.0], [0.9], [0.5], learning_rate=0.1, steps=1).round(12)  # 0.05 lost, not by curvature
    array([-0.05])
    """
    g, after, h = (np.asarray(x, dtype=np.float64) for x in (projections, next_projections, curvature))
    eta, n, omega = (np.asarray(x, dtype=np.float64)[..., None] for x in (learning_rate, steps, weight_decay))
    rest = (after - g) / n + eta * (h + omega) * g
    return rest if rotation is None else rest - _rotated(g, rotation)


def _rotated(g: Array, rotation: ArrayLike) -> Array:
    omega = np.asarray(rotation, dtype=np.float64)
    excess = np.abs(omega + np.swapaxes(omega, -1, -2))
    if np.any(excess > 1e-9 * (1.0 + np.abs(omega))):
        raise SettingError(
            f"rotation must be antisymmetric; got a symmetric part of {float(np.nanmax(excess)) / 2:.2g}. "
            "Use rotation_rates, which takes the antisymmetric part."
        )
    return np.einsum("...jk,...k->...j", omega, g)
