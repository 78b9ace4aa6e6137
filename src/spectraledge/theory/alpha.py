"""Stability coefficients alpha_j: how much of each direction the next window keeps, in six inequivalent readings.

All of them are squared cosines or bounds of them, except ``half_cos``, which is a plain |cos| and therefore larger.
Every reading falls with j in pure noise: read a figure next to its null, :mod:`spectraledge.theory.alpha_null`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.overlap import mode_overlaps
from spectraledge.theory.rotation import paired_overlaps, span_sines
from spectraledge.theory.spectrum import UPDATE_EPS_FLOAT32, as_grams, gram_spectrum
from spectraledge.theory.stability import Mode, check_mode, span_bound, vector_bound

Array = NDArray[np.float64]
StrictKind = Literal["overlap2_lagW", "overlap2_lag1", "dk"]
AuthorKind = Literal["dk_dlam", "dk_f", "half_cos"]
AlphaKind = Literal["overlap2_lagW", "overlap2_lag1", "dk", "dk_dlam", "dk_f", "half_cos"]

_OF_MODE: dict[str, tuple[str, ...]] = {"strict": get_args(StrictKind), "author": get_args(AuthorKind)}


def stability_coefficients(
    block: ArrayLike,
    window: int,
    kind: AlphaKind | None = None,
    *,
    mode: Mode = "strict",
    update_eps: float = UPDATE_EPS_FLOAT32,
) -> Array:
    """alpha_j of every mode of the window.

    Strict:

    - ``overlap2_lagW`` (default): <v_j(t), v_j(t + W)>^2 of disjoint windows (block of 2 W updates). 0 in white
      noise of many dimensions. For a lasting direction its root is the share d_j^2 / sigma_j^2 of signal in the
      mode: each window's v_j has squared cosine d_j^2 / sigma_j^2 with the true direction, and noise parts that
      nothing relates.
    - ``overlap2_lag1``: the same of neighbouring windows (block of W + 1). They share W - 1 updates: white noise
      gives large values.
    - ``dk``: max(0, 1 - (spread(dM) / gap_j)^2) <= cos^2(v_j, v'_j), a guaranteed lower bound (any block). In noise
      it is 0 for every mode that no drift carries.

    Author (``mode="author"`` only):

    - ``dk_dlam`` (author's default): max(0, 1 - ||d lambda||^2 / gap_j^2), gap among the W eigenvalues of the later
      window. No bound: it is 1 when the spectrum stands still while directions turn by 90 degrees.
    - ``dk_f``: the same with ||dM||_F. No bound either: the worst cos^2 is 0 where it says 1/2, and with a factor
      2 in front of ||dM||_F^2 (and the gap of directions) it would be one.
    - ``half_cos``: |<v_j, v'_j>|, not squared, of the first and the second half of the earlier window (needs W >= 4;
      the first half has W // 2 updates). Known for j <= W // 2 only, NaN beyond; the author's code takes 1 where
      it is unknown. Its square root makes noise look stable: cos^2 = 0.25 reads 0.5.

    Modes are paired by index, as in the paper; for pairing by direction see
    :func:`~spectraledge.theory.match_modes`. The author's 1e-20 in the denominators is left out: it has a unit.

    Args:
        block: (..., W + m, W + m) inner products of consecutive updates [parameter^2]; m = 1 for ``overlap2_lag1``,
            W for ``overlap2_lagW``, 0..W for ``half_cos``, 1..W otherwise.
        window: W.
        kind: None for the default of the mode.
        mode: ``strict`` or ``author``.
        update_eps: Relative rounding of one update.

    Returns:
        (..., W) in [0, 1]; NaN for unresolved modes. Source: arXiv:2603.28964v1-v3 (author; the readings from the
        author's code), derived (strict).

    Raises:
        SettingError: For an unknown mode, a kind of the other mode, or a block that does not fit the kind.

    >>> block = np.diag([9.0, 4.0, 9.0, 4.0])  # two windows of two updates, none of them alike
    >>> stability_coefficients(block, 2)
    array([0., 0.])
    >>> stability_coefficients(block, 2, mode="author")  # but the same two eigenvalues
    array([1., 1.])
    """
    name = alpha_kind(kind, mode)
    block = as_grams(block)
    if name in ("dk_dlam", "dk_f"):
        reading: Literal["dlam", "operator"] = "dlam" if name == "dk_dlam" else "operator"
        return _complement(vector_bound(block, window, mode="author", reading=reading, update_eps=update_eps))
    if name == "dk":
        return _complement(vector_bound(block, window, update_eps=update_eps))
    if name == "half_cos":
        return _half_cos(block, window, update_eps)
    return np.minimum(np.square(paired_overlaps(_lagged_overlaps(block, window, name, update_eps))), 1.0)


def subspace_coefficients(
    block: ArrayLike,
    window: int,
    kind: StrictKind = "overlap2_lagW",
    *,
    update_eps: float = UPDATE_EPS_FLOAT32,
) -> Array:
    """Share ||V_k^T V'_k||_F^2 / k of the span of the first k modes that the next window keeps, for every k.

    The subspace version of :func:`stability_coefficients`: indifferent to modes that mix or swap inside the span.
    ``dk`` is the guaranteed lower bound 1 - ||sin Theta_k||_F^2 / k, with the smallest of the bounds of
    :func:`~spectraledge.theory.stability.span_bound` that hold for the block.

    Args:
        block: (..., W + m, W + m) [parameter^2], as in :func:`stability_coefficients`.
        window: W.
        kind: ``overlap2_lagW`` (default), ``overlap2_lag1`` or ``dk``.
        update_eps: Relative rounding of one update.

    Returns:
        (..., W), entry k - 1 for cut k, in [0, 1]; NaN from the first unresolved mode on. Source: derived.

    Raises:
        SettingError: For another kind, or a block that does not fit it.
    """
    name = alpha_kind(kind, "strict")
    block = as_grams(block)
    k = np.arange(1.0, window + 1.0)
    if name == "dk":
        bounds = [
            span_bound(block, window, "davis_kahan", update_eps=update_eps),
            span_bound(block, window, "yu_wang_samworth", update_eps=update_eps),
        ]
        if block.shape[-1] == window + 1:
            bounds.append(span_bound(block, window, "spread", update_eps=update_eps))
        # A span of one direction has the bound of that direction, for any number of replaced rows.
        single = vector_bound(block, window, update_eps=update_eps)
        bounds.append(np.where(k == 1.0, single, np.inf))
        return _complement(np.minimum.reduce(bounds) / np.sqrt(k))
    return _complement(span_sines(_lagged_overlaps(block, window, name, update_eps)) / np.sqrt(k))


def alpha_groups(alpha: ArrayLike, position: int) -> tuple[float, float, float]:
    """Means over dominant (j < k*), gap (j = k*, k* + 1) and subdominant (j > k* + 1) modes, in the author's groups.

    The prediction is dominant > gap > subdominant.

    Args:
        alpha: (..., W) coefficients; all leading axes are averaged over.
        position: k*, counted from 1.

    Returns:
        Three means; NaN for a group without modes (the author's code gives 0, so for k* = 1 it compares 0 with
        the gap's). Source: arXiv:2603.28964v1-v3, groups of the author's code.

    Raises:
        SettingError: If ``position`` is not in 1..W - 1.

    >>> alpha_groups([0.9, 0.5, 0.3, 0.0], 2)
    (0.9, 0.4, 0.0)
    """
    alpha = np.asarray(alpha, dtype=np.float64)
    window = alpha.shape[-1]
    if not 1 <= position < window:
        raise SettingError(f"position must lie in 1..{window - 1}; got {position}. Pass the mode of k* over windows.")
    parts = (alpha[..., : position - 1], alpha[..., position - 1 : position + 1], alpha[..., position + 1 :])
    dominant, gap, rest = (float(np.nanmean(p)) if np.isfinite(p).any() else float("nan") for p in parts)
    return dominant, gap, rest


def alpha_kind(kind: str | None, mode: str) -> AlphaKind:
    """The kind, or the mode's default for None; SettingError for a kind that the mode does not have."""
    check_mode(mode)
    allowed = _OF_MODE[mode]
    name = allowed[0] if kind is None else kind
    if name not in allowed:
        other = "author" if mode == "strict" else "strict"
        hint = f"{name} exists in mode={other!r}." if name in _OF_MODE[other] else f"Use {allowed[0]}."
        raise SettingError(f"kind must be one of {', '.join(allowed)} in mode={mode!r}; got {name!r}. {hint}")
    return name  # type: ignore[return-value]


def _complement(sine: Array) -> Array:
    return np.maximum(1.0 - np.square(sine), 0.0)


def _lagged_overlaps(block: Array, window: int, kind: str, update_eps: float) -> Array:
    lag = 1 if kind == "overlap2_lag1" else window
    if block.shape[-1] != window + lag:
        raise SettingError(
            f"block must hold {window + lag} updates for {kind}; got {block.shape[-1]}. "
            "Pass the inner products of all updates that either window holds."
        )
    return _overlaps_of(block, slice(0, window), slice(lag, lag + window), update_eps)


def _half_cos(block: Array, window: int, update_eps: float) -> Array:
    if window < 4 or block.shape[-1] < window:
        raise SettingError(
            f"half_cos needs a window of at least 4 updates and a block that holds it; got window {window} and "
            f"{block.shape[-1]} updates. Use a longer window."
        )
    half = window // 2
    overlaps = _overlaps_of(block, slice(0, half), slice(half, window), update_eps)
    out = np.full((*block.shape[:-2], window), np.nan)
    out[..., :half] = np.minimum(np.abs(paired_overlaps(overlaps)), 1.0)
    return out


def _overlaps_of(block: Array, first: slice, second: slice, update_eps: float) -> Array:
    a = gram_spectrum(block[..., first, first], update_eps=update_eps)
    b = gram_spectrum(block[..., second, second], update_eps=update_eps)
    return mode_overlaps(
        block[..., first, second],
        a.time_profiles,
        a.singular_values,
        b.time_profiles,
        b.singular_values,
        floor=a.floor,
        other_floor=b.floor,
    )
