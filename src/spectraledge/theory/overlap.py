"""Overlaps between the parameter directions of two windows, from inner products of updates alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def mode_overlaps(
    cross_gram: ArrayLike,
    time_profiles: ArrayLike,
    singular_values: ArrayLike,
    other_time_profiles: ArrayLike,
    other_singular_values: ArrayLike,
    *,
    floor: ArrayLike = 0.0,
    other_floor: ArrayLike = 0.0,
) -> Array:
    """Signed cosines <v_j, v'_k> between the modes of two windows.

    ``V^T V' = S^-1 U^T D U' S'^-1`` with D the inner products between the updates of the two windows.

    Args:
        cross_gram: (..., W, W') with entry [a, b] = <delta_a, delta'_b> [parameter^2].
        time_profiles: (..., W, W), column j is u_j of the first window.
        singular_values: (..., W) of the first window [parameter].
        other_time_profiles: (..., W', W') of the second window.
        other_singular_values: (..., W') of the second window.
        floor: (...) resolution floor of the first window [parameter].
        other_floor: (...) of the second.

    Returns:
        (..., W, W'), NaN where either mode is at or below its floor. Values are not clipped to [-1, 1]: an
        excess beyond rounding means that the inputs do not belong together. Source: standard result.

    >>> u, s = np.eye(2), np.array([2.0, 1.0])
    >>> mode_overlaps(np.diag([4.0, 1.0]), u, s, u, s)
    array([[1., 0.],
           [0., 1.]])
    """
    d, u, v = (np.asarray(x, dtype=np.float64) for x in (cross_gram, time_profiles, other_time_profiles))
    if d.ndim < 2 or u.shape[-1] != d.shape[-2] or v.shape[-1] != d.shape[-1]:
        raise SettingError(
            f"cross_gram must be (..., {u.shape[-1]}, {v.shape[-1]}) to match the profiles; got {d.shape}. "
            "Rows belong to the first window, columns to the second."
        )
    left = _resolved(singular_values, floor)
    right = _resolved(other_singular_values, other_floor)
    return (np.swapaxes(u, -1, -2) @ d @ v) / left[..., :, None] / right[..., None, :]


def subspace_overlap(overlaps: ArrayLike, k: int) -> Array:
    """||V_k^T V'_k||_F^2 / k: share of the top-k span that two windows have in common, in [0, 1].

    Args:
        overlaps: (..., W, W') from :func:`mode_overlaps`.
        k: Dimension of the spans.

    Returns:
        (...), NaN where one of the 2k modes is unresolved.

    Raises:
        SettingError: If k is not in 1..W.
    """
    overlaps = np.asarray(overlaps, dtype=np.float64)
    if not 1 <= k <= min(overlaps.shape[-2:]):
        raise SettingError(
            f"k must lie in 1..{min(overlaps.shape[-2:])}, the number of modes of a window; got {k}. Use k*."
        )
    return np.square(overlaps[..., :k, :k]).sum(axis=(-2, -1)) / k


def _resolved(singular_values: ArrayLike, floor: ArrayLike) -> Array:
    sigma = np.asarray(singular_values, dtype=np.float64)
    limit = np.asarray(floor, dtype=np.float64)[..., None]
    with np.errstate(invalid="ignore"):
        return np.where((sigma > limit) & (sigma > 0.0), sigma, np.nan)
