"""What a grid will cost, measured before anything is trained."""

from __future__ import annotations

import heapq
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, SettingError
from .cells import Cell
from .folders import child_environment, is_finished
from .named import chosen_cells

# What differs between runs of which a step takes equally long.
_SAME_PACE = {"seed", "steps", "weight_decay", "labels", "stop_after_grok"}


@dataclass(frozen=True)
class KindCost:
    """Cost of the runs of one kind.

    Attributes:
        experiment: Its name.
        example: Folder of the run that was measured.
        runs: Not finished yet.
        steps: Of all of them, at most.
        seconds_a_step: Median of 20, snapshots included.
        seconds_an_evaluation: On training and test set, spectra of the weights included.
        seconds: Of all of them one after another, at most.
        memory_bytes: Of one of them, the ring full.
        recording_bytes: Of all of them, at most.
        checkpoint_bytes: Of one of them, until it has finished.
    """

    experiment: str
    example: str
    runs: int
    steps: int
    seconds_a_step: float
    seconds_an_evaluation: float
    seconds: float
    memory_bytes: int
    recording_bytes: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class Cost:
    """Cost of a grid; at most, since a run that groks stops early.

    Attributes:
        name: Of the grid.
        jobs: Runs at once.
        runs: In all.
        finished: Of these, finished before.
        kinds: By kind of run.
        seconds: Of the grid, ``jobs`` at once, each as fast as the measured one alone.
        memory_bytes: Of the ``jobs`` largest.
        disk_bytes: Of all recordings, and of the checkpoints of the ``jobs`` largest.
        refused: Runs whose settings cannot be, with the sentence.
    """

    name: str
    jobs: int
    runs: int
    finished: int
    kinds: tuple[KindCost, ...]
    seconds: float
    memory_bytes: int
    disk_bytes: int
    refused: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def kind_of(config: Mapping[str, Any]) -> str:
    """What runs have in common of which a step takes equally long."""
    settings = {key: value for key, value in config["settings"].items() if key not in _SAME_PACE}
    return json.dumps([config["experiment"], settings, config["monitor"], config.get("probe")], sort_keys=True)


def plan_grid(
    grid: str | Sequence[Cell],
    out: str | os.PathLike[str] | None = None,
    *,
    jobs: int = 1,
    settings: Mapping[str, object] | None = None,
    only: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Cost:
    """Measure 20 steps of each kind of run, one kind after another, and say what the grid would cost.

    Args:
        grid: A name of ``GRIDS``, or cells.
        out: Folder of the grid; what has finished there costs nothing.
        jobs: Runs at once.
        settings: Of all runs, over those of the grid.
        only: Pattern of the folders that are meant.
        progress: Called as ``progress(kinds measured, kinds)``.

    Raises:
        SettingError: If the grid is unknown, or no run of it has settings that can be.
        DataError: If a run cannot be measured; its own words are told.
    """
    if jobs < 1:
        raise SettingError(f"jobs must be at least 1; got {jobs}. Use the number of this machine's cores.")
    name, cells = chosen_cells(grid, settings, only)
    kinds: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
    refused: dict[str, str] = {}
    finished = 0
    for cell in cells:
        try:
            config = cell.configure()[1]
        except SettingError as error:
            refused[cell.folder] = str(error)
            continue
        if out is not None and is_finished(Path(out) / cell.folder, config):
            finished += 1
        else:
            kinds.setdefault(kind_of(config), []).append((cell, config))
    if len(refused) == len(cells):
        raise SettingError(next(iter(refused.values())))
    costs, runs = [], list[dict[str, float]]()
    for done, members in enumerate(kinds.values()):
        if progress is not None:
            progress(done, len(kinds))
        cost, each = _kind_cost(members)
        costs.append(cost)
        runs += each
    if progress is not None:
        progress(len(kinds), len(kinds))
    return Cost(
        name=name,
        jobs=jobs,
        runs=len(cells),
        finished=finished,
        kinds=tuple(costs),
        seconds=time_of([run["seconds"] for run in runs], jobs),
        memory_bytes=_largest(runs, "memory_bytes", jobs),
        disk_bytes=_largest(runs, "recording_bytes", len(runs)) + _largest(runs, "checkpoint_bytes", jobs),
        refused=refused,
    )


def time_of(seconds: Sequence[float], jobs: int) -> float:
    """Time of runs taken in order by whichever of ``jobs`` workers is free first.

    Example:
        >>> time_of([3.0, 1.0, 1.0, 1.0], 2)
        3.0
    """
    free = [0.0] * jobs
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _kind_cost(members: Sequence[tuple[Cell, dict[str, Any]]]) -> tuple[KindCost, list[dict[str, float]]]:
    """Cost of one kind, and of each of its runs: those of other lengths in proportion."""
    cell, config = members[0]
    found = _measured(config)
    each = []
    for _, other in members:
        ratio = other["settings"]["steps"] / config["settings"]["steps"]
        each.append(found | {key: ratio * found[key] for key in ("seconds", "recording_bytes")})
    return KindCost(
        experiment=cell.experiment,
        example=cell.folder,
        runs=len(members),
        steps=sum(int(other["settings"]["steps"]) for _, other in members),
        seconds_a_step=found["seconds_a_step"],
        seconds_an_evaluation=found["seconds_an_evaluation"],
        seconds=sum(run["seconds"] for run in each),
        memory_bytes=int(found["memory_bytes"]),
        recording_bytes=_largest(each, "recording_bytes", len(each)),
        checkpoint_bytes=int(found["checkpoint_bytes"]),
    ), each


def _measured(config: Mapping[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "spectraledge.experiments.grid.measure"],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        env=child_environment(int(config["settings"]["threads"])),
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode} without a word"])[-1]
        raise DataError(
            f"20 steps of {config['experiment']} must run to be measured; got: {last} "
            f"Start it alone: {config['command']}."
        )
    return json.loads(done.stdout)


def _largest(runs: Sequence[Mapping[str, float]], key: str, count: int) -> int:
    return int(sum(sorted((run[key] for run in runs), reverse=True)[:count]))
