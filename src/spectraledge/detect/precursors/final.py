"""Frozen rules judged on runs that had no part in making them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ...errors import DataError
from ...theory.bootstrap import cluster_bootstrap
from .frozen import Frozen
from .protocol import Verdict, judge
from .rules import first_alarms
from .runs import PrecursorRun, events_of
from .search import matched_area
from .statistics import Group

MARGINS = (0.0, 500.0, 1000.0)  # steps before the event at which runs are compared at matched time


@dataclass(frozen=True, eq=False)
class Judged:
    """One frozen rule on final runs.

    Attributes:
        name: Statistic and form.
        group: "candidate", "baseline" or "outcome".
        threshold: As frozen.
        verdict: Sensitivity, false alarms, leads.
        areas: Areas under the ROC at matched time, by steps before the event.
        accuracy: (n) test accuracy last logged when the alarm came; NaN where none came. A rule reads nothing of it:
            it says whether the event was still to come, or under way.
    """

    name: str
    group: Group
    threshold: float
    verdict: Verdict
    areas: dict[float, float]
    accuracy: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The winner against one baseline on the same runs with the event.

    Attributes:
        baseline: Its name.
        only_winner: Runs that the winner alone found in time.
        only_baseline: Runs that the baseline alone found in time.
        p: McNemar's exact p, two-sided.
        warning: Mean difference of the time of warning [steps], a miss being a warning of 0.
        low: Lower end of its 95 % interval: bootstrap over seeds.
        high: Upper end.
    """

    baseline: str
    only_winner: int
    only_baseline: int
    p: float
    warning: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Final:
    """The outcome.

    Attributes:
        runs: Judged.
        judged: By rule, in the order of the frozen file.
        comparisons: Of the winner with each baseline.
        winner: Its name.
        unavailable: Rules that read what the recordings do not hold.
    """

    runs: list[PrecursorRun]
    judged: dict[str, Judged]
    comparisons: list[Comparison]
    winner: str
    unavailable: list[str]


def judge_final(frozen: Frozen, runs: Sequence[PrecursorRun], *, n_boot: int = 2000, seed: int = 0) -> Final:
    """Apply frozen rules as they are.

    Args:
        frozen: Rules.
        runs: Of other seeds than those that the rules were made on.
        n_boot: Resamples of seeds behind intervals.
        seed: Of these.

    Raises:
        DataError: If a run is of a development seed, or one kind of runs is missing.
    """
    for run in runs:
        if run.seed in frozen.seeds:
            raise DataError(
                f"runs to be judged must have other seeds than those that rules were made on; got seed {run.seed} in "
                f"{run.name}. Judge on seeds that had no part in the development."
            )
    positive = np.isfinite(events_of(runs))
    if positive.all() or not positive.any():
        raise DataError(
            f"judging takes runs with the event and runs without; got {int(positive.sum())} and "
            f"{int((~positive).sum())}. Add what is missing."
        )
    runs = list(runs)
    judged: dict[str, Judged] = {}
    unavailable: list[str] = []
    for name, one in frozen.rules.items():
        traces = one.traces(runs, frozen.judging)
        if traces is None:
            unavailable.append(name)
            continue
        alarms = first_alarms(runs, traces, one.rule.threshold)
        verdict = judge(runs, alarms, n_boot=n_boot, rng=np.random.default_rng(seed))
        areas = {margin: matched_area(runs, traces, margin) for margin in MARGINS}
        judged[name] = Judged(name, one.group, one.rule.threshold, verdict, areas, accuracy_at(runs, alarms))
    comparisons = [
        compare(runs, judged[frozen.winner], other, n_boot=n_boot, seed=seed)
        for other in judged.values()
        if other.group != "candidate" and frozen.winner in judged
    ]
    return Final(runs, judged, comparisons, frozen.winner, unavailable)


def accuracy_at(runs: Sequence[PrecursorRun], alarms: np.ndarray) -> np.ndarray:
    """(n) test accuracy last logged by each alarm; NaN where there is no alarm, or none was logged before it."""
    out = np.full(len(runs), np.nan)
    for i, (run, alarm) in enumerate(zip(runs, alarms.tolist())):
        accuracy = run.history.metric("test_accuracy")
        if accuracy is not None and np.isfinite(alarm):
            out[i] = accuracy[np.searchsorted(run.history.steps, alarm)]
    return out


def compare(
    runs: Sequence[PrecursorRun], winner: Judged, other: Judged, *, n_boot: int = 2000, seed: int = 0
) -> Comparison:
    """Run by run: who finds it, and who earlier. Source: standard results."""
    events = events_of(runs)
    positive = np.isfinite(events)
    mine, theirs = winner.verdict.hits[positive], other.verdict.hits[positive]
    alone, alone_theirs = int(np.sum(mine & ~theirs)), int(np.sum(theirs & ~mine))
    p = float(binomtest(alone, alone + alone_theirs).pvalue) if alone + alone_theirs else 1.0
    difference = _warnings(winner, events, positive) - _warnings(other, events, positive)
    seeds = np.array([run.seed for run in runs])[positive]
    groups: list[Any] = [difference[seeds == s] for s in np.unique(seeds)]
    low = high = float("nan")
    if n_boot and len(groups) > 1:
        found = cluster_bootstrap(
            lambda drawn: float(np.mean(np.concatenate(drawn))),
            groups,
            n_boot=n_boot,
            rng=np.random.default_rng(seed),
            interval="t",
        )
        low, high = float(found.low), float(found.high)
    return Comparison(other.name, alone, alone_theirs, p, float(np.mean(difference)), low, high)


def _warnings(one: Judged, events: np.ndarray, positive: np.ndarray) -> np.ndarray:
    return np.where(one.verdict.hits, events - one.verdict.alarms, 0.0)[positive]
