"""How far directions and spans can turn between two windows: upper bounds, before anything is measured.

The lemma behind most of them: for symmetric M and M' = M + D, ``(M - lambda_j) v' = (lambda'_j - lambda_j) v' -
D v'``. Weyl puts ``lambda'_j - lambda_j`` inside the range of D's spectrum, so the right side is at most
``spread(D) = lambda_max(D) - lambda_min(D)`` long, and the left side at least ``gap_j sin(v_j, v'_j)``. Knows
nothing about what was measured: :mod:`spectraledge.theory.rotation` does.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.eigengaps import cut_gaps, two_sided_gaps, where_resolved
from spectraledge.theory.perturbation import Reading, cyclic_change, gram_change, operator_change
from spectraledge.theory.spectrum import UPDATE_EPS_FLOAT32, as_grams, gram_spectrum, trace

__all__ = ["check_mode", "cut_gaps", "profile_bound", "span_bound", "two_sided_gaps", "vector_bound"]

Array = NDArray[np.float64]
Mode = Literal["strict", "author"]
VectorKind = Literal["spread", "spectral", "frobenius"]
SpanKind = Literal["spread", "davis_kahan", "yu_wang_samworth", "wedin"]

_EPS = float(np.finfo(np.float64).eps)


def check_mode(mode: str) -> None:
    """Raise SettingError unless ``mode`` is ``strict`` or ``author``."""
    if mode not in get_args(Mode):
        raise SettingError(
            f"mode must be strict or author; got {mode!r}. strict is the corrected form, author the published one."
        )


def vector_bound(
    block: ArrayLike,
    window: int,
    kind: VectorKind = "spread",
    *,
    mode: Mode = "strict",
    reading: Reading = "dlam",
    update_eps: float = UPDATE_EPS_FLOAT32,
) -> Array:
    """Upper bound of sin(v_j, v'_j), the rotation of each direction between two windows.

    Strict, gaps of the earlier window with ``lambda_{W+1} = 0``, any number of replaced rows:

    - ``spread``: (lambda_max(dM) - lambda_min(dM)) / gap_j. For one row the spread is ||a - b|| ||a + b||.
    - ``frobenius``: sqrt(2) ||dM||_F / gap_j.
    - ``spectral``: 2 ||dM||_2 / gap_j.

    Each is at most the next, up to sqrt(2), and none of the three constants can be lowered
    (:mod:`spectraledge.theory.worst_cases`). Author: ||dG||_F / gap_j with the constant 1, any of the four
    readings of dG, and the nearest of the W eigenvalues of the later window. That is not a theorem: with
    ``operator`` the constant is too small by up to sqrt(2), and ``dlam``, ``shift`` and ``aligned`` say nothing
    about directions in parameter space (the spectrum may stand still while they turn by 90 degrees).

    Strict values are rounded up by what the float64 products lose, so that rounding never makes a false claim;
    a bound of 1 or more says nothing.

    Args:
        block: (..., W + m, W + m) inner products of all updates of both windows [parameter^2], 1 <= m <= W.
        window: W.
        kind: Measure of the change in strict mode; not used in author mode.
        mode: ``strict`` (default) or ``author``.
        reading: Reading of dG in author mode, see :func:`~spectraledge.theory.gram_change`.
        update_eps: Relative rounding of one update, see :func:`~spectraledge.theory.resolution_floor`.

    Returns:
        (..., W); NaN for unresolved modes and non-finite blocks. Source: arXiv:2603.28964v1-v3 (author, with the
        gap and the reading of the author's code), derived (strict).

    Raises:
        SettingError: For an unknown kind, mode or reading, or a block of the wrong size.

    >>> bound = vector_bound(np.diag([4.0, 9.0, 4.0]), 2)  # an update of energy 4 is replaced by another one
    >>> bound.round(3)  # gaps 5 and 4
    array([1.6, 2. ])
    """
    check_mode(mode)
    if mode == "author":
        change = gram_change(block, window, reading=reading)
        after = gram_spectrum(as_grams(block)[..., -window:, -window:], update_eps=update_eps)
        gaps = two_sided_gaps(after.singular_values, after.floor, of="profiles")
        return _divide(change[..., None], gaps)
    if kind not in get_args(VectorKind):
        raise SettingError(f"kind must be one of {', '.join(get_args(VectorKind))}; got {kind!r}. Use spread.")
    sizes = _operator_sizes(block, window)
    size = {"spread": sizes[0], "spectral": 2.0 * sizes[1], "frobenius": np.sqrt(2.0) * sizes[2]}[kind]
    before = gram_spectrum(as_grams(block)[..., :window, :window], update_eps=update_eps)
    gaps = two_sided_gaps(before.singular_values, before.floor)
    return _divide(size[..., None], _rounded_down(gaps, before.singular_values))


def span_bound(
    block: ArrayLike,
    window: int,
    kind: SpanKind = "spread",
    *,
    mode: Mode = "strict",
    reading: Reading = "dlam",
    update_eps: float = UPDATE_EPS_FLOAT32,
) -> Array:
    """Upper bound of ||sin Theta_k||_F between the spans of the first k modes of two windows, for every cut k.

    Strict, gaps of the earlier window:

    - ``spread``: spread(dM) / (lambda_k - lambda_{k+1}); one replaced row only.
    - ``davis_kahan``: sqrt(2) ||dM||_F / (lambda_k - lambda_{k+1}); any m. The constant is sharp.
    - ``yu_wang_samworth``: 2 min(sqrt(k) ||dM||_2, ||dM||_F) / (lambda_k - lambda_{k+1}); any m.
    - ``wedin``: 2 ||X' - X||_F / (sigma_k - sigma_{k+1}), new rows in the places of old ones, bounds
      sqrt(||sin U||_F^2 + ||sin V||_F^2) of time profiles and directions together; any m.

    Author: ||dG||_F / (lambda_k - lambda_{k+1}) with the constant 1 and the gap of the later window, which is not
    a theorem. Strict values are rounded up as in :func:`vector_bound`; ||sin Theta_k||_F is at most sqrt(k)
    whatever happens.

    Args:
        block: (..., W + m, W + m) [parameter^2], 1 <= m <= W.
        window: W.
        kind: Which bound in strict mode; not used in author mode.
        mode: ``strict`` (default) or ``author``.
        reading: Reading of dG in author mode.
        update_eps: Relative rounding of one update.

    Returns:
        (..., W), entry k - 1 for cut k; NaN where mode k is unresolved. Source: standard result (Yu, Wang and
        Samworth 2015), derived (spread, sqrt(2) and 2 with one window's gap), arXiv:2603.28964v1-v3 (author).

    Raises:
        SettingError: For an unknown kind, mode or reading, ``spread`` with more than one replaced row, or a block of
            the wrong size.

    >>> span_bound(np.diag([4.0, 9.0, 4.0]), 2).round(3)  # gaps 5 and 4
    array([1.6, 2. ])
    """
    check_mode(mode)
    block = as_grams(block)
    if mode == "author":
        change = gram_change(block, window, reading=reading)
        after = gram_spectrum(block[..., -window:, -window:], update_eps=update_eps)
        return _divide(change[..., None], cut_gaps(after.singular_values, after.floor))
    if kind not in get_args(SpanKind):
        raise SettingError(f"kind must be one of {', '.join(get_args(SpanKind))}; got {kind!r}. Use davis_kahan.")
    spread, spectral, frobenius = _operator_sizes(block, window)
    m = block.shape[-1] - window
    if kind == "spread" and m != 1:
        raise SettingError(
            f"kind='spread' holds for one replaced row; got {m}. Use davis_kahan, which holds for any number."
        )
    before = gram_spectrum(block[..., :window, :window], update_eps=update_eps)
    sigma = before.singular_values
    if kind == "wedin":
        moved = _moved_rows(block, window)
        sigma_gap = np.concatenate([sigma[..., :-1] - sigma[..., 1:], sigma[..., -1:]], axis=-1)
        # An eigenvalue of the Gram is known to 4 W eps tr G, its root to that over sigma_k.
        with np.errstate(invalid="ignore", divide="ignore"):
            sigma_gap = np.maximum(sigma_gap - _eigenvalue_error(sigma) / sigma, 0.0)
        return _divide(2.0 * moved[..., None], where_resolved(sigma_gap, sigma, before.floor))
    if kind == "spread":
        size = spread[..., None]
    elif kind == "davis_kahan":
        size = np.sqrt(2.0) * frobenius[..., None]
    else:
        root_k = np.sqrt(np.arange(1.0, window + 1.0))
        size = 2.0 * np.minimum(root_k * spectral[..., None], frobenius[..., None])
    return _divide(size, _rounded_down(cut_gaps(sigma, before.floor), sigma))


def profile_bound(block: ArrayLike, window: int, *, update_eps: float = UPDATE_EPS_FLOAT32) -> Array:
    """Upper bound of sin(u_j, u'_j), the rotation of each time profile, new rows in the places of old ones.

    ``spread(dG) / gap_j`` of the cyclic change of the Gram, gap among the W eigenvalues of the earlier window. For
    one replaced row the spread is ``2 ||w||``, w as in :func:`~spectraledge.theory.cyclic_change`; the constant is
    sharp. The profiles of the later window must be in the same cyclic order: those of the Gram before plus the
    cyclic change.

    Args:
        block: (..., W + m, W + m) [parameter^2], 1 <= m <= W.
        window: W.
        update_eps: Relative rounding of one update.

    Returns:
        (..., W), rounded up; NaN for unresolved modes and non-finite blocks. Source: derived.

    Raises:
        SettingError: If the block has the wrong size.
    """
    change = cyclic_change(block, window)
    block = as_grams(block)
    finite = np.asarray(np.isfinite(block).all(axis=(-2, -1)))
    lam = np.linalg.eigvalsh(np.where(finite[..., None, None], change, 0.0))
    before = gram_spectrum(block[..., :window, :window], update_eps=update_eps)
    energy = np.trace(block, axis1=-2, axis2=-1)
    spread = np.where(finite, lam[..., -1] - lam[..., 0] + 4.0 * window * _EPS * energy, np.nan)
    gaps = two_sided_gaps(before.singular_values, before.floor, of="profiles")
    return _divide(spread[..., None], _rounded_down(gaps, before.singular_values))


def _operator_sizes(block: ArrayLike, window: int) -> tuple[Array, Array, Array]:
    """Spread, spectral and Frobenius norm of dM, each (...), rounded up."""
    change = operator_change(block, window)
    block = as_grams(block)
    m = block.shape[-1] - window
    energy = np.diagonal(block, axis1=-2, axis2=-1)
    moved = energy[..., :m].sum(axis=-1) + energy[..., window:].sum(axis=-1)
    # Squares are differences of products of the moved rows' energies, with an error of some m eps of them.
    lost = np.sqrt(16.0 * m * _EPS) * moved
    return np.hypot(change.spread, lost), np.hypot(change.spectral, lost), np.hypot(change.frobenius, lost)


def _moved_rows(block: Array, window: int) -> Array:
    """||X' - X||_F in cyclic order, rounded up; (...) [parameter]."""
    m = block.shape[-1] - window
    diagonal = np.diagonal(block, axis1=-2, axis2=-1)
    energy = diagonal[..., :m].sum(axis=-1) + diagonal[..., window:].sum(axis=-1)
    cross = np.diagonal(block, offset=window, axis1=-2, axis2=-1).sum(axis=-1)
    return np.sqrt(np.maximum(energy - 2.0 * cross, 0.0) + 8.0 * m * _EPS * energy)


def _eigenvalue_error(sigma: Array) -> Array:
    return 4.0 * sigma.shape[-1] * _EPS * trace(sigma)[..., None]


def _rounded_down(gaps: Array, sigma: Array) -> Array:
    """Gaps less what the eigensolver may have moved them."""
    return np.maximum(gaps - _eigenvalue_error(sigma), 0.0)


def _divide(change: Array, gaps: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return change / gaps
