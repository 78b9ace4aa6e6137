"""Distances between the eigenvalues of a window, which decide how far its directions and spans can turn."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def two_sided_gaps(
    singular_values: ArrayLike, floor: ArrayLike = 0.0, *, of: Literal["directions", "profiles"] = "directions"
) -> Array:
    """Distance of every eigenvalue to its nearest neighbour, min(lambda_{j-1} - lambda_j, lambda_j - lambda_{j+1}).

    ``lambda_0`` is infinite. For directions v_j in parameter space ``lambda_{W+1} = 0``: the directions that no
    update of the window has are modes too, of eigenvalue 0. For time profiles u_j there are only W modes.

    Args:
        singular_values: (..., W) descending [parameter].
        floor: (...) or scalar resolution floor [parameter].
        of: ``directions`` (default) or ``profiles``.

    Returns:
        (..., W) [parameter^2]; NaN for a mode at or below the floor. Source: derived; the author's code uses the
        gap of ``profiles`` for directions, which is too wide for the last one.

    >>> two_sided_gaps([3.0, 2.0, 1.5])
    array([5.  , 1.75, 1.75])
    """
    sigma = np.asarray(singular_values, dtype=np.float64)
    lam = np.square(sigma)
    first = np.full_like(lam[..., :1], np.inf)
    inner = lam[..., :-1] - lam[..., 1:]
    last = lam[..., -1:] if of == "directions" else first
    gaps = np.minimum(np.concatenate([first, inner], axis=-1), np.concatenate([inner, last], axis=-1))
    return where_resolved(gaps, sigma, floor)


def cut_gaps(singular_values: ArrayLike, floor: ArrayLike = 0.0) -> Array:
    """lambda_k - lambda_{k+1} for every cut k = 1..W, with lambda_{W+1} = 0.

    Args:
        singular_values: (..., W) descending [parameter].
        floor: (...) or scalar resolution floor [parameter].

    Returns:
        (..., W), entry k - 1 for the span of the first k modes [parameter^2]; NaN where mode k is at or below the
        floor. Source: standard result.

    >>> cut_gaps([3.0, 2.0, 1.5])
    array([5.  , 1.75, 2.25])
    """
    sigma = np.asarray(singular_values, dtype=np.float64)
    lam = np.square(sigma)
    return where_resolved(np.concatenate([lam[..., :-1] - lam[..., 1:], lam[..., -1:]], axis=-1), sigma, floor)


def where_resolved(values: Array, sigma: Array, floor: ArrayLike) -> Array:
    """``values`` (..., W), NaN where sigma_j is 0 or at most the floor (...)."""
    with np.errstate(invalid="ignore"):
        resolved = (sigma > np.asarray(floor, dtype=np.float64)[..., None]) & (sigma > 0.0)
    return np.where(resolved, values, np.nan)
