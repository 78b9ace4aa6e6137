"""Ratio of consecutive level spacings, which tells repelling from independent levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]

GOE_MEAN = 0.5307
"""Mean spacing ratio of large real symmetric Gaussian matrices."""

POISSON_MEAN = 2.0 * np.log(2.0) - 1.0
"""Mean spacing ratio of independent levels, 0.3863."""


def spacing_ratio(eigenvalues: ArrayLike) -> Array:
    """min(s_i, s_{i+1}) / max(s_i, s_{i+1}) of consecutive spacings s_i, no unfolding needed.

    The two reference means are asymptotic. A window of W = 10 has eight ratios, so compare with surrogates of
    the same W instead.

    Args:
        eigenvalues: (..., n) in any order, n >= 3.

    Returns:
        (..., n - 2) in [0, 1]; NaN where both spacings are 0. Source: standard result (Atas et al. 2013).

    Raises:
        SettingError: If n < 3.

    >>> spacing_ratio([0.0, 1.0, 3.0, 4.0])
    array([0.5, 0.5])
    """
    lam = np.sort(np.asarray(eigenvalues, dtype=np.float64), axis=-1)
    if lam.shape[-1] < 3:
        raise SettingError(f"Two spacings need at least 3 eigenvalues; got {lam.shape[-1]}. Use a larger window.")
    s = np.diff(lam, axis=-1)
    smaller, larger = np.minimum(s[..., :-1], s[..., 1:]), np.maximum(s[..., :-1], s[..., 1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(larger > 0.0, smaller / larger, np.nan)
