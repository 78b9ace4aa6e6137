"""One signal: side and thresholds learned on training runs, pairs and alarms of the runs held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..theory.thresholds import tune_threshold
from .leads import OperatingRow, expected_steps, operating_row
from .matched import area, pair_shares
from .signals import CLOCK, SignalSpec
from .subjects import Fold, Subject, evaluation_interval
from .traces import Trace

FALSE_ALARM_RATES = (0.05, 0.10)
LEADS = (0, 1, 5, 10)
"""Evaluation intervals before the event at which areas are given."""


@dataclass(frozen=True, eq=False)
class World:
    """What is known of n runs, signal by signal the same."""

    subjects: Sequence[Subject]
    folds: tuple[Fold, ...]
    events: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    interval: float

    @property
    def sides(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(fold.train, fold.held_out) for fold in self.folds]

    @property
    def held_out(self) -> np.ndarray:
        return np.concatenate([fold.held_out for fold in self.folds])

    def kinds(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those with the event, and those without."""
        has = np.isfinite(self.events[indices])
        return indices[has], indices[~has]

    def group_of(self, indices: np.ndarray) -> list[str]:
        """Groups of some runs."""
        return [self.subjects[i].group for i in indices]

    def groups(self) -> dict[str, int]:
        """Held-out runs without the event, by group."""
        negative = self.group_of(self.kinds(self.held_out)[1])
        return {group: negative.count(group) for group in sorted(set(negative))}

    def check(self) -> None:
        late = [s.name for s, event, end in zip(self.subjects, self.events, self.ends) if event > end]
        if late:
            raise DataError(
                f"an event must lie within its run; that of {late[0]} comes after the last update. Record up to it."
            )


@dataclass(frozen=True, eq=False)
class Judged:
    """One signal before its intervals.

    Attributes:
        spec: The signal.
        signs: One a fold.
        shares: Evaluation intervals before the event to (n, n) held-out pairs.
        train_auc: Mean over folds.
        operating: Rows.
        expected: (n) expected steps of held-out runs with the event; NaN elsewhere.
        clock: (n) the same of the clock.
        n_alarms: Runs whose alarm was used for it.
        missing: Names of runs without the signal.
    """

    spec: SignalSpec
    signs: tuple[float, ...]
    shares: dict[int, np.ndarray]
    train_auc: float
    operating: tuple[OperatingRow, ...]
    expected: np.ndarray
    clock: np.ndarray
    n_alarms: int
    missing: tuple[str, ...]


def judge_signal(spec: SignalSpec, traces: Sequence[Trace | None], world: World) -> Judged | None:
    """None where the signal is not there on both sides of every fold, in runs of both kinds."""
    n = len(traces)
    there = np.array([t is not None for t in traces], dtype=bool)
    for side in (side for sides in world.sides for side in sides):
        if not all(there[kind].any() for kind in world.kinds(side)):
            return None
    signs: list[float] = []
    trained: list[float] = []
    shares = {k: np.full((n, n), np.nan) for k in LEADS}
    labels = [f"{100 * rate:g} %" for rate in FALSE_ALARM_RATES] + ["fixed"]
    thresholds: dict[str, list[float]] = {label: [] for label in labels}
    alarms = {label: np.full(n, np.nan) for label in labels}
    until, expected, clock = (np.full(n, np.nan) for _ in range(3))
    for fold in world.folds:
        positive, negative = world.kinds(fold.train)
        tells = area(_shares(traces, world, spec, 1.0, 0, positive, negative))
        sign = {"high": 1.0, "low": -1.0}.get(spec.direction, -1.0 if tells < 0.5 else 1.0)
        signs.append(sign)
        trained.append(area(_shares(traces, world, spec, sign, 0, positive, negative)))
        out_positive, out_negative = world.kinds(fold.held_out)
        for k in LEADS:
            found = _shares(traces, world, spec, sign, k, out_positive, out_negative)
            shares[k] = np.where(np.isnan(found), shares[k], found)
        until[out_negative] = world.events[out_positive].max()
        if spec.name == CLOCK:
            # It strikes in every run: there is no step that spares those without the event.
            learned = [float("inf")] * len(FALSE_ALARM_RATES)
        else:
            learned = [_tune(spec, traces, world, sign, positive, negative, rate) for rate in FALSE_ALARM_RATES]
        for label, threshold in zip(labels, [*learned, _fixed(spec, world, fold.train)]):
            if threshold is None:
                continue
            thresholds[label].append(threshold)
            alarms[label][fold.held_out] = _first(spec, traces, world, sign, threshold, fold.held_out)
        expected[out_positive], clock[out_positive] = expected_steps(
            alarms[labels[0]][out_positive],
            world.events[out_positive],
            world.group_of(out_positive),
            _first(spec, traces, world, sign, learned[0], positive),
            world.events[positive],
            world.group_of(positive),
        )
    held = world.held_out[there[world.held_out]]
    rows = tuple(
        operating_row(
            label, tuple(thresholds[label]), alarms[label][held], world.events[held], world.ends[held], until[held]
        )
        for label in labels
        if thresholds[label] and np.isfinite(thresholds[label]).any()
    )
    used = alarms[labels[0]] < world.events
    missing = tuple(s.name for s, t in zip(world.subjects, traces) if t is None)
    return Judged(
        spec, tuple(signs), shares, float(np.mean(trained)), rows, expected, clock, int(used.sum()), missing
    )


def _shares(
    traces: Sequence[Trace | None],
    world: World,
    spec: SignalSpec,
    sign: float,
    before: int,
    positive: np.ndarray,
    negative: np.ndarray,
) -> np.ndarray:
    margin = before * world.interval
    return pair_shares(
        traces, world.events, world.ends, spec, sign, margin=margin, positive=positive, negative=negative
    )


def _tune(
    spec: SignalSpec,
    traces: Sequence[Trace | None],
    world: World,
    sign: float,
    positive: np.ndarray,
    negative: np.ndarray,
    rate: float,
) -> float:
    """Lowest threshold with at most this share of false alarms up to the latest training event."""
    horizon = float(world.events[positive].max())
    scores, labels = [], []
    for i in (*positive, *negative):
        trace, event = traces[i], world.events[i]
        if trace is None:
            continue
        has = bool(np.isfinite(event))
        start = -np.inf if spec.from_start else world.starts[i]
        scores.append(trace.largest_between(start, event if has else horizon, sign, before=has))
        labels.append(has)
    return tune_threshold(scores, labels, rate)


def _fixed(spec: SignalSpec, world: World, train: np.ndarray) -> float | None:
    """The clock strikes one evaluation before the earliest training event."""
    if spec.name != CLOCK:
        return spec.fixed
    first = float(world.events[world.kinds(train)[0]].min())
    return first - evaluation_interval([world.subjects[i] for i in train])


def _first(
    spec: SignalSpec, traces: Sequence[Trace | None], world: World, sign: float, threshold: float, runs: np.ndarray
) -> np.ndarray:
    """(m) first alarms of some runs; NaN for none."""
    out = np.full(len(runs), np.nan)
    for k, i in enumerate(runs):
        trace = traces[i]
        if trace is not None:
            out[k] = trace.first_alarm(threshold, -np.inf if spec.from_start else world.starts[i], sign)
    return out
