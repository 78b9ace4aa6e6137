"""Where the largest gap of a spectrum lies (the paper's k*), and how wide it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.gap_null import gap_null_statistics, gap_p_value
from spectraledge.theory.gap_rules import Rule, gap_scores, largest_score

Array = NDArray[np.float64]

__all__ = [
    "Rule",
    "eigen_width",
    "g23",
    "gap_null_statistics",
    "gap_p_value",
    "gap_position",
    "gap_ratio",
    "gap_scores",
    "largest_score",
    "ratios",
    "uniqueness_margin",
    "width",
]


def gap_position(singular_values: ArrayLike, *, rule: Rule = "guarded", floor: ArrayLike = 0.0) -> NDArray[np.int64]:
    """Position k* of the largest gap, 1-indexed as in the paper; 0 where no ratio is resolved.

    Args:
        singular_values: (..., W) descending [parameter].
        rule: ``guarded`` (largest sigma_j/sigma_{j+1} with j <= W // 2, default), ``plain`` (no such limit),
            ``weighted`` (times sigma_j / sum sigma) or ``difference`` (largest sigma_j - sigma_{j+1}).
        floor: (...) or scalar resolution floor [parameter]; ratios with a denominator at or below it are
            skipped.

    Returns:
        (...) integers. Source: arXiv:2603.28964 (plain, weighted), derived (guarded, difference).

    Raises:
        SettingError: For an unknown rule or W < 2.

    The rules disagree on the published TinyStories spectrum of step 2000:

    >>> sigma = [198.58, 169.08, 122.47, 110.73, 106.22, 92.66, 78.30, 61.27, 44.58, 22.79]
    >>> [int(gap_position(sigma, rule=rule)) for rule in ("guarded", "plain", "weighted", "difference")]
    [2, 9, 2, 2]
    """
    scores = gap_scores(singular_values, rule, floor)
    admitted = ~np.isnan(scores)
    best = np.argmax(np.where(admitted, scores, -np.inf), axis=-1) + 1
    return np.where(admitted.any(axis=-1), best, 0)


def ratios(singular_values: ArrayLike, floor: ArrayLike = 0.0) -> Array:
    """sigma_j / sigma_{j+1} for j = 1..W-1, NaN where sigma_{j+1} is not above the floor; (..., W - 1)."""
    return gap_scores(singular_values, "plain", floor)


def gap_ratio(singular_values: ArrayLike, position: ArrayLike) -> Array:
    """R = sigma_k / sigma_{k+1} at ``position`` (...); NaN where the position is 0."""
    upper, lower = _pair(singular_values, position)
    with np.errstate(divide="ignore", invalid="ignore"):
        return upper / lower


def width(singular_values: ArrayLike, position: ArrayLike) -> Array:
    """g = sigma_k - sigma_{k+1} at ``position`` (...) [parameter]; NaN where the position is 0."""
    upper, lower = _pair(singular_values, position)
    return upper - lower


def gap_is_resolved(
    singular_values: ArrayLike, position: ArrayLike, *, error: ArrayLike = 0.0, relative_error: ArrayLike = 0.0
) -> NDArray[np.bool_]:
    """Whether the gap at ``position`` is wider than errors of the two values could make it.

    Both values move by at most ``error + relative_error * sigma``; a gap is resolved where they cannot have been
    equal: ``sigma_k - sigma_{k+1} > 2 error + relative_error (sigma_k + sigma_{k+1})``.

    Args:
        singular_values: (..., W) descending [parameter].
        position: (...) k*, 1-indexed; 0 is never resolved.
        error: (...) bound on the absolute error of a singular value [parameter]: for rows with an error E, its
            norm (Weyl).
        relative_error: (...) bound on their relative error: for sketched rows, see
            :func:`spectraledge.theory.sketch.relative_error`.

    Returns:
        (...) booleans. Source: derived.

    >>> bool(gap_is_resolved([1.5, 1.0], 1, error=0.2)), bool(gap_is_resolved([1.5, 1.0], 1, error=0.3))
    (True, False)
    """
    upper, lower = _pair(singular_values, position)
    return np.asarray(upper - lower > 2 * np.asarray(error) + np.asarray(relative_error) * (upper + lower))


def eigen_width(singular_values: ArrayLike, position: ArrayLike) -> Array:
    """sigma_k^2 - sigma_{k+1}^2 at ``position`` (...) [parameter^2]; NaN where the position is 0."""
    upper, lower = _pair(singular_values, position)
    return (upper - lower) * (upper + lower)


def g23(singular_values: ArrayLike) -> Array:
    """g_23 = sigma_2^2 - sigma_3^2 (...) [parameter^2]; a window of 2 has sigma_3 = 0."""
    sigma = np.asarray(singular_values, dtype=np.float64)
    if sigma.shape[-1] < 2:
        raise SettingError("window must be at least 2 for g_23; got 1. Use window=10 as in the paper.")
    third = sigma[..., 2] if sigma.shape[-1] > 2 else np.zeros_like(sigma[..., 1])
    return (sigma[..., 1] - third) * (sigma[..., 1] + third)


def uniqueness_margin(
    singular_values: ArrayLike, *, null_sd: ArrayLike, rule: Rule = "guarded", floor: ArrayLike = 0.0
) -> Array:
    """(largest score - second largest) / null sd of the largest: is there ONE gap?

    Args:
        singular_values: (..., W) descending [parameter].
        null_sd: (...) standard deviation of the largest score under a null, for instance of
            ``gap_null_statistics(...)`` over its last axis.
        rule: As in :func:`gap_position`.
        floor: As in :func:`gap_position`.

    Returns:
        (...) in standard deviations; above 2 the maximum is unique. NaN where fewer than two positions are
        admitted. Source: derived.
    """
    scores = gap_scores(singular_values, rule, floor)
    if scores.shape[-1] < 2:
        return np.full(scores.shape[:-1], np.nan)
    ordered = np.sort(np.where(np.isnan(scores), -np.inf, scores), axis=-1)
    with np.errstate(invalid="ignore"):
        margin = ordered[..., -1] - ordered[..., -2]
        return np.where(np.isfinite(margin), margin, np.nan) / np.asarray(null_sd, dtype=np.float64)


def _pair(singular_values: ArrayLike, position: ArrayLike) -> tuple[Array, Array]:
    sigma = np.asarray(singular_values, dtype=np.float64)
    k = np.asarray(position, dtype=np.int64)
    if np.any((k < 0) | (k >= sigma.shape[-1])):
        raise SettingError(
            f"position must lie in 0..{sigma.shape[-1] - 1}; got {int(k.min())}..{int(k.max())}. "
            "Positions are 1-indexed and 0 means unresolved."
        )
    lead = np.broadcast_shapes(k.shape, sigma.shape[:-1])
    sigma, k = np.broadcast_to(sigma, (*lead, sigma.shape[-1])), np.broadcast_to(k, lead)
    upper = np.take_along_axis(sigma, np.maximum(k - 1, 0)[..., None], axis=-1)[..., 0]
    lower = np.take_along_axis(sigma, np.maximum(k, 0)[..., None], axis=-1)[..., 0]
    return np.where(k > 0, upper, np.nan), np.where(k > 0, lower, np.nan)
