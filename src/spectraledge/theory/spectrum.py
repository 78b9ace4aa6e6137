"""Singular values and time profiles of a window, from its Gram matrix alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.smoothness import legendre_overlaps, smooth_path, turning_rate

Array = NDArray[np.float64]

__all__ = [
    "UPDATE_EPS_FLOAT32",
    "UPDATE_EPS_FLOAT64",
    "GramSpectrum",
    "as_grams",
    "effective_rank",
    "fix_signs",
    "gram_spectrum",
    "legendre_overlaps",
    "mp_edge",
    "participation_ratio",
    "resolution_floor",
    "smooth_path",
    "trace",
    "turning_rate",
]

UPDATE_EPS_FLOAT32 = 2.0**-24
"""Largest relative rounding of a difference of two float32 numbers."""

UPDATE_EPS_FLOAT64 = 2.0**-53
"""Largest relative rounding of a difference of two float64 numbers."""

# The eigensolver and the summed products move an eigenvalue by at most about W * eps * tr G. Four times that
# keeps the relative error of sigma^2 at the floor below 1/4, so that of sigma below about 1/8.
_SAFETY = 4.0


@dataclass(frozen=True)
class GramSpectrum:
    """Spectrum of window Grams ``G = X X^T`` (X stacks W updates as rows).

    Attributes:
        singular_values: (..., W) sigma_j of X in descending order [parameter]; NaN for a non-finite Gram.
        time_profiles: (..., W, W) left singular vectors of X as columns: ``time_profiles[..., :, j]`` is u_j.
            The sign makes the entry of largest size positive (the earliest one, among equals).
        floor: (...) smallest singular value that can be told from rounding [parameter].
        resolved: (..., W) whether sigma_j lies above the floor.
    """

    singular_values: Array
    time_profiles: Array
    floor: Array
    resolved: NDArray[np.bool_]


def as_grams(gram: ArrayLike) -> Array:
    """Return ``gram`` as float64, or raise SettingError if it is not a stack of square matrices."""
    gram = np.asarray(gram, dtype=np.float64)
    if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2] or gram.shape[-1] < 1:
        raise SettingError(
            f"A Gram must have shape (..., W, W); got {gram.shape}. Pass the W x W inner products of the updates."
        )
    return gram


def resolution_floor(
    gram: ArrayLike, *, update_eps: float = UPDATE_EPS_FLOAT32, error_norm2: ArrayLike = 0.0
) -> Array:
    """Smallest singular value of X that its Gram can tell from rounding.

    Two errors add. The Gram is summed and diagonalised in float64, which moves sigma^2 by about
    ``W * eps * tr G``; and every update was rounded when it was formed, which moves any sigma by at most
    ``update_eps * sqrt(tr G)`` (Weyl). The floor is the larger of ``sqrt(4 W eps tr G)`` and the second. Where
    the rows carry a further error E of known size, as updates stored in bfloat16 do, any sigma moves by at most
    ``||E||_2 <= ||E||_F`` (Weyl) and the floor rises by as much.

    Args:
        gram: (..., W, W) inner products [parameter^2].
        update_eps: Relative rounding of one update: ``2**-24`` (float32, default) or ``2**-53`` (float64).
        error_norm2: (...) or scalar ``||E||_F^2``, the squared norms of the rows' errors added up [parameter^2].

    Returns:
        (...) floor [parameter], NaN where the trace is not finite. Source: derived.

    >>> float(resolution_floor(np.eye(4))) < 1.3e-7
    True
    """
    gram = as_grams(gram)
    window = gram.shape[-1]
    energy = np.trace(gram, axis1=-2, axis2=-1)
    relative = max(np.sqrt(_SAFETY * window * np.finfo(np.float64).eps), update_eps)
    error = np.sqrt(np.asarray(error_norm2, dtype=np.float64))
    return np.sqrt(np.where(np.isfinite(energy), np.maximum(energy, 0.0), np.nan)) * relative + error


def gram_spectrum(
    gram: ArrayLike,
    *,
    update_eps: float = UPDATE_EPS_FLOAT32,
    resolution: float | None = None,
    error_norm2: ArrayLike = 0.0,
) -> GramSpectrum:
    """Spectrum of X from ``gram = X X^T``.

    Args:
        gram: (..., W, W) inner products of the W updates of each window [parameter^2].
        update_eps: Relative rounding of one update, see :func:`resolution_floor`.
        resolution: Overrides the floor by ``resolution * sqrt(tr G)``; zero resolves every positive value.
        error_norm2: Further error of the rows, see :func:`resolution_floor`.

    Returns:
        The spectrum. A Gram with any non-finite entry gives NaN values, nothing resolved, and never raises;
        an all-zero Gram gives zeros, nothing resolved.

    Raises:
        SettingError: If ``gram`` is not a stack of square matrices.

    >>> gram_spectrum([[4.0, 0.0], [0.0, 9.0]]).singular_values
    array([3., 2.])
    """
    gram = as_grams(gram)
    finite = np.asarray(np.isfinite(gram).all(axis=(-2, -1)))
    eigenvalues, vectors = np.linalg.eigh(np.where(finite[..., None, None], gram, 0.0))
    sigma = np.sqrt(np.maximum(eigenvalues[..., ::-1], 0.0))
    sigma = np.where(finite[..., None], sigma, np.nan)
    u = fix_signs(vectors[..., ::-1])
    u = np.where(finite[..., None, None], u, np.nan)
    if resolution is None:
        floor = resolution_floor(gram, update_eps=update_eps, error_norm2=error_norm2)
    else:
        floor = resolution * np.sqrt(np.maximum(np.trace(gram, axis1=-2, axis2=-1), 0.0))
    floor = np.where(finite, floor, np.nan)
    with np.errstate(invalid="ignore"):
        resolved = sigma > floor[..., None]
    return GramSpectrum(sigma, u, floor, resolved)


def fix_signs(vectors: Array) -> Array:
    """Flip columns so that the largest entry of each is positive.

    Among entries of equal size (an odd polynomial has two) the earliest decides, within 1e-8, so that
    rounding does not choose the sign.
    """
    size = np.abs(vectors)
    leading = np.argmax(size >= (1.0 - 1e-8) * size.max(axis=-2, keepdims=True), axis=-2)
    sign = np.sign(np.take_along_axis(vectors, leading[..., None, :], axis=-2))
    return vectors * np.where(sign == 0.0, 1.0, sign)


def trace(singular_values: ArrayLike) -> Array:
    """tr G = sum_j sigma_j^2 over the last axis [parameter^2]."""
    return np.sum(np.square(np.asarray(singular_values, dtype=np.float64)), axis=-1)


def participation_ratio(singular_values: ArrayLike) -> Array:
    """(sum lambda)^2 / sum lambda^2: 1 for one mode, W for a flat spectrum; NaN for an all-zero window.

    >>> float(participation_ratio([2.0, 2.0, 2.0]))
    3.0
    """
    lam = np.square(np.asarray(singular_values, dtype=np.float64))
    total, squares = lam.sum(axis=-1), np.square(lam).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0.0, total**2 / squares, np.nan)


def effective_rank(singular_values: ArrayLike, share: float = 0.95) -> NDArray[np.int64]:
    """Smallest number of modes that holds ``share`` of tr G (k95 by default); 0 where there is no energy.

    Raises:
        SettingError: If ``share`` is not in (0, 1].

    >>> int(effective_rank([10.0, 1.0, 1.0]))
    1
    """
    if not 0.0 < share <= 1.0:
        raise SettingError(f"share must lie in (0, 1]; got {share}. Use 0.95 for k95.")
    lam = np.square(np.asarray(singular_values, dtype=np.float64))
    total = lam.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        cumulated = np.cumsum(lam, axis=-1) / total
        # Rounding of a cumulated sum may miss a share of exactly 1 by a few units in the last place.
        rank = 1 + np.sum(cumulated < share * (1.0 - 1e-12), axis=-1)
        return np.where(total[..., 0] > 0.0, np.minimum(rank, lam.shape[-1]), 0)


def mp_edge(singular_values: ArrayLike, n_parameters: int) -> Array:
    """The author's noise edge of a window: rms of its bottom half times ``1 + sqrt(W/P)`` [parameter].

    The noise level is read off the window it is then compared with, so it is reported, never used. Source:
    arXiv:2603.15678 (step 2000 of the published run: 64.8).
    """
    lam = np.square(np.asarray(singular_values, dtype=np.float64))
    window = lam.shape[-1]
    return np.sqrt(lam[..., window // 2 :].mean(axis=-1)) * (1.0 + np.sqrt(window / n_parameters))
