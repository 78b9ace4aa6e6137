"""The gap that the flow tends to, how sure its sign is, and whether a run is long enough to see it.

``dg/dt = c - gamma g`` with the pull c and the damping gamma = eta (h_mean + omega), per optimizer step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from spectraledge.errors import SettingError
from spectraledge.theory.gap_flow import collapse_time

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Equilibrium:
    """Where a gap tends to; every entry (...).

    Attributes:
        gap: g* = c / gamma [parameter]; negative: the gap collapses. NaN unless gamma > 0.
        low: Lower end of the delta-method interval.
        high: Upper end. Both NaN where gamma is within its error of zero: the ratio then has no finite interval.
        regime: ``viable`` (c > 0 at the level), ``collapsing`` (c < 0), ``undetermined``; empty for NaN.
        relaxation_steps: 1 / gamma [optimizer steps]; infinite unless gamma > 0.
        relaxation_snapshots: 1 / (gamma s).
        collapse_steps: Time to g = 0 [optimizer steps], without repulsion; infinite if never.
        collapse_snapshots: The same in snapshots.
        testable: Whether the run lasts at least three relaxation times (95 % of the way).
    """

    gap: Array
    low: Array
    high: Array
    regime: NDArray[np.str_]
    relaxation_steps: Array
    relaxation_snapshots: Array
    collapse_steps: Array
    collapse_snapshots: Array
    testable: NDArray[np.bool_]


def equilibrium(
    gap: ArrayLike,
    pull: ArrayLike,
    damping: ArrayLike,
    *,
    pull_sd: ArrayLike,
    damping_sd: ArrayLike = 0.0,
    covariance: ArrayLike = 0.0,
    stride: int,
    run_steps: float,
    level: float = 0.95,
) -> Equilibrium:
    """Equilibrium gap with interval, regime, and times.

    Args:
        gap: (...) g of now [parameter].
        pull: (...) c [parameter / step].
        damping: (...) gamma [1 / step].
        pull_sd: (...) standard error of c.
        damping_sd: (...) of gamma.
        covariance: (...) of the two.
        stride: Optimizer steps per snapshot.
        run_steps: Length of the run [optimizer steps].
        level: Confidence level.

    Returns:
        The equilibrium. Source: arXiv:2603.28964 (g* and the regimes); interval by the delta method, standard.

    Raises:
        SettingError: If the stride is below 1 or level is not in (0, 1).

    >>> e = equilibrium(1.0, 0.02, 0.01, pull_sd=0.002, stride=50, run_steps=1000)
    >>> float(e.gap), str(e.regime), float(e.relaxation_snapshots), bool(e.testable)
    (2.0, 'viable', 2.0, True)
    """
    if stride < 1 or not 0.0 < level < 1.0:
        raise SettingError(f"stride must be at least 1 and level in (0, 1); got {stride} and {level}. Use 0.95.")
    inputs = (gap, pull, damping, pull_sd, damping_sd, covariance)
    g, c, gamma, sd_c, sd_gamma, cov = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in inputs))
    z = norm.ppf(0.5 + 0.5 * level)
    damped = gamma > 0.0
    safe = np.where(damped, gamma, 1.0)
    star = np.where(damped, c / safe, np.nan)
    variance = (sd_c**2 - 2.0 * star * cov + star**2 * sd_gamma**2) / safe**2
    reach = z * np.sqrt(np.maximum(variance, 0.0))
    reach = np.where(gamma > z * sd_gamma, reach, np.nan)
    regime = np.where(c > z * sd_c, "viable", np.where(c < -z * sd_c, "collapsing", "undetermined"))
    regime = np.where(np.isfinite(c) & np.isfinite(sd_c), regime, "")
    relaxation = np.where(np.isnan(gamma), np.nan, np.where(damped, 1.0 / safe, np.inf))
    collapse = collapse_time(g, c, gamma)
    return Equilibrium(
        gap=star,
        low=star - reach,
        high=star + reach,
        regime=regime,
        relaxation_steps=relaxation,
        relaxation_snapshots=relaxation / stride,
        collapse_steps=collapse,
        collapse_snapshots=collapse / stride,
        testable=3.0 * relaxation <= run_steps,
    )


def opening_probability(
    gap: ArrayLike,
    pull: ArrayLike,
    damping: ArrayLike,
    *,
    pull_sd: ArrayLike,
    damping_sd: ArrayLike = 0.0,
    covariance: ArrayLike = 0.0,
) -> Array:
    """Probability that the flow opens the gap, P(c - gamma g > 0) for normal errors of c and gamma, (...).

    It is certainty about the flow, not about the data, whose noise adds: judge it by :func:`reliability`.
    Source: derived.
    """
    inputs = (gap, pull, damping, pull_sd, damping_sd, covariance)
    g, c, gamma, sd_c, sd_gamma, cov = (np.asarray(x, dtype=np.float64) for x in inputs)
    slope = c - gamma * g
    sd = np.sqrt(np.maximum(sd_c**2 + (g * sd_gamma) ** 2 - 2.0 * g * cov, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(sd > 0.0, slope / sd, np.sign(slope) * np.inf)
    score = np.where((sd == 0.0) & (slope == 0.0), 0.0, score)
    return norm.cdf(score)


@dataclass(frozen=True)
class BrierScore:
    """Mean square error of probabilities.

    Attributes:
        score: 0 for certain and right, 0.25 for always one half.
        reference: Score of always saying the base rate.
        skill: 1 - score / reference; at or below 0 the probabilities say nothing.
        n: Events scored.
    """

    score: float
    reference: float
    skill: float
    n: int


def brier_score(probability: ArrayLike, outcome: ArrayLike) -> BrierScore:
    """Score probabilities against what happened.

    Args:
        probability: (N) in [0, 1], NaN for none.
        outcome: (N) 1 or 0 (or booleans), NaN for unknown.

    Raises:
        SettingError: If a probability is not in [0, 1] or shapes differ.

    >>> brier_score([0.9, 0.2], [True, False]).score.__round__(6)
    0.025
    """
    p, y = _scored(probability, outcome)
    if not len(p):
        return BrierScore(np.nan, np.nan, np.nan, 0)
    score, reference = float(np.mean((p - y) ** 2)), float(np.mean((y - y.mean()) ** 2))
    return BrierScore(score, reference, 1.0 - score / reference if reference > 0.0 else np.nan, len(p))


@dataclass(frozen=True)
class Reliability:
    """Probabilities in bins of equal width.

    Attributes:
        predicted: (n_bins) mean probability; NaN for an empty bin.
        observed: (n_bins) share of outcomes; on the diagonal for honest probabilities.
        counts: (n_bins).
    """

    predicted: Array
    observed: Array
    counts: NDArray[np.int64]


def reliability(probability: ArrayLike, outcome: ArrayLike, *, n_bins: int = 5) -> Reliability:
    """Mean probability and share of outcomes per bin; arguments as in :func:`brier_score`. Standard result."""
    if n_bins < 1:
        raise SettingError(f"n_bins must be at least 1; got {n_bins}. Use 5.")
    p, y = _scored(probability, outcome)
    index = np.minimum((p * n_bins).astype(np.int64), n_bins - 1)
    counts = np.bincount(index, minlength=n_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [np.bincount(index, weights=x, minlength=n_bins) / counts for x in (p, y)]
    return Reliability(means[0], means[1], counts)


def _scored(probability: ArrayLike, outcome: ArrayLike) -> tuple[Array, Array]:
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if p.shape != y.shape or np.any((p < 0.0) | (p > 1.0)) or np.any(np.isfinite(y) & (y != 0.0) & (y != 1.0)):
        raise SettingError(
            f"probability must lie in [0, 1] and outcome be 0 or 1, of one shape; got {p.shape} and {y.shape}. "
            "Give NaN where there is none."
        )
    known = np.isfinite(p) & np.isfinite(y)
    return p[known], y[known]
