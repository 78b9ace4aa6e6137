"""The runs that rules are made on, or judged on: which of them grok, and what their recordings were."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...recording import Recording, load
from ...recording.reader import recordings_at
from ..subjects import event_step
from .history import History


@dataclass(frozen=True, eq=False)
class PrecursorRun:
    """One run that is over.

    Attributes:
        name: Of its folder.
        cell: What it shares with runs of other seeds.
        seed: Its seed.
        event: First evaluation with test accuracy >= 0.95 [step]; None where it never came, or labels are random.
        end: Last step.
        digest: SHA-256 of its recording file; "" where it was not read from one.
        history: What candidates see.
    """

    name: str
    cell: str
    seed: int
    event: float | None
    end: float
    digest: str
    history: History


def load_runs(
    folder: str | Path,
    *,
    horizon: float,
    window: int = 10,
    refused: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[PrecursorRun], dict[str, str]]:
    """The runs of a folder that are over, by name, and why others are left out.

    Args:
        folder: A grid's, with one folder a run.
        horizon: Steps that a run without the event must have been followed for.
        window: W.
        refused: Seeds that must not be among them.
        progress: Called as ``progress(done, total)``.

    Raises:
        DataError: If there is no run, a recording says no seed, or a refused seed is there.
    """
    files = recordings_at(Path(folder))
    runs: list[PrecursorRun] = []
    left_out: dict[str, str] = {}
    for done, file in enumerate(files, start=1):
        recording = load(file)
        made = make_run(file.parent.name, recording, _settings(file, recording), _digest(file), horizon, window)
        if isinstance(made, str):
            left_out[file.parent.name] = made
        elif made.seed in refused:
            raise DataError(
                "runs to be judged must have other seeds than those that rules were made on; got "
                f"seed {made.seed} in {made.name}. Judge on seeds that had no part in the development."
            )
        else:
            runs.append(made)
        if progress is not None:
            progress(done, len(files))
    if not runs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise DataError(f"{folder} must hold a run that is over; got none ({reasons}). Wait for one.")
    return runs, left_out


def make_run(
    name: str, recording: Recording, settings: dict[str, Any], digest: str, horizon: float, window: int
) -> PrecursorRun | str:
    """The run, or the reason why it cannot be judged.

    Raises:
        DataError: If its settings name no seed.
    """
    if not recording.closed:
        return "not over"
    if settings.get("seed") is None:
        raise DataError(f"a run must say its seed; {name} does not. Write it to config.json or the recording's meta.")
    seed = int(settings["seed"])
    try:
        event = event_step(recording)
    except DataError:
        return "no test accuracy was logged"
    if settings.get("labels") == "shuffled":
        event = None
    if not recording.n_updates:
        return "nothing was recorded"
    end = float(recording.steps[-1])
    if event is None and end < horizon:
        return f"without the event, and followed for {end:.0f} of {horizon:.0f} steps only"
    if event is not None and event > end:
        return "the event comes after the last update"
    return PrecursorRun(name, name.removesuffix(f"-{seed}"), seed, event, end, digest, History(recording, window))


def events_of(runs: Sequence[PrecursorRun]) -> np.ndarray:
    """(n) steps of the events; NaN for none."""
    return np.array([np.nan if run.event is None else run.event for run in runs])


def _settings(file: Path, recording: Recording) -> dict[str, Any]:
    """Settings of the recording itself, or of the ``config.json`` beside it."""
    if isinstance(recording.meta.get("settings"), dict):
        return dict(recording.meta["settings"])
    try:
        table = json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = table.get("settings") if isinstance(table, dict) else None
    return found if isinstance(found, dict) else {}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
