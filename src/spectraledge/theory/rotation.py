"""How far directions and spans did turn between two windows, and what of a span survives many of them.

Everything is read off the overlaps ``<v_j, v'_k>`` of :func:`~spectraledge.theory.mode_overlaps`. Signs of modes
are free, so only squares and absolute values enter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from spectraledge.errors import SettingError
from spectraledge.theory.spectrum import trace

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


def match_modes(overlaps: ArrayLike) -> NDArray[np.int64]:
    """Which mode of the second window continues each mode of the first: most squared overlap in total.

    Indices swap when two strengths cross; the assignment (Hungarian method) follows the directions instead. In
    noise it also finds the largest of many small overlaps, so compare matched figures with matched nulls.

    Args:
        overlaps: (..., W, W') from :func:`~spectraledge.theory.mode_overlaps`.

    Returns:
        (..., W) index of the partner, -1 where a mode is unresolved or has none. Source: standard result.

    Raises:
        SettingError: If ``overlaps`` is not a stack of matrices.

    >>> match_modes([[0.1, 0.9], [0.9, -0.1]])
    array([1, 0])
    """
    overlaps = _matrices(overlaps)
    weight = np.nan_to_num(np.square(overlaps))
    flat = weight.reshape(-1, *overlaps.shape[-2:])
    known = np.isfinite(overlaps).reshape(flat.shape)
    out = np.full(flat.shape[:2], -1, dtype=np.int64)
    for index, matrix in enumerate(flat):
        rows, columns = linear_sum_assignment(matrix, maximize=True)
        out[index, rows] = np.where(known[index, rows, columns], columns, -1)
    return out.reshape(overlaps.shape[:-1])


def paired_overlaps(overlaps: ArrayLike, match: ArrayLike | None = None) -> Array:
    """<v_j, v'_match(j)>: (..., W), NaN where the partner is -1; ``match=None`` pairs equal indices.

    Raises:
        SettingError: If ``overlaps`` is not a stack of matrices.
    """
    overlaps = _matrices(overlaps)
    if match is None:
        return np.array(np.diagonal(overlaps, axis1=-2, axis2=-1))
    index = np.asarray(match, dtype=np.int64)[..., None]
    chosen = np.take_along_axis(overlaps, np.maximum(index, 0), axis=-1)[..., 0]
    return np.where(index[..., 0] >= 0, chosen, np.nan)


def vector_sines(overlaps: ArrayLike, match: ArrayLike | None = None) -> Array:
    """sin(v_j, v'_j) = sqrt(1 - <v_j, v'_j>^2) of every mode, in [0, 1].

    Overlaps within rounding of 1 lose half of their digits here: see :func:`sine_floor`.

    Args:
        overlaps: (..., W, W'); an overlap above 1 by rounding gives 0.
        match: (..., W) from :func:`match_modes`; None pairs equal indices.

    Returns:
        (..., W); NaN for unresolved modes. Source: standard result.

    >>> vector_sines([[0.6, 0.8], [0.8, -0.6]])
    array([0.8, 0.8])
    """
    return np.sqrt(np.maximum(1.0 - np.square(paired_overlaps(overlaps, match)), 0.0))


def sine_floor(singular_values: ArrayLike, other_singular_values: ArrayLike) -> Array:
    """Smallest sine that 1 - cos^2 can tell from rounding, mode by mode.

    ``<v, v'> = u^T D u' / (sigma sigma')`` is known to ``W eps (sqrt(tr G tr G') / (sigma sigma') + tr G / 2
    sigma^2 + tr G' / 2 sigma'^2)`` (the product and the two norms), and the sine's square to twice that. For the
    leading mode the floor is about 1e-7, an angle of 6e-6 degrees; for a mode of sigma_j = 0.001 sqrt(tr G) it is
    about 1e-4. Sines below it are to be read as "no rotation resolved", never compared with one another.

    Args:
        singular_values: (..., W) of the first window [parameter].
        other_singular_values: (..., W) of the second, paired with the first.

    Returns:
        (..., W); at least 1 means that the mode's rotation is not resolved at all, infinite for a mode of
        strength 0. Source: derived.

    >>> bool(0.9e-7 < sine_floor(np.eye(10)[0] + 1e-9, np.eye(10)[0] + 1e-9)[0] < 1e-7)
    True
    """
    sigma = np.asarray(singular_values, dtype=np.float64)
    other = np.asarray(other_singular_values, dtype=np.float64)
    with np.errstate(divide="ignore"):
        a = np.sqrt(trace(sigma))[..., None] / sigma
        b = np.sqrt(trace(other))[..., None] / other
    return np.sqrt(2.0 * sigma.shape[-1] * _EPS * (a * b + 0.5 * a**2 + 0.5 * b**2))


def span_sines(overlaps: ArrayLike) -> Array:
    """||sin Theta_k||_F = sqrt(k - ||V_k^T V'_k||_F^2) between the spans of the first k modes, for every k.

    Args:
        overlaps: (..., W, W').

    Returns:
        (..., min(W, W')), entry k - 1 for cut k, in [0, sqrt(k)]; NaN from the first unresolved mode on. Exact to
        about the root of k times what the squared overlaps lose (:func:`sine_floor`). Source: standard result.

    >>> span_sines([[0.6, 0.8], [0.8, -0.6]])
    array([0.8, 0. ])
    """
    squares = np.square(_matrices(overlaps))
    n = min(squares.shape[-2:])
    cumulated = squares[..., :n, :n].cumsum(axis=-2).cumsum(axis=-1)
    shared = np.diagonal(cumulated, axis1=-2, axis2=-1)
    return np.sqrt(np.maximum(np.arange(1.0, n + 1.0) - shared, 0.0))


def principal_angles(overlaps: ArrayLike, k: int) -> Array:
    """Principal angles between the spans of the first k modes, ascending [radian].

    Args:
        overlaps: (..., W, W').
        k: Dimension of the spans.

    Returns:
        (..., k) in [0, pi/2]; NaN where one of the 2k modes is unresolved. Angles below about 1e-7 are rounding,
        as in :func:`sine_floor`. Source: standard result.

    Raises:
        SettingError: If k is not in 1..W.

    >>> principal_angles(np.eye(3), 2)
    array([0., 0.])
    """
    overlaps = _matrices(overlaps)
    if not 1 <= k <= min(overlaps.shape[-2:]):
        raise SettingError(
            f"k must lie in 1..{min(overlaps.shape[-2:])}, the number of modes of a window; got {k}. Use k*."
        )
    head = overlaps[..., :k, :k]
    finite = np.asarray(np.isfinite(head).all(axis=(-2, -1)))[..., None]
    cosines = np.linalg.svd(np.where(finite[..., None], head, 0.0), compute_uv=False)
    return np.where(finite, np.arccos(np.clip(cosines, 0.0, 1.0)), np.nan)


def tightness(measured: ArrayLike, bound: ArrayLike) -> Array:
    """measured / bound: at most 1 where the bound is a theorem, near 1 where it is used up.

    Returns:
        The broadcast shape; NaN where either is NaN or both are 0.
    """
    measured, bound = np.asarray(measured, dtype=np.float64), np.asarray(bound, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return measured / bound


def vacuous_share(bound: ArrayLike, largest: ArrayLike = 1.0) -> Array:
    """Share of windows whose bound says nothing, because it reaches the largest possible value.

    Args:
        bound: (T, ...) bounds of T windows.
        largest: (...) or scalar: 1 for a sine (default), sqrt(k) for ||sin Theta_k||_F.

    Returns:
        (...) in [0, 1], over the windows whose bound is known; NaN where there is none. Source: derived.

    >>> float(vacuous_share([0.5, 1.0, 2.0, np.nan]))  # two of three
    0.6666666666666666
    """
    bound = np.asarray(bound, dtype=np.float64)
    known = np.isfinite(bound) | np.isinf(bound)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(known & (bound >= largest), axis=0) / np.sum(known, axis=0)


def survival_bound(angles: ArrayLike) -> Array:
    """Least share of a span that is left after a chain of rotations: cos^2(min(pi/2, sum of angles)).

    Largest principal angles add at most (they are a metric), so ``||V_k(t_0)^T V_k(t_n)||_F^2 / k`` cannot be
    smaller. Certain survival needs the sum of the angles, not of their squares, to be small. Compare with the
    direct overlap, :func:`~spectraledge.theory.subspace_overlap` of the first and the last window.

    Args:
        angles: (..., n) largest principal angle of each step [radian], measured (last of
            :func:`principal_angles`) or guaranteed (``arcsin(min(1, bound))`` of
            :func:`~spectraledge.theory.stability.span_bound`).

    Returns:
        (...) in [0, 1]. Source: derived (the paper's statement on survival is not legible).

    >>> survival_bound([np.pi / 8, np.pi / 8]).round(6)
    np.float64(0.5)
    """
    total = np.sum(np.asarray(angles, dtype=np.float64), axis=-1)
    return np.square(np.cos(np.minimum(total, 0.5 * np.pi)))


def independent_survival(angles: ArrayLike) -> Array:
    """prod cos^2(angle_i): the share left if every rotation is in a plane of its own; an estimate, not a bound.

    Args:
        angles: (..., n) [radian].

    Returns:
        (...) in [0, 1]. Source: derived.

    >>> independent_survival([np.pi / 4, np.pi / 4]).round(6)
    np.float64(0.25)
    """
    return np.prod(np.square(np.cos(np.asarray(angles, dtype=np.float64))), axis=-1)


def _matrices(overlaps: ArrayLike) -> Array:
    overlaps = np.asarray(overlaps, dtype=np.float64)
    if overlaps.ndim < 2:
        raise SettingError(
            f"overlaps must have shape (..., W, W'); got {overlaps.shape}. Pass the result of mode_overlaps."
        )
    return overlaps
