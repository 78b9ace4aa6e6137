"""Run a grid: each run in its own process under a worker of a pool, a broken pool built again."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import SettingError, SpectralEdgeError
from ..files import write_json
from ..sentences import nearest
from .cells import Cell
from .cost import kind_of
from .folders import complaint, is_finished, make_folder, to_be_replaced
from .named import chosen_cells
from .outcome import FAILED, FINISHED, STOPPED, GridResult, Outcome
from .pools import POOLS, Submit
from .watch import GridState, Watch, Watched
from .worker import Task

ENGINES = tuple(POOLS)
GRID = "grid.json"
_REBUILDS = 3  # in a row, without any run ending in between


def run_grid(
    grid: str | Sequence[Cell],
    out: str | os.PathLike[str],
    *,
    jobs: int = 1,
    engine: str = "local",
    address: str | None = None,
    settings: Mapping[str, object] | None = None,
    only: str | None = None,
    overwrite: bool = False,
    checkpoint_every: int | None = None,
    progress: Callable[[GridState], object] | None = None,
) -> GridResult:
    """Run every cell of a grid that has not finished in ``out``, and say what became of each.

    A run is a process of its own, started by a worker and ended with it; a folder has one writer at a time. A run
    that fails or is killed does not stop the others. A killed one is started once more, and a pool whose worker was
    killed is built again; such runs go on from their newest checkpoints. Recordings do not depend on the engine,
    the number of jobs or the order: each run has the number of threads that its settings record.

    Args:
        grid: A name of ``GRIDS``, or cells.
        out: Folder of the grid; each run gets ``out/FOLDER``, and ``out/grid.json`` says what became of all. With
            workers on other machines, on a file system that all of them see.
        jobs: Runs at once. A Dask cluster uses all its workers, whatever is said here.
        engine: "local" (processes of this machine), "ray" or "dask"; a script that uses the last needs its
            ``__main__`` guard.
        address: Of a running Ray or Dask cluster; one of ``jobs`` processes on this machine is started where None.
        settings: Of all runs, over those of the grid; text is accepted as from a command line.
        only: Pattern of the folders that are run, such as "add-*-42"; all where None.
        overwrite: Replace runs that were made with other settings. Finished ones with these settings stay.
        checkpoint_every: As for ``run``.
        progress: Called with the state of the grid about once a second, from another thread.

    Returns:
        What became of each run; nothing is raised for a run that failed.

    Raises:
        SettingError: If the grid or engine is unknown, or no run of it has settings that can be.
        OutputError: If ``out`` cannot be written.
        MissingDependencyError: If the engine's library is not installed.
        KeyboardInterrupt: If the user interrupted; the runs have been ended, and go on next time.
    """
    if jobs < 1:
        raise SettingError(f"jobs must be at least 1; got {jobs}. Use the number of this machine's cores.")
    if engine not in POOLS:
        raise SettingError(f"engine must be one of {', '.join(POOLS)}; got {engine}. {nearest(engine, POOLS)}")
    name, cells = chosen_cells(grid, settings, only)
    folder = Path(out).absolute()
    configs, outcomes = _configure(cells)
    make_folder(folder)
    for cell, config in zip(cells, configs):
        if config is not None:
            _look(folder / cell.folder, config, overwrite, outcomes)
    tasks = [
        Task(str(folder / cell.folder), config, overwrite, checkpoint_every, os.getcwd(), os.getpid())
        for cell, config in zip(cells, configs)
        if config is not None and cell.folder not in outcomes
    ]
    watched = [
        Watched(folder / cell.folder, int(config["settings"]["steps"]), kind_of(config))
        for cell, config in zip(cells, configs)
        if config is not None
    ]
    started, rebuilds, ended = time.monotonic(), 0, False
    try:
        with Watch(watched, outcomes, jobs, progress):
            rebuilds = _run(tasks, outcomes, engine, jobs, address) if tasks else 0
        ended = True
    finally:
        why = "left out when the pool of workers broke" if ended else "the grid was ended first"
        result = GridResult(
            name,
            folder,
            engine,
            jobs,
            time.monotonic() - started,
            tuple(cells),
            tuple(outcomes.get(cell.folder) or Outcome(cell.folder, STOPPED, why) for cell in cells),
            tuple(_command(config, folder / cell.folder) for cell, config in zip(cells, configs)),
            rebuilds,
        )
        write_json(folder / GRID, result.as_dict())
    return result


def _configure(cells: Sequence[Cell]) -> tuple[list[dict[str, Any] | None], dict[str, Outcome]]:
    """Content of each ``config.json``; None, and an outcome, for a run whose settings cannot be."""
    configs: list[dict[str, Any] | None] = []
    outcomes: dict[str, Outcome] = {}
    first: SpectralEdgeError | None = None
    for cell in cells:
        try:
            configs.append(cell.configure()[1])
        except SpectralEdgeError as error:
            first = first or error
            configs.append(None)
            outcomes[cell.folder] = Outcome(cell.folder, FAILED, str(error))
    if first is not None and len(outcomes) == len(cells):
        raise first
    return configs, outcomes


def _look(folder: Path, config: dict[str, Any], overwrite: bool, outcomes: dict[str, Outcome]) -> None:
    """Note a run that need not be started, or must not be."""
    if is_finished(folder, config):
        outcomes[folder.name] = Outcome(folder.name, FINISHED, found=True)
    elif not overwrite and to_be_replaced(folder, config):
        outcomes[folder.name] = Outcome(folder.name, FAILED, complaint(folder, config))


def _run(tasks: Sequence[Task], outcomes: dict[str, Outcome], engine: str, jobs: int, address: str | None) -> int:
    """Run all tasks; returns how often the pool was built again."""
    rebuilds = fruitless = 0
    while True:
        with POOLS[engine](jobs, address) as submit:
            # Workers are built again first; where that does not help, the cluster that they belong to.
            while True:
                before = len(outcomes)
                broken = _attempt(tasks, outcomes, submit)
                if broken is None:
                    return rebuilds
                fruitless = fruitless + 1 if len(outcomes) == before else 1
                if fruitless > _REBUILDS:
                    words = f"the pool of workers broke {fruitless} times in a row: {broken}"
                    for task in tasks:
                        outcomes.setdefault(task.name, Outcome(task.name, STOPPED, words))
                    return rebuilds
                rebuilds += 1
                if fruitless > 1:
                    break


def _attempt(tasks: Sequence[Task], outcomes: dict[str, Outcome], submit: Submit) -> str | None:
    """Run what has not ended; the error, in words, where the pool broke before all had."""
    due = [task for task in tasks if task.name not in outcomes]
    broken = "a worker returned nothing"
    try:
        for outcome in submit(due):
            outcomes[outcome.folder] = outcome
    except Exception as error:  # a run raises nothing: it is the pool, whose kinds of errors are many
        broken = " ".join(f"{type(error).__name__}: {error}".split())
    for task in due:
        if task.name not in outcomes and is_finished(Path(task.folder), dict(task.config)):
            outcomes[task.name] = Outcome(task.name, FINISHED)
    return None if all(task.name in outcomes for task in due) else broken


def _command(config: dict[str, Any] | None, folder: Path) -> str:
    return "" if config is None else f"{config['command']} --out {shlex.quote(str(folder))}"
