"""The tangent kernel's spectrum: its outliers, its gap, and how far its leading eigenspace turned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.spectrum import as_grams, fix_signs

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class KernelSpectrum:
    """Eigenpairs of a kernel, largest first.

    Attributes:
        eigenvalues: (..., m) kappa_j, descending, m <= N [1 / (lr step) for the loss-weighted kernel].
        eigenvectors: (..., N, m) q_j as columns, over the probe outputs; the largest entry is positive.
        floor: (...) smallest eigenvalue that can be told from rounding.
        n_outputs: N.
    """

    eigenvalues: Array
    eigenvectors: Array
    floor: Array
    n_outputs: int

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """(..., m) whether kappa_j lies above the floor."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.eigenvalues > self.floor[..., None])

    def coefficients(self, residual: ArrayLike) -> Array:
        """c_j = q_j^T z for a residual z (..., N); (..., m)."""
        z = np.asarray(residual, dtype=np.float64)
        return np.asarray((np.swapaxes(self.eigenvectors, -1, -2) @ z[..., None])[..., 0])


def kernel_spectrum(
    kernel: ArrayLike | None = None,
    *,
    eigenvalues: ArrayLike | None = None,
    eigenvectors: ArrayLike | None = None,
    n_outputs: int | None = None,
    resolution: float | None = None,
) -> KernelSpectrum:
    """Diagonalise kernels, or wrap eigenpairs found elsewhere.

    Args:
        kernel: (..., N, N) symmetric.
        eigenvalues: (..., m) descending, in the place of ``kernel``.
        eigenvectors: (..., N, m) belonging to them.
        n_outputs: N, where ``eigenvalues`` are given.
        resolution: Floor relative to the largest eigenvalue; by default 4 N eps, what a float64 eigensolver
            loses. A kernel from products in float32 needs about 1e-7: its
            null eigenvalues come out at 2e-8.

    Returns:
        The spectrum; NaN, nothing resolved, for a kernel with any non-finite entry. Source: standard result.

    Raises:
        SettingError: If neither a square kernel nor eigenpairs are given.

    >>> kernel_spectrum([[2.0, 0.0], [0.0, 3.0]]).eigenvalues
    array([3., 2.])
    """
    if kernel is not None:
        matrix = as_grams(kernel)
        finite = np.asarray(np.isfinite(matrix).all(axis=(-2, -1)))
        values, vectors = np.linalg.eigh(np.where(finite[..., None, None], matrix, 0.0))
        kappa = np.where(finite[..., None], values[..., ::-1], np.nan)
        q = np.where(finite[..., None, None], fix_signs(vectors[..., ::-1]), np.nan)
        n = matrix.shape[-1]
    elif eigenvalues is not None and eigenvectors is not None and n_outputs is not None:
        kappa, q, n = np.asarray(eigenvalues, np.float64), np.asarray(eigenvectors, np.float64), n_outputs
        q = fix_signs(q)
    else:
        raise SettingError("kernel_spectrum needs a kernel, or eigenvalues, eigenvectors and n_outputs together.")
    relative = 4.0 * n * _EPS if resolution is None else max(resolution, 4.0 * n * _EPS)
    return KernelSpectrum(kappa, q, relative * np.maximum(kappa[..., 0], 0.0), n)


@dataclass(frozen=True)
class KernelGap:
    """The gap of a kernel's spectrum.

    Attributes:
        position: (...) k_K, 1-indexed: the number of outlying eigenvalues; 0 where nothing is resolved.
        ratio: (...) kappa_k / kappa_{k+1}.
        width: (...) g_K = kappa_k - kappa_{k+1} [unit of kappa].
    """

    position: NDArray[np.int64]
    ratio: Array
    width: Array


