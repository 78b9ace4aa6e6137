"""Projections of any vector on the modes of a window, from its inner products with the window's updates.

No direction v_j is ever formed: ``v_j = sum_a c[a, j] delta_a`` and everything linear follows from it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from spectraledge.errors import SettingError
from spectraledge.theory.overlap import _resolved

Array = NDArray[np.float64]


def mode_coefficients(singular_values: ArrayLike, time_profiles: ArrayLike, floor: ArrayLike = 0.0) -> Array:
    """Coefficients c of the parameter directions on the updates: ``v_j = sum_a c[a, j] delta_a``.

    ``c[a, j] = U_aj / sigma_j``, because X^T U = V S.

    Args:
        singular_values: (..., W) sigma_j of the window [parameter].
        time_profiles: (..., W, W), column j is u_j; row 0 belongs to the oldest update.
        floor: (...) resolution floor [parameter].

    Returns:
        (..., W, W) [1/parameter]; column j is NaN where mode j is at or below the floor. Source: standard
        result.

    Raises:
        SettingError: If the shapes do not belong together.

    >>> mode_coefficients([2.0, 0.5], np.eye(2))
    array([[0.5, 0. ],
           [0. , 2. ]])
    """
    sigma, u = _modes(singular_values, time_profiles, floor)
    return u / sigma[..., None, :]


def mode_projections(
    products: ArrayLike, singular_values: ArrayLike, time_profiles: ArrayLike, floor: ArrayLike = 0.0
) -> Array:
    """<v_j, x> = sigma_j^-1 sum_a U_aj <delta_a, x> of a vector x on every mode of a window.

    The error of <v_j, x> is that of the products divided by sigma_j, so weak modes are the least certain;
    the floor takes out those that are rounding only.

    Args:
        products: (..., W) <delta_a, x>, oldest update first [parameter * unit of x].
        singular_values: (..., W) sigma_j [parameter].
        time_profiles: (..., W, W), column j is u_j.
        floor: (...) resolution floor [parameter].

    Returns:
        (..., W) [unit of x], NaN where a mode is unresolved or a product is not finite. Source: standard
        result.

    Raises:
        SettingError: If the shapes do not belong together.

    >>> mode_projections([6.0, 1.0], [3.0, 1.0], np.eye(2))  # x = 2 v_1 + v_2
    array([2., 1.])
    """
    sigma, u = _modes(singular_values, time_profiles, floor)
    return time_projections(products, u) / sigma


def time_projections(products: ArrayLike, time_profiles: ArrayLike) -> Array:
    """U^T p: the products of a window with a vector, in the basis of the time profiles; no division by sigma.

    Args:
        products: (..., W), oldest update first.
        time_profiles: (..., W, W).

    Returns:
        (..., W) = sigma_j <v_j, x>. Source: standard result.

    Raises:
        SettingError: If the shapes do not belong together.
    """
    p, u = np.asarray(products, dtype=np.float64), np.asarray(time_profiles, dtype=np.float64)
    if p.ndim < 1 or u.ndim < 2 or p.shape[-1] != u.shape[-2]:
        raise SettingError(
            f"products must end in an axis of the window's updates to match profiles of shape {u.shape}; got "
            f"shape {p.shape}. Pass one inner product for each update, oldest first."
        )
    return (p[..., None, :] @ u)[..., 0, :]


def span_coverage(projections: ArrayLike, norm2: ArrayLike, k: int) -> Array:
    """||V_k^T x||^2 / ||x||^2: share of a vector's energy inside the span of the k strongest modes.

    Args:
        projections: (..., W) <v_j, x> from :func:`mode_projections`.
        norm2: (...) ||x||^2 [square of the unit of x].
        k: Number of modes.

    Returns:
        (...) in [0, 1] up to rounding; NaN where one of the k modes is unresolved or x is zero. Compare with
        :func:`chance_coverage`: for P = 1e6 a coverage of 1 % is a thousand times chance at k = 10. Source:
        standard result.

    Raises:
        SettingError: If k is not in 1..W.

    >>> float(span_coverage([3.0, 4.0, 0.0], 50.0, 2))
    0.5
    """
    x = np.asarray(projections, dtype=np.float64)
    if not 1 <= k <= x.shape[-1]:
        raise SettingError(f"k must lie in 1..{x.shape[-1]}, the number of modes of a window; got {k}. Use k*.")
    energy = np.asarray(norm2, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(energy > 0.0, np.square(x[..., :k]).sum(axis=-1) / energy, np.nan)


def chance_coverage(k: int, p_eff: ArrayLike) -> Array:
    """Coverage k / P_eff expected of a k-dimensional span that has nothing to do with the vector.

    Args:
        k: Number of modes.
        p_eff: (...) effective dimension, see :func:`~spectraledge.theory.effective_dimension`.

    Returns:
        (...) at most 1, NaN where P_eff is NaN. Source: standard result (isotropic), P_eff in the place of P
        for anisotropic noise derived.

    Raises:
        SettingError: If k is below 1.

    >>> float(chance_coverage(2, 100.0))
    0.02
    """
    if k < 1:
        raise SettingError(f"k must be at least 1; got {k}. Use k*.")
    dimension = np.asarray(p_eff, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.where(np.isfinite(dimension), np.minimum(k / np.maximum(dimension, k), 1.0), np.nan)


def coverage_p_value(coverage: ArrayLike, k: int, p_eff: ArrayLike) -> Array:
    """Chance that an unrelated span of k dimensions covers at least as much.

    The share of an isotropic vector in a fixed span follows Beta(k/2, (P_eff - k)/2).

    Args:
        coverage: (...) from :func:`span_coverage`.
        k: Number of modes.
        p_eff: (...) effective dimension, above k.

    Returns:
        (...) in [0, 1]; NaN where an input is NaN or P_eff <= k. Source: standard result.

    Raises:
        SettingError: If k is below 1.

    >>> float(coverage_p_value(1.0, 2, 100.0)), float(coverage_p_value(0.0, 2, 100.0))
    (0.0, 1.0)
    """
    if k < 1:
        raise SettingError(f"k must be at least 1; got {k}. Use k*.")
    dimension = np.asarray(p_eff, dtype=np.float64)
    share = np.asarray(coverage, dtype=np.float64)
    usable = np.isfinite(dimension) & (dimension > k) & np.isfinite(share)
    rest = np.where(usable, dimension - k, 1.0)
    return np.where(usable, beta.sf(np.where(usable, share, 0.0), 0.5 * k, 0.5 * rest), np.nan)


def _modes(singular_values: ArrayLike, time_profiles: ArrayLike, floor: ArrayLike) -> tuple[Array, Array]:
    """sigma with NaN at or below the floor, and U, after a check that they belong together."""
    sigma = _resolved(singular_values, floor)
    u = np.asarray(time_profiles, dtype=np.float64)
    if u.ndim < 2 or u.shape[-1] != sigma.shape[-1] or u.shape[-2] != u.shape[-1]:
        raise SettingError(
            f"time_profiles must be (..., {sigma.shape[-1]}, {sigma.shape[-1]}) to match the singular values; "
            f"got {u.shape}. Take both from gram_spectrum."
        )
    return sigma, u
