"""The schedule null: how often do noise and drift, times the run's own learning rates, show three phases?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.gap import ratios
from spectraledge.theory.gap_rules import gap_scores, largest_score
from spectraledge.theory.intervals import clopper_pearson
from spectraledge.theory.phases import is_three_phase
from spectraledge.theory.piecewise import PiecewiseModel
from spectraledge.theory.spectrum import as_grams, gram_spectrum
from spectraledge.theory.surrogates import sample_gram

Array = NDArray[np.float64]

# A test that its own null passes more often than this says nothing.
UNINFORMATIVE = 0.2


@dataclass(frozen=True)
class ScheduleNull:
    """Three-phase verdicts on surrogates.

    Attributes:
        rate: Share of surrogates that the strict fit calls three-phase: the false-positive rate.
        low: Lower end of its exact 95 % interval.
        high: Upper end.
        n_draws: Surrogates.
        two_breaks: Share for which two breaks are preferred, whatever the signs of the slopes: what a test of
            "phases" that does not look at signs would pass.
        informative: Whether the rate is at most 0.2; otherwise a three-phase verdict of the run says nothing.
        gain: (n_draws,) BIC of no break minus BIC of two, to place the run's own among: its p-value is the
            share of draws that reach it.
        log_ratio: (n_draws, T) log R of the surrogates.
    """

    rate: float
    low: float
    high: float
    n_draws: int
    two_breaks: float
    informative: bool
    gain: Array
    log_ratio: Array


def window_ratios(gram: ArrayLike, window: int, *, position: int | None = None) -> Array:
    """R of every moving window of a Gram of all updates.

    Args:
        gram: (..., N, N) inner products [parameter^2].
        window: W.
        position: k of sigma_k / sigma_{k+1}; the largest ratio with k <= W // 2 (guarded) where None.

    Returns:
        (..., N - W + 1); NaN where unresolved. Source: arXiv:2603.28964v1-v3.

    Raises:
        SettingError: If W is not in 2..N or the position not in 1..W - 1.

    >>> window_ratios(np.diag([4.0, 1.0, 9.0]), 2, position=1)
    array([2., 3.])
    """
    g = as_grams(gram)
    if not 2 <= window <= g.shape[-1] or (position is not None and not 1 <= position < window):
        raise SettingError(
            f"window must lie in 2..{g.shape[-1]} and position in 1..{window - 1}; got {window} and {position}. "
            "Use window=10 as in the paper."
        )
    blocks = sliding_window_view(g, (window, window), axis=(-2, -1))
    diagonal = np.moveaxis(np.diagonal(blocks, axis1=-4, axis2=-3), -1, -3)
    spectrum = gram_spectrum(diagonal)
    if position is None:
        return largest_score(gap_scores(spectrum.singular_values, "guarded", spectrum.floor))
    return ratios(spectrum.singular_values, spectrum.floor)[..., position - 1]


def schedule_null(
    lr_sums: ArrayLike,
    *,
    window: int = 10,
    p_eff: float,
    position: int | None = None,
    norms: ArrayLike | None = None,
    coherence: ArrayLike = 0.0,
    row_correlation: ArrayLike | None = None,
    smallest: int | None = None,
    n_draws: int = 199,
    rng: np.random.Generator,
) -> ScheduleNull:
    """False-positive rate of the strict three-phase verdict under noise (and drift) times the schedule.

    Rows are random directions (null A or B), with a constant or smooth drift where ``coherence`` says so
    (C, D), of norm ``lr_sum_t * norms_t``: null H. Nothing but the learning rate changes in time.

    Args:
        lr_sums: (N,) learning rate summed over the steps of each update, the run's own.
        window: W.
        p_eff: Effective dimension of the noise.
        position: As in :func:`window_ratios`: the same statistic as the run's.
        norms: (N,) norms per unit of learning rate, ||delta_t|| / lr_sum_t; equal where None. The norms
            themselves already hold the schedule: dividing keeps it from counting twice.
        coherence: Mean cosine m^2 of a drift, or an (N, N) kernel, see ``surrogates.sample_gram``.
        row_correlation: Of momentum.
        smallest: Points in the shortest piece, as in ``phases.three_phases``.
        n_draws: Surrogates.
        rng: Source of randomness.

    Returns:
        The rate with its interval. Source: derived.

    Raises:
        SettingError: If learning rates are not positive or the record is too short.
    """
    lr = np.asarray(lr_sums, dtype=np.float64)
    base = np.ones_like(lr) if norms is None else np.asarray(norms, dtype=np.float64)
    if lr.ndim != 1 or base.shape != lr.shape or not (np.isfinite(lr).all() and np.all(lr > 0.0)):
        raise SettingError(
            f"lr_sums must be (N,), finite and positive, and norms alike; got shapes {lr.shape} and {base.shape}. "
            "Leave out updates with a learning rate of zero."
        )
    gram = sample_gram(
        lr / lr.mean() * base,
        p_eff,
        row_correlation=row_correlation,
        coherence=coherence,
        n_draws=n_draws,
        rng=rng,
    )
    y = np.log(window_ratios(gram, window, position=position))
    n = y.shape[-1]
    model = PiecewiseModel(np.arange(n), smallest=max(3, n // 10) if smallest is None else smallest)
    fit = model.fit(y, n_effective=max(n / window, 2.0))
    found = int(is_three_phase(fit).sum())
    low, high = clopper_pearson(found, n_draws)
    rate = found / n_draws
    return ScheduleNull(
        rate=rate,
        low=float(low),
        high=float(high),
        n_draws=n_draws,
        two_breaks=float(np.mean(fit.n_breaks == 2)),
        informative=rate <= UNINFORMATIVE,
        gain=fit.bic[:, 0] - fit.bic[:, 2],
        log_ratio=y,
    )
