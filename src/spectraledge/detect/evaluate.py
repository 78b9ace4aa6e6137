"""Which signal announces an event, at which false-alarm rate, and whether it does so better than cheap ones.

Everything that has a choice (the side that counts, thresholds, the clock's step) is chosen on training seeds and
judged on others; runs are compared at matched time; units are runs, never windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from .evaluation import Area, Evaluation, SignalResult
from .findings import compare, sentences
from .judging import LEADS, Judged, World, judge_signal
from .leads import Timing, timing
from .matched import areas
from .signals import SIGNALS, first_judged, signal_traces
from .subjects import Subject, evaluation_interval, make_split
from .traces import Trace


def evaluate(
    subjects: Sequence[Subject],
    *,
    train_seeds: Sequence[int] | Literal["each"] = (42,),
    window: int = 10,
    n_boot: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Rank all signals by how well they tell runs that will have the event from runs that never do.

    Score of a pair: both runs are looked at up to the event of the one that has it, less a margin; detectors and
    onsets by their largest value so far, levels by their present one. Alarm: first value beyond the threshold, which
    is the lowest one with at most 5 % (10 %) false alarms among training runs without the event, up to the latest
    training event. An alarm counts if it comes before the event; in a held-out run without the event it is false
    up to the latest held-out event. Detectors, published onsets and the published decline are heard from the start,
    other signals from the first row that a detector can judge.

    Args:
        subjects: Runs with and without the event.
        train_seeds: As in ``make_split``.
        window: W.
        n_boot: Resamples of runs.
        seed: Of the resamples.
        progress: Called with runs read, runs, name.

    Returns:
        The evaluation. Source: derived; signals of kind "author" arXiv:2603.28964 and the author's scripts.

    Raises:
        DataError: If all runs or none have the event.
    """
    split = make_split(subjects, train_seeds)
    tables: list[dict[str, Trace]] = []
    for i, subject in enumerate(subjects):
        tables.append(signal_traces(subject.recording, window=window))
        if progress is not None:
            progress(i + 1, len(subjects), subject.name)
    world = World(
        subjects,
        split.folds,
        np.array([np.nan if s.event_step is None else s.event_step for s in subjects], dtype=np.float64),
        np.array([float(s.recording.steps[-1]) for s in subjects]),
        np.array([first_judged(s.recording, window) for s in subjects]),
        evaluation_interval(subjects),
    )
    world.check()
    judged: list[Judged] = []
    unavailable: dict[str, str] = {}
    for spec in SIGNALS.values():
        traces = [table.get(spec.name) for table in tables]
        one = judge_signal(spec, traces, world)
        if one is None:
            unavailable[spec.name] = _reason(traces)
        else:
            judged.append(one)
    results = _results(judged, world, n_boot, seed)
    results.sort(key=lambda r: -np.inf if np.isnan(r.auc.value) else r.auc.value, reverse=True)
    shares = {one.spec.name: one.shares for one in judged}
    compared = (compare(shares, before, n_boot, seed) for before in (0, 1))
    names = [tuple(tuple(subjects[i].name for i in side) for side in sides) for sides in zip(*world.sides)]
    out = Evaluation(
        split,
        names[0],
        names[1],
        int(np.isfinite(world.events[world.held_out]).sum()),
        world.groups(),
        world.interval,
        tuple(results),
        unavailable,
        tuple(c for c in compared if c is not None),
    )
    return Evaluation(**{**vars(out), "sentences": tuple(sentences(out))})


def _results(judged: Sequence[Judged], world: World, n_boot: int, seed: int) -> list[SignalResult]:
    """Intervals of all areas from the same resamples of runs."""
    groups = list(world.groups())
    member = {g: np.array([s.group == g for s in world.subjects], dtype=bool) for g in groups}
    stack: list[np.ndarray] = []
    keys: list[tuple[str, int | str]] = []
    for one in judged:
        for k in LEADS:
            keys.append((one.spec.name, k))
            stack.append(one.shares[k])
        for g in groups:
            keys.append((one.spec.name, g))
            stack.append(np.where(member[g][None, :], one.shares[0], np.nan))
    found = areas(np.stack(stack), n_boot=n_boot, rng=np.random.default_rng(seed))
    table = {
        key: Area(float(v), float(low), float(high), int(np.isfinite(s).sum()))
        for key, v, low, high, s in zip(keys, found.value, found.low, found.high, stack)
    }
    return [
        SignalResult(
            one.spec.name,
            one.spec.kind,
            one.spec.outcome,
            _side(one.signs),
            table[one.spec.name, 0],
            {k: table[one.spec.name, k] for k in LEADS if k},
            {g: table[one.spec.name, g] for g in groups},
            one.train_auc,
            one.operating,
            _timing(one, world, seed, len(judged)),
            one.missing,
        )
        for one in judged
    ]


def _side(signs: Sequence[float]) -> str:
    if len(set(signs)) > 1:
        return "mixed"
    return "high" if signs[0] > 0 else "low"


def _timing(one: Judged, world: World, seed: int, n_signals: int) -> Timing:
    known = np.isfinite(one.expected)
    return timing(
        one.expected[known],
        one.clock[known],
        world.events[known],
        one.n_alarms,
        rng=np.random.default_rng(seed),
        level=1.0 - 0.05 / n_signals,
    )


def _reason(traces: Sequence[Trace | None]) -> str:
    missing = sum(trace is None for trace in traces)
    if missing == len(traces):
        return "recorded in none of the runs"
    return f"not recorded in {missing} of {len(traces)} runs, among them all that one side of the split needs"
