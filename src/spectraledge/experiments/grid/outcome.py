"""What became of the runs of a grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from .cells import Cell

State = Literal["finished", "failed", "killed", "stopped"]
FINISHED: Final = "finished"
FAILED: Final = "failed"
KILLED: Final = "killed"
STOPPED: Final = "stopped"


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        folder: Name of its folder.
        state: "finished"; "failed", by an error of its own; "killed", by a signal; or "stopped", where the grid was
            ended before it.
        reason: One sentence, where it is not finished.
        seconds: That its process took in this grid; 0 where it had been finished before.
        found: It had been finished before.
        restarts: Times it was started again after a signal had killed it.
    """

    folder: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    found: bool = False
    restarts: int = 0


@dataclass(frozen=True)
class GridResult:
    """A grid that has come to its end.

    Attributes:
        name: Of the grid.
        out: Its folder.
        engine: "local", "ray" or "dask".
        jobs: Runs at once.
        seconds: That it took.
        cells: Its runs, in order.
        outcomes: One for each.
        commands: The command line that repeats each; empty where its settings cannot be.
        rebuilds: Times that the pool of workers broke and was built again.
    """

    name: str
    out: Path
    engine: str
    jobs: int
    seconds: float
    cells: tuple[Cell, ...]
    outcomes: tuple[Outcome, ...]
    commands: tuple[str, ...]
    rebuilds: int = 0

    @property
    def finished(self) -> list[Outcome]:
        """Those that have finished, now or before."""
        return [outcome for outcome in self.outcomes if outcome.state == FINISHED]

    @property
    def unfinished(self) -> list[Outcome]:
        """All others."""
        return [outcome for outcome in self.outcomes if outcome.state != FINISHED]

    @property
    def sentence(self) -> str:
        """How many finished, and what to do about the others."""
        n, missing = len(self.outcomes), self.unfinished
        if not missing:
            return f"all {n} runs of {self.name} finished"
        first = missing[0]
        return (
            f"{n - len(missing)} of {n} runs of {self.name} finished; {first.folder} {first.state}: "
            f"{first.reason.rstrip('.')}. The same command goes on with the others."
        )

    def as_dict(self) -> dict[str, Any]:
        """Content of ``grid.json``."""
        rows = [
            {
                "folder": cell.folder,
                "experiment": cell.experiment,
                "arm": cell.arm,
                "seed": cell.seed,
                **{key: value for key, value in asdict(outcome).items() if key != "folder"},
                "command": command,
            }
            for cell, outcome, command in zip(self.cells, self.outcomes, self.commands, strict=True)
        ]
        return {
            "name": self.name,
            "engine": self.engine,
            "jobs": self.jobs,
            "seconds": round(self.seconds, 1),
            "rebuilds": self.rebuilds,
            "cells": rows,
        }
