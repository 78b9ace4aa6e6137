"""Runs to be judged: a recording, and what is known of how it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..detect.grok import GrokSteps, capability_series, grok_steps
from ..errors import DataError
from ..recording import Recording, load
from ..recording.reader import recordings_at

Arm = Literal["decay", "no-decay", "placebo", "unknown"]
RunSource = str | os.PathLike[str] | Recording


@dataclass(frozen=True, eq=False)
class Run:
    """One run.

    Attributes:
        name: Short and distinct among the runs judged together.
        recording: What it left.
        settings: The experiment's settings where a catalogued run says them; empty for anyone's run.
        experiment: Its name in the catalogue, or "".
    """

    name: str
    recording: Recording
    settings: dict[str, Any] = field(default_factory=dict)
    experiment: str = ""

    @property
    def family(self) -> str:
        """The experiment's name up to its variant: "modular", "dyck"."""
        return self.experiment.partition("/")[0]

    @property
    def arm(self) -> Arm:
        """What is known to be different: labels shuffled, no weight decay, or neither.

        A run that says nothing of its labels or its decay is "unknown"; its decay is then looked for in the
        optimizer's description.
        """
        if self.settings.get("labels") == "shuffled":
            return "placebo"
        decay = self.settings.get("weight_decay", _recorded_decay(self.recording))
        if decay is None:
            return "unknown"
        return "decay" if decay > 0 else "no-decay"

    @property
    def optimizer(self) -> str:
        """Name of the optimizer in lower case, or ""; of several, the first."""
        named = self.settings.get("optimizer")
        if named:
            return str(named)
        groups = _groups(self.recording)
        return str(groups[0].get("class", "")).lower() if groups else ""

    @property
    def seed(self) -> int | None:
        """Its seed, where known."""
        seed = self.settings.get("seed")
        return None if seed is None else int(seed)

    @cached_property
    def grok(self) -> GrokSteps | None:
        """Grok steps by every definition; None where no test accuracy was logged."""
        try:
            return grok_steps(*capability_series(self.recording.metrics))
        except DataError:
            return None

    @property
    def grok_step(self) -> float | None:
        """First evaluation at or above 0.95, the rule of arXiv:2603.28964's tables; None where never or unknown."""
        return None if self.grok is None else self.grok.first_095.step


def find_runs(sources: RunSource | Iterable[RunSource]) -> list[Run]:
    """Every run named, or found below a folder named.

    Args:
        sources: Recordings, run folders, recording files, or folders above run folders.

    Raises:
        DataError: If there is none, or one cannot be read.
    """
    listed = [sources] if isinstance(sources, (str, os.PathLike, Recording)) else list(sources)
    runs: list[Run] = []
    for source in listed:
        if isinstance(source, Recording):
            runs.append(make_run(f"run-{len(runs) + 1}", source))
            continue
        runs += [make_run(str(file.parent), load(file)) for file in recordings_at(Path(source))]
    if not runs:
        raise DataError("there must be a run to judge; got none. Name a run folder or one above it.")
    return _shortened(runs)


def make_run(name: str, recording: Recording) -> Run:
    """A run of a recording; settings from its own metadata, or from the ``config.json`` beside it."""
    meta = recording.meta
    settings, experiment = meta.get("settings"), meta.get("experiment")
    if not isinstance(settings, dict) and recording.path is not None:
        settings, experiment = _config(recording.path.parent / "config.json")
    return Run(name, recording, settings if isinstance(settings, dict) else {}, str(experiment or ""))


def _config(path: Path) -> tuple[Any, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    return (table.get("settings"), table.get("experiment")) if isinstance(table, dict) else (None, None)


def _shortened(runs: Sequence[Run]) -> list[Run]:
    """Names without the folders that all have in common."""
    parts = [Path(run.name).parts for run in runs]
    shared = 0
    while len(runs) > 1 and all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    names = [str(Path(*p[shared:])) if len(runs) > 1 else p[-1] for p in parts]
    return [Run(name, run.recording, run.settings, run.experiment) for name, run in zip(names, runs)]


def _groups(recording: Recording) -> list[dict[str, Any]]:
    """Parameter groups of the optimizers, as the last segment describes them."""
    segments = recording.meta.get("segments") or [{}]
    found = segments[-1].get("groups")
    return [group for group in found if isinstance(group, dict)] if isinstance(found, list) else []


def _recorded_decay(recording: Recording) -> float | None:
    decays = [
        group["weight_decay"] for group in _groups(recording) if isinstance(group.get("weight_decay"), int | float)
    ]
    return max(map(float, decays)) if decays else None
