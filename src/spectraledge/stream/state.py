"""A monitor's state as one safetensors file: numbers in its header, the ring as tensors. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file as save_tensors

from ..errors import DataError, OutputError

_KEY = "spectraledge_monitor"


def pack(
    state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header of the file."""
    return {name: t.detach().contiguous() for name, t in tensors.items()}, {_KEY: json.dumps(dict(state))}


def unpack(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """The state that ``pack`` was given, with its ring."""
    return {**json.loads(metadata[_KEY]), "ring": dict(tensors)}


def save_file(path: str | os.PathLike[str], tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write to a temporary name in the same folder, sync, rename.

    Raises:
        OutputError: If the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, temporary, metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path} must be writable; got {error}. Choose another folder.") from error


def load_file(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header of a saved monitor.

    Raises:
        DataError: If there is no such file, or it is damaged or not a saved monitor.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise DataError(f"{path} must be a state saved by monitor.save; it is another safetensors file.")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} must be a state saved by monitor.save; {error}.") from error
