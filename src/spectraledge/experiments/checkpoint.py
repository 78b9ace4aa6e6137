"""Checkpoints of a catalogued run: everything an exact continuation needs, in a folder that appears at once.

``step-00001000/`` holds ``model.safetensors``, ``training.pt`` (optimizers and torch's generator, read back
with ``weights_only=True``), the monitor's own file, and ``state.json`` with the position, the task's
generator and the checksum of everything. Nothing here is unpickled as code.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from torch.optim import Optimizer

from ..errors import DataError, OutputError
from .files import sync_folder, write_json

KEEP = 2
MONITOR = "monitor.safetensors"
_VERSION = 1


class Stateful(Protocol):
    """What a checkpoint asks of the monitor."""

    def save(self, path: Path) -> object:
        """Write the monitor's state, ring included."""
        ...


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    monitor: Stateful,
    state: dict[str, Any],
    keep: int = KEEP,
) -> Path:
    """Write one checkpoint under a temporary name, rename it, and drop all but the newest ``keep``.

    Args:
        folder: The run's ``checkpoints`` folder; made where missing.
        step: Optimizer steps done.
        model: Its parameters and buffers.
        optimizers: Their state, in order.
        monitor: Writes its own file.
        state: Position and generators, as values that JSON can hold.
        keep: Checkpoints to keep.

    Raises:
        OutputError: If the folder cannot be written.
    """
    target, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_model(model, str(temporary / "model.safetensors"))
        # Through memory, so that a full disk is an OSError and not one of torch's RuntimeErrors.
        buffer = io.BytesIO()
        states = [optimizer.state_dict() for optimizer in optimizers]
        torch.save({"optimizers": states, "torch_rng": torch.get_rng_state()}, buffer)
        (temporary / "training.pt").write_bytes(buffer.getbuffer())
        monitor.save(temporary / MONITOR)
        sums = {path.name: _checksum(path) for path in sorted(temporary.iterdir())}
        table = {"version": _VERSION, "step": step, "files": sums, "state": state}
        write_json(temporary / "state.json", {**table, "crc32": _own_checksum(table)})
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        sync_folder(folder)
        for old in checkpoint_folders(folder)[:-keep]:
            shutil.rmtree(old)
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{folder} must be writable for checkpoints; got {error}. Free space there or choose another out=."
        ) from error
    return target


def checkpoint_folders(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def newest_valid(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there with the right checksums; None where there is none."""
    for path in reversed(checkpoint_folders(folder)):
        try:
            read_state(path)
        except DataError:
            continue
        return path
    return None


def drop_after(folder: Path, step: int) -> None:
    """Remove checkpoints later than ``step``: found damaged, they must not count among the newest."""
    for path in checkpoint_folders(folder):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)


def read_state(path: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint, every other file checked against it.

    Raises:
        DataError: If a file is missing, damaged, or of another version.
    """
    try:
        table = json.loads((path / "state.json").read_text())
        sums = table["files"]
        whole = (
            table["version"] == _VERSION
            and table.pop("crc32") == _own_checksum(table)
            and all(_checksum(path / Path(name).name) == sums[name] for name in sums)
        )
        state = {"step": int(table["step"]), **table["state"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} must hold a whole checkpoint; got {error}. Resume from an older one.") from error
    if not whole:
        raise DataError(f"{path} must match its checksums; got a file that does not. Resume from an older one.")
    return state


def load_training(path: Path, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Put back the model, the optimizers and torch's default generator.

    Raises:
        DataError: If the files do not fit the model or the optimizers.
    """
    try:
        load_model(model, str(path / "model.safetensors"))
        training = torch.load(path / "training.pt", weights_only=True)
        for optimizer, state in zip(optimizers, training["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        torch.set_rng_state(training["torch_rng"])
    except Exception as error:  # torch and safetensors raise their own kinds, pickle's among them
        raise DataError(
            f"{path} must fit the run's model and optimizers; got {type(error).__name__}: {error}. "
            "Resume with the settings in config.json."
        ) from error


def _own_checksum(table: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(table, sort_keys=True).encode()):08x}"


def _checksum(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"
