"""Collapses of the gap at k* compared with matched collapses at other cuts, for one metric of one run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..recording import Recording
from ..theory.event_study import EventStudy, event_study
from ..theory.maximality import progress_change
from .timeline import metric_at, rises_with_skill
from .verdict import LEVEL, Outcome

FEWEST_EVENTS = 5
"""Matched collapses at k* below which nothing is said."""


@dataclass(frozen=True, eq=False)
class CutStudy:
    """Collapses at k* against others, for one outcome.

    Attributes:
        outcome: Metric.
        found: Matched comparison; ``effect`` in the unit of the metric.
        smallest_p: Least p-value that renaming the cuts can give: one over the number of distinct renamings of
            the positions that k* took at events. With one run and one position of k* it is 1 / (W - 1).
        status: ``compared``, or why not.
        verdict: On "collapses at k* do more harm than others".
    """

    outcome: str
    found: EventStudy
    smallest_p: float
    status: str
    verdict: Outcome

    def summary(self) -> dict[str, Any]:
        """Plain types."""
        found = self.found
        return {
            "outcome": self.outcome,
            "effect": found.effect,
            "p_value": found.p_value,
            "smallest_p": self.smallest_p,
            "n_events": found.n_events,
            "n_unmatched": found.n_unmatched,
            "n_other": found.n_other,
            "imbalance_level": float(found.imbalance[0]),
            "imbalance_time": float(found.imbalance[1]),
            "status": self.status,
            "verdict": self.verdict,
        }


def study_cuts(
    recording: Recording,
    name: str,
    events: np.ndarray,
    before: np.ndarray,
    sigma: np.ndarray,
    steps: np.ndarray,
    horizon: int,
    n_permutations: int,
    seed: int,
) -> CutStudy:
    """Matched comparison of collapses at k* with others, for one metric.

    Args:
        recording: With the metric.
        name: Of the metric.
        events: (N, W-1) collapses.
        before: (N) k* of the window W rows before; 0 where there is none.
        sigma: (N, W) singular values.
        steps: (N) optimizer steps of the windows.
        horizon: In windows.
        n_permutations: Renamings of the cuts.
        seed: Of these.

    Returns:
        The comparison and its verdict. Source: derived.
    """
    change = progress_change(metric_at(recording, name, steps), horizon)
    found = event_study(
        events,
        change,
        before,
        sigma[:, :-1],
        np.asarray(steps, dtype=np.float64),
        n_permutations=n_permutations,
        rng=np.random.default_rng(seed),
    )
    usable = events.any(axis=1) & np.isfinite(change) & (before > 0)
    positions = len(np.unique(before[usable]))
    smallest = 1.0 / math.perm(events.shape[1], positions) if positions else float("nan")
    status, verdict = "compared", maximality_verdict(found, smallest, rises_with_skill(name))
    if found.n_events < FEWEST_EVENTS:
        status = (
            f"too few events: {found.n_events} of {found.n_events + found.n_unmatched} collapses at k* have matches "
            f"of like strength and time, {FEWEST_EVENTS} are needed"
        )
    elif smallest > LEVEL:
        status = f"too few positions of k*: no p-value can be below {smallest:.2g}; more runs are needed"
    return CutStudy(name, found, smallest, status, verdict)


def maximality_verdict(found: EventStudy, smallest_p: float, rises: bool) -> Outcome:
    """The word on "collapses at k* do more harm than others"; see :func:`maximality`.

    Args:
        found: The comparison.
        smallest_p: Least p-value that it could give.
        rises: Whether more of the outcome is better.
    """
    if found.n_events < FEWEST_EVENTS or not smallest_p <= LEVEL or not np.isfinite(found.p_value):
        return "not identifiable"
    harm = -found.effect if rises else found.effect
    if harm > 0.0:
        return "supported" if found.p_value <= LEVEL else "compatible"
    return "contradicted" if found.p_value <= LEVEL else "not identifiable"
