"""Do the levels of windows repel more, or less, than those of noise? Compared with surrogates of the same W."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import DataError, SettingError
from spectraledge.theory.spacing import spacing_ratio
from spectraledge.theory.spectrum import as_grams
from spectraledge.theory.surrogates import sample_gram

Array = NDArray[np.float64]
_CHUNK = 4_000_000


@dataclass(frozen=True)
class SpacingTest:
    """Mean spacing ratio against surrogates.

    Attributes:
        observed: Mean over windows and ratios.
        null_mean: Mean of the same over surrogates; at W = 10 it is not 0.5307.
        null_sd: Standard deviation over surrogates.
        p_value: Two-sided, (1 + count) / (1 + draws).
        n_windows: Disjoint windows used.
    """

    observed: float
    null_mean: float
    null_sd: float
    p_value: float
    n_windows: int


def spacing_test(
    grams: ArrayLike,
    *,
    p_eff: float,
    row_correlation: ArrayLike | None = None,
    coherence: ArrayLike = 0.0,
    skip: int = 0,
    n_draws: int = 500,
    rng: np.random.Generator,
) -> SpacingTest:
    """Test the spacing ratios of disjoint windows against noise with the same row norms and the same W.

    Args:
        grams: (N, W, W) of consecutive windows, one update apart; every W-th is used, those with NaN are not.
        p_eff: Effective dimension of the noise.
        row_correlation: As in :func:`spectraledge.theory.surrogates.sample_gram`.
        coherence: Drift of the surrogates, as in :func:`spectraledge.theory.surrogates.sample_gram`.
        skip: Largest eigenvalues left out, those of the signal.
        n_draws: Surrogates of the whole series.
        rng: Source of randomness.

    Returns:
        The test; the mean over disjoint windows. Source: derived; ratios standard (Atas et al. 2013).

    Raises:
        SettingError: If fewer than three eigenvalues are left.
        DataError: If no window is finite.
    """
    grams = as_grams(grams)
    window = grams.shape[-1]
    if not 0 <= skip <= window - 3:
        raise SettingError(f"skip must leave 3 of {window} eigenvalues; got {skip}. Use a larger window.")
    chosen = grams[::window]
    chosen = chosen[np.isfinite(chosen).all(axis=(-2, -1))]
    if not len(chosen):
        raise DataError("At least one window must be finite; none is. Leave out windows across a seam.")
    norms = np.sqrt(np.diagonal(chosen, axis1=-2, axis2=-1))
    null = np.empty(n_draws)
    at_once = max(1, _CHUNK // chosen.size)
    for first in range(0, n_draws, at_once):
        n = min(at_once, n_draws - first)
        # Each window has its own draw: leading axes of norms would share their random directions.
        cosines = sample_gram(
            np.ones(window),
            p_eff,
            row_correlation=row_correlation,
            coherence=coherence,
            n_draws=n * len(chosen),
            rng=rng,
        ).reshape(n, len(chosen), window, window)
        null[first : first + n] = _mean_ratio(cosines * norms[:, :, None] * norms[:, None, :], skip)
    observed = float(_mean_ratio(chosen, skip))
    mean = float(null.mean())
    extreme = int(np.sum(np.abs(null - mean) >= abs(observed - mean)))
    return SpacingTest(observed, mean, float(null.std(ddof=1)), (1 + extreme) / (1 + n_draws), len(chosen))


def _mean_ratio(grams: Array, skip: int) -> Array:
    lam = np.linalg.eigvalsh(grams)
    return np.nanmean(spacing_ratio(lam[..., : lam.shape[-1] - skip]), axis=(-2, -1))
