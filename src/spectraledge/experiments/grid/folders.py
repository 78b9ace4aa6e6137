"""A cell's folder: its small files, and whether it holds a finished run, half a one, another one or nothing yet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...errors import OutputError, SpectralEdgeError
from ..files import read_json
from ..folder import CONFIG, FINISHED, RECORDING, check_folder

LOG = "run.log"  # also what a running child holds its lock on
PROGRESS = "progress.json"
WORKER = "SPECTRALEDGE_GRID_WORKER"  # environment of a child: process number of who started it


def is_finished(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds a finished run of this configuration; False where that cannot be told."""
    if not (folder / FINISHED).exists():
        return False
    try:
        return check_folder(folder, config, resume=True, overwrite=False)
    except SpectralEdgeError:
        return False


def to_be_replaced(folder: Path, config: dict[str, Any]) -> bool:
    """Whether what is there is no run that could be gone on with, but may be replaced only if asked for.

    Half a start of a grid's own (its log is there, its ``config.json`` is not yet) is not meant.
    """
    try:
        check_folder(folder, config, resume=True, overwrite=False)
    except SpectralEdgeError:
        return not is_half_started(folder)
    return False


def is_half_started(folder: Path) -> bool:
    """Whether a grid's run was killed here between the first line of its recording and its ``config.json``."""
    return (folder / RECORDING).exists() and (folder / LOG).exists() and not (folder / CONFIG).exists()


def complaint(folder: Path, config: dict[str, Any]) -> str:
    """The sentence that says why the folder cannot be gone on with."""
    try:
        check_folder(folder, config, resume=True, overwrite=False)
    except SpectralEdgeError as error:
        return str(error)
    return ""


def progress_of(folder: Path) -> tuple[int, float]:
    """Steps done and seconds a step of a run going on; (0, 0.0) where it has told nothing yet."""
    try:
        table = read_json(folder / PROGRESS)
        return int(table["step"]), float(table["seconds_a_step"])
    except (SpectralEdgeError, KeyError, TypeError, ValueError):
        return 0, 0.0


def make_folder(folder: Path) -> None:
    """Make a run's folder.

    Raises:
        OutputError: If it cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} must be a folder that can be written; got {error.strerror or error}. Choose another out."
        ) from error


def child_environment(threads: int) -> dict[str, str]:
    """Environment of a process whose sums are those of ``threads`` threads, and that ends with this one."""
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**os.environ, **counts, WORKER: str(os.getpid())}
