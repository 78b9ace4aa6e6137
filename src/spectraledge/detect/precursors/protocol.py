"""How rules are made and judged: thresholds from runs without the event, every seed judged by the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from ...theory.bootstrap import cluster_bootstrap
from ...theory.proportions import DetectorTable, detector_table
from ...theory.thresholds import tune_threshold
from ..leads import summarise_leads
from .rules import Judging, first_alarms
from .runs import PrecursorRun, events_of

TracesFor = Callable[[np.ndarray], np.ndarray]
"""Of the indices of the training runs, the (n, T) traces of all runs: what was learned may depend on the former."""


@dataclass(frozen=True)
class Leads:
    """How long before the event alarms came, over runs with the event.

    Attributes:
        median: Of event minus alarm [steps], a run without alarm being censored below (Kaplan-Meier); NaN where fewer
            than half of the runs alarmed.
        low: Lower end of its 95 % interval: bootstrap over seeds, all runs of a seed together.
        high: Upper end.
        share: Median of the same over the step of the event, runs without alarm counting as the lowest.
    """

    median: float
    low: float
    high: float
    share: float


@dataclass(frozen=True, eq=False)
class Verdict:
    """What first alarms do on some runs.

    Attributes:
        alarms: (n) steps; NaN for none.
        hits: (n) in runs with the event: an alarm at least one snapshot before it.
        table: Sensitivity and false-alarm rate, with Clopper-Pearson intervals.
        leads: Of runs with the event.
        cells: Of each cell: alarms that count (hits or false alarms), and runs.
    """

    alarms: np.ndarray
    hits: np.ndarray
    table: DetectorTable
    leads: Leads
    cells: dict[str, tuple[int, int]]


def fit_threshold(runs: Sequence[PrecursorRun], traces: np.ndarray, judging: Judging) -> float:
    """Smallest threshold that new runs without the event pass with a probability of at most ``false_alarm_rate``.

    Of n runs without the event k pass it, and a new run of their kind does with probability (k + 1) / (n + 1): k is
    the largest number for which that is within the rate, and 0 where none is, as for every n below 19 at 5 %. To let
    5 % of these very runs pass would let more of others pass. Source: order statistics (standard result).

    Raises:
        DataError: If there is no run of one kind.
    """
    positive = np.isfinite(events_of(runs))
    if positive.all() or not positive.any():
        raise DataError(
            f"a threshold takes runs with the event and runs without; got {int(positive.sum())} and "
            f"{int((~positive).sum())}. Add placebos, or wait for more runs."
        )
    n = int(np.sum(~positive))
    allowed = max(0, math.floor(judging.false_alarm_rate * (n + 1) + 1e-9) - 1)
    return tune_threshold(traces.max(axis=1), positive, (allowed + 0.5) / n)


def held_out_alarms(
    runs: Sequence[PrecursorRun], traces_for: TracesFor, judging: Judging
) -> tuple[np.ndarray, np.ndarray]:
    """First alarms of each run by a rule learned on the runs of all other seeds.

    Seeds whose others are of one kind only, as while runs are still coming in, are left out.

    Returns:
        (m) indices of the runs judged, and (m) steps of their alarms.

    Raises:
        DataError: If no seed can be left out.
    """
    seeds, positive = np.array([run.seed for run in runs]), np.isfinite(events_of(runs))
    indices, alarms = [], []
    for seed in np.unique(seeds).tolist():
        train, out = np.flatnonzero(seeds != seed), np.flatnonzero(seeds == seed)
        if not positive[train].any() or positive[train].all():
            continue
        traces = traces_for(train)
        threshold = fit_threshold([runs[i] for i in train.tolist()], traces[train], judging)
        indices.append(out)
        alarms.append(first_alarms([runs[i] for i in out.tolist()], traces[out], threshold))
    if not indices:
        raise DataError(
            f"leaving out a seed takes two seeds with runs of both kinds; got seeds {sorted(set(seeds.tolist()))}. "
            "Wait for more runs."
        )
    order = np.argsort(np.concatenate(indices), kind="stable")
    return np.concatenate(indices)[order], np.concatenate(alarms)[order]


def judge(
    runs: Sequence[PrecursorRun], alarms: np.ndarray, *, n_boot: int = 0, rng: np.random.Generator | None = None
) -> Verdict:
    """Count what first alarms are worth.

    An alarm of a run with the event counts from one snapshot before it on; at the event or after it is a miss. Every
    alarm of a run without the event is a false one.

    Args:
        runs: n.
        alarms: (n) steps; NaN for none.
        n_boot: Resamples of seeds behind the interval of the median lead; 0 leaves it out.
        rng: Of these.
    """
    events = events_of(runs)
    positive = np.isfinite(events)
    spacing = np.array([_spacing(run) for run in runs])
    fired = np.where(positive, alarms + spacing <= events, np.isfinite(alarms))
    counted = np.where(positive & ~fired, np.nan, alarms)
    cells: dict[str, tuple[int, int]] = {}
    for run, hit in zip(runs, fired.tolist()):
        k, n = cells.get(run.cell, (0, 0))
        cells[run.cell] = (k + int(hit), n + 1)
    return Verdict(
        alarms, fired, detector_table(fired, positive), _leads(runs, counted, positive, n_boot, rng), cells
    )


def _spacing(run: PrecursorRun) -> float:
    steps = run.history.steps
    return float(steps[-1] - steps[-2]) if len(steps) > 1 else 1.0


def _leads(
    runs: Sequence[PrecursorRun],
    counted: np.ndarray,
    positive: np.ndarray,
    n_boot: int,
    rng: np.random.Generator | None,
) -> Leads:
    nothing = float("nan")
    if not positive.any():
        return Leads(nothing, nothing, nothing, nothing)
    events = events_of(runs)[positive]
    alarms = counted[positive]
    median = median_lead(alarms, events)
    share = np.where(np.isnan(alarms), -np.inf, (events - alarms) / events)
    low = high = nothing
    seeds = np.array([run.seed for run in runs])[positive]
    groups = [np.flatnonzero(seeds == seed) for seed in np.unique(seeds)]
    if n_boot and rng is not None and len(groups) > 1 and np.isfinite(median):

        def statistic(drawn: list[np.ndarray]) -> float:
            index = np.concatenate(drawn)
            return median_lead(alarms[index], events[index])

        found = cluster_bootstrap(statistic, groups, n_boot=n_boot, rng=rng)
        low, high = float(found.low), float(found.high)
    middle = float(np.median(share))
    return Leads(median, low, high, middle if np.isfinite(middle) else nothing)


def median_lead(alarms: np.ndarray, events: np.ndarray) -> float:
    """Median of event minus alarm [steps]; a run without an alarm that counts is only known to have none before 0.

    >>> median_lead(np.array([100.0, 200.0, np.nan]), np.array([400.0, 300.0, 500.0]))
    100.0
    """
    # A miss ends at the event itself: an alarm after it is as good as none.
    return summarise_leads(alarms, events, events).median
