"""How far a grid has come, read from what its runs leave in their folders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from ..folder import FINISHED as FINISHED_FILE
from .folders import progress_of
from .outcome import FINISHED, Outcome


@dataclass(frozen=True)
class GridState:
    """A grid at one moment.

    Attributes:
        finished: Runs that have finished.
        failed: Runs that ended otherwise.
        running: Runs going on.
        total: Runs.
        steps_done: Optimizer steps done; a run that stopped early counts with all of its steps.
        steps: Optimizer steps of all runs, at most.
        seconds_left: At the speed so far, at most; None before there is one.
    """

    finished: int
    failed: int
    running: int
    total: int
    steps_done: int
    steps: int
    seconds_left: float | None

    @property
    def share(self) -> float:
        """Share of all steps done."""
        return self.steps_done / self.steps if self.steps else 1.0


@dataclass(frozen=True)
class Watched:
    """What the watch knows of a run.

    Attributes:
        folder: Of the run.
        steps: At most.
        kind: Runs of one kind take equally long for a step.
    """

    folder: Path
    steps: int
    kind: Hashable


def grid_state(
    runs: Sequence[Watched], outcomes: Mapping[str, Outcome], jobs: int, paces: dict[Hashable, float] | None = None
) -> GridState:
    """How far a grid has come.

    Args:
        runs: Those that can be run.
        outcomes: Those that have ended or cannot be run, by the names of their folders.
        jobs: Runs at once.
        paces: Seconds a step by kind of run, kept from one look to the next; filled here.
    """
    paces = {} if paces is None else paces
    done = running = 0
    seconds: dict[Hashable, list[float]] = {}
    left: list[tuple[int, Hashable]] = []
    for run in runs:
        if run.folder.name in outcomes or (run.folder / FINISHED_FILE).exists():
            done += run.steps
            continue
        step, pace = progress_of(run.folder)
        running += step > 0
        if pace > 0:
            seconds.setdefault(run.kind, []).append(pace)
        done += step
        left.append((run.steps - step, run.kind))
    paces |= {kind: mean(values) for kind, values in seconds.items()}
    states = [outcome.state == FINISHED for outcome in outcomes.values()]
    return GridState(
        finished=sum(states),
        failed=len(states) - sum(states),
        running=min(running, jobs),
        total=len({run.folder.name for run in runs} | outcomes.keys()),
        steps_done=done,
        steps=sum(run.steps for run in runs),
        seconds_left=_seconds_left(left, paces, jobs),
    )


def _seconds_left(left: Sequence[tuple[int, Hashable]], paces: Mapping[Hashable, float], jobs: int) -> float | None:
    if not left:
        return 0.0
    if not paces:
        return None
    usual = mean(paces.values())
    each = [steps * paces.get(kind, usual) for steps, kind in left]
    # No shorter than the longest of them.
    return max(sum(each) / jobs, max(each))


class Watch:
    """A thread that tells the state of a grid every second while the ``with`` block lasts.

    Args:
        runs: All of it.
        outcomes: Filled by the caller while the grid goes on.
        jobs: Runs at once.
        tell: Called with each state, in the watch's thread; nothing is watched where None.
        seconds: Between two looks.
    """

    def __init__(
        self,
        runs: Sequence[Watched],
        outcomes: Mapping[str, Outcome],
        jobs: int,
        tell: Callable[[GridState], object] | None,
        seconds: float = 1.0,
    ) -> None:
        self._arguments = (runs, outcomes, jobs)
        self._tell, self._seconds = tell, seconds
        self._paces: dict[Hashable, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        if self._tell is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._tell is not None:
            self._thread.join()
            self._tell(self._state())

    def _watch(self) -> None:
        assert self._tell is not None
        while not self._over.wait(self._seconds):
            self._tell(self._state())

    def _state(self) -> GridState:
        runs, outcomes, jobs = self._arguments
        return grid_state(runs, dict(outcomes), jobs, self._paces)
