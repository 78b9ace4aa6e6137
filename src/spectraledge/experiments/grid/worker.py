"""What a worker of a grid does: start one run's process, wait for it, and say what became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .folders import LOG, child_environment, is_finished, make_folder
from .outcome import FAILED, FINISHED, KILLED, Outcome

# A run killed by anything else is started once more: the system's killer may have taken it for want of memory that
# is free again. These mean that someone wants it to end.
_ASKED_TO_END = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_RESTARTS = 1


@dataclass(frozen=True)
class Task:
    """One run as a worker gets it; can be pickled.

    Attributes:
        folder: Of the run, absolute: on another machine, of a file system that both see.
        config: Content of its ``config.json``.
        overwrite: A run of another configuration in the folder may be replaced.
        checkpoint_every: As for ``run``.
        directory: That relative paths among the settings start from.
        grid: Process number of the grid itself.
    """

    folder: str
    config: Mapping[str, Any]
    overwrite: bool
    checkpoint_every: int | None
    directory: str
    grid: int

    @property
    def name(self) -> str:
        """Of the folder, without those above."""
        return Path(self.folder).name


def run_cell(task: Task) -> Outcome:
    """Run one cell to its end; only an interrupt of this very process is raised."""
    started = time.monotonic()
    folder = Path(task.folder)
    restarts = 0
    while True:
        try:
            status, last = _run_child(task, folder)
        except Exception as error:
            return Outcome(task.name, FAILED, f"{type(error).__name__}: {error}", time.monotonic() - started)
        seconds = time.monotonic() - started
        if status >= 0 or -status in _ASKED_TO_END or restarts == _RESTARTS:
            break
        restarts += 1
    if status < 0:
        words = f"killed by signal {-status} ({_signal_name(-status)}); the end of {folder / LOG} may tell why"
        return Outcome(task.name, KILLED, words, seconds, restarts=restarts)
    if status == 0 and is_finished(folder, dict(task.config)):
        return Outcome(task.name, FINISHED, "", seconds, restarts=restarts)
    return Outcome(task.name, FAILED, last or f"exit status {status} without a word", seconds, restarts=restarts)


def _run_child(task: Task, folder: Path) -> tuple[int, str]:
    """Exit status of the run's process (minus the signal where one killed it), and the last line it wrote."""
    make_folder(folder)
    with (folder / LOG).open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "spectraledge.experiments.grid.child", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=task.directory if os.path.isdir(task.directory) else None,
            env=child_environment(int(task.config["settings"]["threads"])),
        )
        try:
            assert process.stdin is not None
            content = {
                "config": task.config,
                "overwrite": task.overwrite,
                "checkpoint_every": task.checkpoint_every,
            }
            try:
                process.stdin.write(json.dumps(content).encode())
                process.stdin.close()
            except BrokenPipeError:
                pass  # it died at once; its status says how
            status = _wait(process, task.grid)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    with (folder / LOG).open("rb") as log:
        log.seek(begin)
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return status, last.removeprefix("spectraledge: ")


def _wait(process: subprocess.Popen[bytes], grid: int) -> int:
    """Wait for a run; where the grid that this worker belongs to dies, end the run and the worker."""
    parent = os.getppid()
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            # The grid's own process may lose its terminal and go on.
            if os.getpid() != grid and os.getppid() != parent:
                process.terminate()
                process.wait()
                os._exit(1)  # nobody is left to tell


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "of no name"