def kernel_gap(
    eigenvalues: ArrayLike,
    *,
    floor: ArrayLike = 0.0,
    position: ArrayLike | None = None,
    exponent: ArrayLike | None = None,
) -> KernelGap:
    """Where a kernel's outlying eigenvalues end: k_K = argmax kappa_j / kappa_{j+1}, and how wide the gap is.

    Only the first half of the resolved eigenvalues is searched. Counting resolved ones, not N, leaves the answer
    as it was when every probe input is repeated, which only adds zeros. A smooth power law kappa_j ~ j^-a has its
    largest ratio at j = 1 without any outlier: with ``exponent`` each ratio is divided by that law's own,
    ((j + 1) / j)^a, before the largest is taken.

    Args:
        eigenvalues: (..., m) descending.
        floor: (...) smallest resolved eigenvalue.
        position: (...) imposes the position, for instance that of an earlier snapshot.
        exponent: (...) a, from :func:`~spectraledge.theory.power_law.power_law`; None compares plain ratios.

    Returns:
        The gap. Source: arXiv:2603.28964v1-v3 ("NTK outliers"; its rule is not recoverable), guards derived.

    Raises:
        SettingError: If m < 2 or a position is out of range.

    >>> gap = kernel_gap([9.0, 8.0, 1.0, 0.9, 0.8, 0.7])
    >>> int(gap.position), float(gap.ratio), float(gap.width)
    (2, 8.0, 7.0)
    """
    kappa = np.asarray(eigenvalues, dtype=np.float64)
    if kappa.ndim < 1 or kappa.shape[-1] < 2:
        raise SettingError(f"A gap needs at least 2 eigenvalues; got shape {kappa.shape}. Use more probe outputs.")
    floor = np.broadcast_to(np.asarray(floor, dtype=np.float64), kappa.shape[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        resolved = (kappa > floor[..., None]) & (kappa > 0.0)
        score = np.where(resolved[..., 1:], kappa[..., :-1] / kappa[..., 1:], np.nan)
    rank = np.arange(1, kappa.shape[-1])
    if exponent is not None:
        score = score / ((rank + 1) / rank) ** np.asarray(exponent, dtype=np.float64)[..., None]
    admitted = ~np.isnan(score) & (rank <= np.maximum(resolved.sum(axis=-1) // 2, 1)[..., None])
    if position is None:
        best = np.argmax(np.where(admitted, score, -np.inf), axis=-1) + 1
        k = np.where(admitted.any(axis=-1), best, 0)
    else:
        k = np.broadcast_to(np.asarray(position, dtype=np.int64), kappa.shape[:-1])
        if np.any((k < 0) | (k >= kappa.shape[-1])):
            raise SettingError(f"position must lie in 0..{kappa.shape[-1] - 1}; got {k.tolist()}. It is 1-indexed.")
    index = np.maximum(k, 1)[..., None]
    upper = np.take_along_axis(kappa, index - 1, axis=-1)[..., 0]
    lower = np.take_along_axis(kappa, index, axis=-1)[..., 0]
    known = (k > 0) & np.isfinite(upper)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(known, upper / lower, np.nan)
    return KernelGap(np.asarray(k), ratio, np.where(known, upper - lower, np.nan))


@dataclass(frozen=True)
class KernelRotation:
    """How far a kernel's leading eigenspace turned between two snapshots.

    Attributes:
        angle: (...) largest principal angle between the two spans of k eigenvectors [rad].
        sin_theta: (...) ||sin Theta||_F over all k angles.
        bound: (...) sqrt(2) ||K' - K||_F / (kappa_k - kappa_{k+1}), which sin_theta never exceeds; 1 snapshot apart
            or many.
        rate: (...) angle per optimizer step [rad / step].
    """

    angle: Array
    sin_theta: Array
    bound: Array
    rate: Array


def kernel_rotation(before: ArrayLike, after: ArrayLike, k: int, n_steps: float = 1.0) -> KernelRotation:
    """Rotation of the span of a kernel's k leading eigenvectors, with the Davis-Kahan bound on it.

    Args:
        before: (..., N, N) kernel.
        after: (..., N, N) kernel on the same probe, ``n_steps`` optimizer steps later.
        k: Dimension of the span, 1..N-1; the gap of ``before`` at k bounds the rotation.
        n_steps: Optimizer steps between the two.

    Returns:
        The rotation; NaN where a kernel is not finite. Source: standard result (Davis-Kahan in the form of
        theory.perturbation: constant sqrt(2) for the Frobenius norm).

    Raises:
        SettingError: If shapes differ or k is out of range.
    """
    first, second = as_grams(before), as_grams(after)
    if first.shape[-1] != second.shape[-1] or not 1 <= k < first.shape[-1] or not n_steps > 0:
        raise SettingError(
            f"kernels must have the same N, with k in 1..N-1 and n_steps positive; got {first.shape[-1]} and "
            f"{second.shape[-1]}, k={k}, n_steps={n_steps}. Evaluate both on one probe."
        )
    old, new = kernel_spectrum(first), kernel_spectrum(second)
    cross = np.swapaxes(old.eigenvectors[..., :, k:], -1, -2) @ new.eigenvectors[..., :, :k]
    finite = np.asarray(np.isfinite(cross).all(axis=(-2, -1)))
    # Sines from the complement, not from cosines: acos loses half the digits of a small angle.
    safe = np.asarray(np.where(finite[..., None, None], cross, 0.0), dtype=np.float64)
    sines = np.linalg.svd(safe, compute_uv=False)
    angle = np.where(finite, np.arcsin(np.minimum(sines[..., 0], 1.0)), np.nan)
    width = old.eigenvalues[..., k - 1] - old.eigenvalues[..., k]
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.sqrt(2.0) * np.linalg.norm(second - first, axis=(-2, -1)) / width
    return KernelRotation(
        angle=angle,
        sin_theta=np.where(finite, np.sqrt(np.square(sines).sum(axis=-1)), np.nan),
        bound=bound,
        rate=angle / n_steps,
    )
