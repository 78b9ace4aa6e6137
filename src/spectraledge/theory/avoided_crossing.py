"""Avoided crossings: where a gap has a minimum, do its two directions exchange as two coupled levels would?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.overlap import mode_overlaps
from spectraledge.theory.spectrum import as_grams, gram_spectrum
from spectraledge.theory.surrogates import sample_gram

Array = NDArray[np.float64]


def two_levels(detuning: ArrayLike, coupling: ArrayLike) -> tuple[Array, Array]:
    """Gap ``sqrt(Delta^2 + 4 v^2)`` and mixing angle phi, ``tan 2 phi = 2 v / Delta``, of two coupled levels.

    Args:
        detuning: (...) Delta, distance of the levels without coupling; changes sign at the crossing.
        coupling: (...) v.

    Returns:
        Gap (...), at least 2 |v|; phi (...) in [0, pi / 2] for v >= 0. Source: standard result.

    >>> gap, phi = two_levels([2.0, 0.0, -2.0], 1.0)
    >>> gap.round(3), np.degrees(phi).round(1)
    (array([2.828, 2.   , 2.828]), array([22.5, 45. , 67.5]))
    """
    delta, v = np.asarray(detuning, dtype=np.float64), np.asarray(coupling, dtype=np.float64)
    return np.hypot(delta, 2.0 * v), 0.5 * np.arctan2(2.0 * v, delta)


def predicted_mixing(gap_before: ArrayLike, smallest_gap: ArrayLike, gap_after: ArrayLike) -> Array:
    """Angle by which a pair of directions turns through a crossing, from its gaps alone.

    ``(arccos(g_min / g_before) + arccos(g_min / g_after)) / 2``, with 2 |v| = g_min: up to 90 degrees, a full
    exchange. Gaps (...) of one kind, in any unit; NaN where g_min is above one of the others. Source: derived.
    """
    before, least, after = (np.asarray(x, dtype=np.float64) for x in (gap_before, smallest_gap, gap_after))
    with np.errstate(divide="ignore", invalid="ignore"):
        return 0.5 * (np.arccos(least / before) + np.arccos(least / after))


@dataclass(frozen=True)
class Crossings:
    """Local minima of the gap at a position; every array (m).

    Attributes:
        index: Windows of the minima.
        smallest_gap: lambda_k - lambda_{k+1} there [parameter^2].
        coupling: |v| = half of it.
        predicted: Mixing angle between index -+ half_width if two coupled levels cross [radian].
        measured: Angle by which the pair turned between the same windows, in [0, pi / 2].
        closure: Share of the pair's plane that is still there, in [0, 1]; below about 1/2 the pair mixed with
            others and the comparison means little.
    """

    index: NDArray[np.int64]
    smallest_gap: Array
    coupling: Array
    predicted: Array
    measured: Array
    closure: Array

    @property
    def misfit(self) -> float:
        """Mean |measured - predicted| [radian]; NaN without a usable minimum."""
        error = np.abs(self.measured - self.predicted)
        error = error[np.isfinite(error)]
        return float(error.mean()) if error.size else np.nan


def find_crossings(singular_values: ArrayLike, overlaps: ArrayLike, position: int, *, half_width: int) -> Crossings:
    """Minima of ``lambda_k - lambda_{k+1}`` over +- half_width windows, with predicted and measured mixing.

    Args:
        singular_values: (N, W) of consecutive windows [parameter].
        overlaps: (N - 2 half_width, W, W) cosines between windows n and n + 2 half_width, from
            :func:`spectraledge.theory.overlap.mode_overlaps`.
        position: k, 1-indexed.
        half_width: Windows on either side; more than W / 2 for the outer windows to be disjoint.

    Returns:
        The crossings, in order of time. Source: derived from the standard two-level problem.

    Raises:
        SettingError: For a position out of range or overlaps of another length.
    """
    sigma, o = np.asarray(singular_values, dtype=np.float64), np.asarray(overlaps, dtype=np.float64)
    if sigma.ndim != 2 or not 1 <= position < sigma.shape[1]:
        raise SettingError(f"position must lie in 1..W - 1 of (N, W) singular values; got {position}, {sigma.shape}.")
    if half_width < 1 or o.shape != (max(len(sigma) - 2 * half_width, 0), sigma.shape[1], sigma.shape[1]):
        raise SettingError(
            f"overlaps must be (N - 2 half_width, W, W) with half_width >= 1; got {o.shape} for {len(sigma)} windows "
            f"and {half_width}. Compare windows 2 half_width apart."
        )
    upper, lower = sigma[:, position - 1], sigma[:, position]
    gap = (upper - lower) * (upper + lower)
    index = np.zeros(0, dtype=np.int64)
    if len(gap) > 2 * half_width:
        around = np.lib.stride_tricks.sliding_window_view(gap, 2 * half_width + 1)
        with np.errstate(invalid="ignore"):
            least = np.isfinite(around).all(axis=1) & (around[:, half_width] == around.min(axis=1))
        index = np.flatnonzero(least) + half_width
    before, after = gap[index - half_width], gap[index + half_width]
    k = position - 1
    pair = o[index - half_width, k : k + 2, k : k + 2]
    # Signs of directions are arbitrary: the angle of the exchange is that of the diagonal against the other entries,
    # taken over both rows.
    kept = np.square(np.diagonal(pair, axis1=-2, axis2=-1)).sum(axis=-1)
    swapped = np.square(pair[:, [0, 1], [1, 0]]).sum(axis=-1)
    return Crossings(
        index=index,
        smallest_gap=gap[index],
        coupling=0.5 * gap[index],
        predicted=predicted_mixing(before, gap[index], after),
        measured=np.arctan2(np.sqrt(swapped), np.sqrt(kept)),
        closure=0.5 * (kept + swapped),
    )


def gram_crossings(gram: ArrayLike, window: int, position: int, *, half_width: int) -> Crossings:
    """:func:`find_crossings` of a record whose (T, T) inner products are all known."""
    gram = as_grams(gram)
    if gram.ndim != 2 or len(gram) < window + 2 * half_width:
        raise SettingError(
            f"gram must be (T, T) with T at least {window + 2 * half_width}; got {gram.shape}. Record more updates."
        )
    view = np.lib.stride_tricks.sliding_window_view(gram, (window, window))
    n = np.arange(len(view))
    spectrum = gram_spectrum(view[n, n])
    s, u, floor = spectrum.singular_values, spectrum.time_profiles, spectrum.floor
    apart = 2 * half_width
    first, later = n[: len(n) - apart], n[apart:]
    overlaps = mode_overlaps(
        view[first, later], u[first], s[first], u[later], s[later], floor=floor[first], other_floor=floor[later]
    )
    return find_crossings(s, overlaps, position, half_width=half_width)


@dataclass(frozen=True)
class CrossingTest:
    """Misfit of the two-level law against surrogates.

    Attributes:
        misfit: Mean |measured - predicted| angle of the data [radian].
        null: (n_draws) the same of surrogates; NaN for those without a minimum.
        p_value: Share of surrogates that fit at least as well, (1 + count) / (1 + n): small if the pair exchanges
            as two coupled levels and noise does not. NaN without a minimum in the data.
        n_minima: Minima of the data.
    """

    misfit: float
    null: Array
    p_value: float
    n_minima: int


def crossing_test(
    crossings: Crossings,
    norms: ArrayLike,
    window: int,
    position: int,
    *,
    half_width: int,
    p_eff: float,
    row_correlation: ArrayLike | None = None,
    coherence: ArrayLike = 0.0,
    n_draws: int = 200,
    rng: np.random.Generator,
) -> CrossingTest:
    """Compare the misfit with that of minima in noise around a drift with the observed row norms.

    Any two modes of noise also turn through large angles when their gap has a minimum, so that a large measured
    mixing by itself shows nothing.

    Args:
        crossings: Of the data.
        norms: (T) norms of the updates [parameter].
        window: W.
        position: k, 1-indexed.
        half_width: As for the data.
        p_eff: Effective dimension of the noise.
        row_correlation: As in :func:`spectraledge.theory.surrogates.sample_gram`.
        coherence: As in :func:`spectraledge.theory.surrogates.sample_gram`.
        n_draws: Surrogate records.
        rng: Source of randomness.

    Returns:
        The test. Source: derived.
    """
    null = np.empty(n_draws)
    for i in range(n_draws):
        gram = sample_gram(norms, p_eff, row_correlation=row_correlation, coherence=coherence, rng=rng)[0]
        null[i] = gram_crossings(gram, window, position, half_width=half_width).misfit
    observed = crossings.misfit
    usable = null[np.isfinite(null)]
    p_value = (1.0 + np.sum(usable <= observed)) / (1.0 + len(usable)) if np.isfinite(observed) else np.nan
    return CrossingTest(observed, null, float(p_value), len(crossings.index))
