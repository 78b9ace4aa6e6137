"""Small files of a run folder, written so that a kill leaves the old one or the new one, not a half."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from ..errors import DataError, OutputError


def write_json(path: Path, table: dict[str, Any]) -> None:
    """Write ``table`` to a temporary name beside ``path``, flush it to disk and rename it.

    Raises:
        OutputError: If the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(table, file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path} must be writable; got {error.strerror or error}. Free space there or choose another out=."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DataError: If the file cannot be read or holds something else.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} must be readable JSON; got {error}. Restore it or start in another folder."
        ) from error
    if not isinstance(table, dict):
        raise DataError(f"{path} must hold a JSON object; got {type(table).__name__}. Start in another folder.")
    return table


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where the system offers it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def environment(threads: int) -> dict[str, Any]:
    """What the last bits of a run depend on besides its settings: versions, processor, threads."""
    import numpy
    import torch

    from .. import __version__

    return {
        "spectraledge": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": threads,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
