"""Three phases in surrogates: noise and a constant drift times the run's own learning rates, or its own norms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..theory.intervals import clopper_pearson
from ..theory.noise import momentum_row_correlation
from ..theory.phase_null import UNINFORMATIVE, ScheduleNull, schedule_null
from ..theory.surrogates import fit_null

_ENTRIES = 8_000_000  # matrix entries of surrogates held at once


@dataclass(frozen=True, eq=False)
class NullPhases:
    """The strict fit on surrogates.

    Attributes:
        rate: Share of surrogates called three-phase.
        low: Lower end of its exact 95 % interval.
        high: Upper end.
        two_breaks: Share for which two breaks are preferred, whatever the slopes.
        p_value: Share of surrogates whose gain in BIC by two breaks reaches the run's.
        informative: Whether the rate is at most 0.2.
        n_draws: Surrogates.
    """

    rate: float
    low: float
    high: float
    two_breaks: float
    p_value: float
    informative: bool
    n_draws: int


@dataclass(frozen=True, eq=False)
class PhaseSurrogates:
    """What nulls of one stretch of n rows are made of.

    Attributes:
        gram: (n, n) products; NaN beyond the recorded lags.
        lr: (n) sums of learning rates; ones for rows that were divided by them.
        p_eff: Effective dimension of the noise.
        momentum: beta.
        n_steps: Optimizer steps in a row.
        window: W.
        n_draws: Surrogates of each null.
        seed: Of these.
    """

    gram: np.ndarray
    lr: np.ndarray
    p_eff: float
    momentum: float
    n_steps: int
    window: int
    n_draws: int
    seed: int

    def nulls(self, position: int | None, gain: float) -> dict[str, NullPhases]:
        """Both nulls of one series of R; none where an update is zero or a learning rate is.

        Args:
            position: k of sigma_k / sigma_{k+1}; None for the guarded k* of every window.
            gain: BIC of no break minus BIC of two, of the run.

        Returns:
            ``schedule``: equal norms times the learning rates; ``norms``: the run's own. Source: derived.
        """
        norms = np.sqrt(np.diagonal(self.gram))
        if not np.all(norms > 0.0):
            return {}
        rho = momentum_row_correlation(self.momentum, max(self.n_steps, 1), len(norms))
        drift = float(fit_null("constant_drift", self.gram, self.p_eff, rho).kernel[0, 0])
        found = {}
        for name, profile in (("schedule", self.lr), ("norms", norms)):
            if not (np.isfinite(profile).all() and np.all(profile > 0.0)):
                continue
            found[name] = _placed(self._draw(profile, position, drift, rho), gain)
        return found

    def _draw(self, profile: np.ndarray, position: int | None, drift: float, rho: np.ndarray) -> list[ScheduleNull]:
        """Draws in batches that fit into memory: histories are as long as the run."""
        at_once = max(1, _ENTRIES // len(profile) ** 2)
        rng = np.random.default_rng(self.seed)
        return [
            schedule_null(
                profile,
                window=self.window,
                p_eff=self.p_eff,
                position=position,
                coherence=drift,
                row_correlation=rho,
                n_draws=min(at_once, self.n_draws - start),
                rng=rng,
            )
            for start in range(0, self.n_draws, at_once)
        ]


def _placed(parts: list[ScheduleNull], gain: float) -> NullPhases:
    n = sum(part.n_draws for part in parts)
    hits = round(sum(part.rate * part.n_draws for part in parts))
    low, high = clopper_pearson(hits, n)
    gains = np.concatenate([part.gain for part in parts])
    gains = np.where(np.isfinite(gains), gains, np.inf)  # a draw without a number counts against the finding
    return NullPhases(
        rate=hits / n,
        low=float(low),
        high=float(high),
        two_breaks=sum(part.two_breaks * part.n_draws for part in parts) / n,
        p_value=float((1.0 + np.sum(gains >= gain)) / (1.0 + n)),
        informative=hits / n <= UNINFORMATIVE,
        n_draws=n,
    )
