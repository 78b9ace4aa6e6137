"""All rows of a series of checkpoints on disk: part by part, finished ones kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from .groups import Part
from .parallel import Abandoned, Workers, do_parts
from .plan import Choices, Plan, dependencies, fitting_workers, make_plan
from .resume import Partial, Say
from .rows import Sums
from .scan import Member, Scan, Unreadable, scan
from .series import Series
from .write import Segment

Progress = Callable[[int, int, str], None]


def compute(series: Series, choices: Choices, partial: Partial, told: Told) -> tuple[Scan, list[Segment]]:
    """All rows. A checkpoint that fails only when its weights are read is struck out and the work begins again, as
    some of its products may have been added already."""
    bad: dict[int, str] = {}
    while True:
        scanned = scan(series, choices.params, bad, strict=choices.strict)
        try:
            return scanned, _segments(scanned, choices, partial, told)
        except Unreadable as error:
            if choices.strict:
                raise error.reason from error
            bad[error.index] = str(error)


def _segments(scanned: Scan, choices: Choices, partial: Partial, told: Told) -> list[Segment]:
    plans = [make_plan(stretch, choices) for stretch in scanned.stretches]
    workers = fitting_workers(plans, choices)
    partial.begin(dependencies(plans), told.say)
    tick = Ticker(sum(plan.n_readings for plan in plans), told.progress)
    try:
        return [_segment(number, plan, workers, partial, tick) for number, plan in enumerate(plans)]
    finally:
        tick.stop()


def _segment(stretch: int, plan: Plan, workers: Workers, partial: Partial, tick: Ticker) -> Segment:
    done: dict[int, Sums] = {}
    due: list[tuple[int, Part]] = []
    for number, part in enumerate(plan.parts):
        kept = partial.sums(stretch, number)
        if kept is None:
            due.append((number, part))
        else:
            done[number] = kept
            tick.skip(len(part.tiles) * len(plan.job.members))
    if plan.job.updates:
        with closing(do_parts(plan.job, due, workers, tick)) as results:
            for number, sums in results:
                partial.keep(stretch, number, sums)
                done[number] = sums
    total = Sums.zeros(len(plan.job.updates), len(plan.blocks.names), plan.job.lags)
    for number, part in enumerate(plan.parts):  # in one order, whichever got done first
        if plan.job.updates:
            total.add(part.columns, done[number])
    return Segment(plan.stretch, plan.structure, plan.blocks, plan.tied, plan.job.updates, total)


class Ticker:
    """Counts readings from several threads for one progress display."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done, self._stopped = total, progress, 0, False
        self._lock = threading.Lock()

    def skip(self, n: int) -> None:
        """What need not be read."""
        self._done += n

    def stop(self) -> None:
        """No more calls: threads that are still at work end at their next one."""
        with self._lock:
            self._stopped = True

    def __call__(self, member: Member) -> None:
        with self._lock:
            if self._stopped:
                raise Abandoned
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total, member.name)


@dataclass(frozen=True)
class Told:
    """Whom to tell: how far the work is, and in sentences what is about to happen."""

    progress: Progress | None
    say: Say
