"""All candidates and baselines through one protocol on development runs, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .combination import COMBINATIONS, Hazard, fit_hazard, hazard_traces, readings_of
from .criterion import Entry, choose
from .protocol import TracesFor, fit_threshold, held_out_alarms, judge
from .rules import FORMS, Form, Judging, Rule, first_alarms, form_traces, moving_rows, series_of
from .runs import PrecursorRun, events_of
from .statistics import STATISTICS, Group


@dataclass(frozen=True, eq=False)
class Search:
    """What development runs say.

    Attributes:
        runs: In order.
        judging: What all rules have in common.
        entries: By name, in the order of the list.
        winner: Name of the chosen candidate.
        best_baseline: Name of the baseline chosen by the same criterion among those that read no held-out data.
        unavailable: Statistics that the recordings do not hold.
    """

    runs: list[PrecursorRun]
    judging: Judging
    entries: dict[str, Entry]
    winner: str
    best_baseline: str
    unavailable: list[str] = field(default_factory=list)


def search(
    runs: Sequence[PrecursorRun],
    judging: Judging | None = None,
    *,
    statistics: Sequence[str] | None = None,
    combinations: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Search:
    """Judge every statistic in every form on development runs, and choose.

    Args:
        runs: With the event and without, of at least two seeds.
        judging: What all rules have in common.
        statistics: Names; all where None.
        combinations: Whether to try combinations as well.
        progress: Called as ``progress(done, total)``.

    Raises:
        DataError: If runs are of one kind or one seed, or no candidate or baseline is available.
    """
    judging = judging or Judging()
    runs = list(runs)
    names = list(STATISTICS if statistics is None else statistics)
    total = len(names) + (len(COMBINATIONS) if combinations else 0)
    entries: dict[str, Entry] = {}
    unavailable: list[str] = []
    for done, name in enumerate(names, start=1):
        found = _entries_of(name, runs, judging)
        entries |= {entry.rule.name: entry for entry in found}
        if not found:
            unavailable.append(name)
        if progress is not None:
            progress(done, total)
    for done, name in enumerate(COMBINATIONS if combinations else (), start=len(names) + 1):
        entry = _combined(name, runs, judging)
        if entry is None:
            unavailable.append(name)
        else:
            entries[entry.rule.name] = entry
        if progress is not None:
            progress(done, total)
    return Search(
        runs,
        judging,
        entries,
        choose([e for e in entries.values() if e.group == "candidate"], judging),
        choose([e for e in entries.values() if e.group == "baseline"], judging),
        unavailable,
    )


def _entries_of(name: str, runs: list[PrecursorRun], judging: Judging) -> list[Entry]:
    statistic = STATISTICS[name]
    series = [series_of(run, statistic) for run in runs]
    forms: tuple[Form, ...] = ("high",) if name == "fixed clock" else FORMS
    found = []
    for form in forms:
        moving = [moving_rows(run, statistic, form, judging) for run in runs]
        traces = form_traces(runs, series, form, judging, signed=statistic.signed, moving=moving)
        if traces is None or not np.isfinite(traces).any():
            continue
        found.append(_entry(name, form, statistic.group, runs, traces, _fixed(traces), judging))
    return found


def _fixed(traces: np.ndarray) -> TracesFor:
    return lambda train: traces


def _combined(name: str, runs: list[PrecursorRun], judging: Judging) -> Entry | None:
    readings = COMBINATIONS[name]
    values: list[np.ndarray] = []
    for run in runs:
        x = readings_of(run, readings, judging)
        if x is None:
            return None
        values.append(x)

    def learned(train: np.ndarray) -> Hazard:
        chosen = train.tolist()
        return fit_hazard(readings, [runs[i] for i in chosen], [values[i] for i in chosen], judging)

    hazard = learned(np.arange(len(runs)))
    traces = hazard_traces(hazard, runs, values, judging)
    return _entry(
        name,
        "high",
        "candidate",
        runs,
        traces,
        lambda train: hazard_traces(learned(train), runs, values, judging),
        judging,
        hazard,
    )


def _entry(
    name: str,
    form: Form,
    group: Group,
    runs: list[PrecursorRun],
    traces: np.ndarray,
    traces_for: TracesFor,
    judging: Judging,
    hazard: Hazard | None = None,
) -> Entry:
    threshold = fit_threshold(runs, traces, judging)
    indices, alarms = held_out_alarms(runs, traces_for, judging)
    judged = [runs[i] for i in indices.tolist()]
    held_out = judge(judged, alarms)
    first = judging.burn_in + judging.sustain - 1
    at_start = sum(
        bool(hit and run.event is not None and alarm <= run.history.steps[min(first, len(run.history.steps) - 1)])
        for run, hit, alarm in zip(judged, held_out.hits.tolist(), alarms.tolist())
    )
    return Entry(
        Rule(name, form, threshold),
        group,
        judge(runs, first_alarms(runs, traces, threshold)),
        held_out,
        traces,
        at_start,
        int(np.sum(~np.isfinite(traces).any(axis=1))),
        hazard,
    )


def matched_area(runs: Sequence[PrecursorRun], traces: np.ndarray, margin: float) -> float:
    """Area under the ROC at matched time: largest value by ``event - margin``, pair by pair.

    A run with the event is compared with each run without it, both looked at up to the same step, so that no length
    helps. NaN where no pair had been judged by then. Source: as ``detect.matched``.

    Args:
        runs: n.
        traces: (n, T), -inf where nothing is judged.
        margin: Steps before the event.
    """
    events = events_of(runs)
    negative = np.flatnonzero(np.isnan(events)).tolist()
    shares = []
    for i in np.flatnonzero(np.isfinite(events)).tolist():
        cut = events[i] - margin
        own = _largest(runs[i], traces[i], cut)
        if not np.isfinite(own):
            continue
        for j in negative:
            other = _largest(runs[j], traces[j], cut)
            shares.append(1.0 if own > other else 0.5 if own == other else 0.0)
    return float(np.mean(shares)) if shares else float("nan")


def _largest(run: PrecursorRun, trace: np.ndarray, cut: float) -> float:
    seen = trace[: int(np.searchsorted(run.history.steps, cut, side="right"))]
    return float(seen.max()) if len(seen) else -np.inf
