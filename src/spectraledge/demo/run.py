"""Run the two arms side by side, one process and one thread each, and report."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..errors import SpectralEdgeError
from ..experiments.config import configure
from ..recording import load
from ..reporting import figures, report
from .compare import summary
from .overview import save_overview

ARMS = {"grokking": "true", "placebo": "shuffled"}  # name to labels
SETTINGS = {"steps": 4400, "threads": 1}  # every seed of the published runs groks by 3,400; then 1,000 more


@dataclass(frozen=True)
class Demo:
    """What the demo leaves: two run folders, a page, the summary."""

    folders: dict[str, Path]
    page: Path
    summary: list[str]


@dataclass
class Progress:
    """State of one arm, for the display.

    Attributes:
        step: Last evaluated step.
        steps: Steps it may take.
        metrics: Last evaluation.
        started: Clock at the first message.
        first_step: Step of the first message: a resumed run does not begin at 0.
        finished: Whether the arm has ended.
    """

    step: int = 0
    steps: int = SETTINGS["steps"]
    metrics: dict[str, float] = field(default_factory=dict)
    started: float | None = None
    first_step: int = 0
    finished: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Expected remaining time; None before there is anything to tell it from."""
        if self.finished:
            return 0.0
        if self.started is None or self.step <= self.first_step:
            return None
        return (self.steps - self.step) * (time.monotonic() - self.started) / (self.step - self.first_step)


def demo(
    out: str | os.PathLike[str] = "demo",
    *,
    seed: int = 42,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    show: Callable[[dict[str, Progress]], Any] | None = None,
) -> Demo:
    """Train modular addition and its shuffled-label placebo in parallel, then write a report of both.

    Runs that are finished or half-done in ``out`` are taken up where they stand.

    Args:
        out: Folder; gets ``grokking/``, ``placebo/``, ``report.html``, ``overview.png``, ``summary.txt`` and
            ``figures/``.
        seed: Of both arms.
        overwrite: Start afresh.
        settings: Of both arms, over those of the demo: a smaller model, fewer steps.
        show: Called with the state of the arms whenever something has happened.

    Raises:
        SettingError: If ``out`` holds runs with other settings.
        OutputError: If ``out`` cannot be written.
    """
    out = Path(out)
    folders = {name: out / name for name in ARMS}
    chosen = {**SETTINGS, **(settings or {})}
    configure("modular/add", settings=chosen)  # a setting that cannot be is told before anything starts
    _run_arms(folders, seed, overwrite, chosen, show or (lambda state: None))
    recordings = {name: load(folder) for name, folder in folders.items()}
    lines = summary(recordings["grokking"], recordings["placebo"])
    page = report(list(folders.values()), out / "report.html", summary=lines)
    figures(list(folders.values()), out / "figures", formats=("png",))
    save_overview(recordings, out / "overview.png")
    (out / "summary.txt").write_text("\n".join(lines) + "\n")
    return Demo(folders, page, lines)


def _run_arms(
    folders: dict[str, Path],
    seed: int,
    overwrite: bool,
    settings: Mapping[str, Any],
    show: Callable[[dict[str, Progress]], Any],
) -> None:
    context = multiprocessing.get_context("spawn")
    state = {name: Progress() for name in ARMS}
    readers: dict[Connection, str] = {}
    processes = []
    for name, labels in ARMS.items():
        reader, writer = context.Pipe(duplex=False)
        chosen = {**settings, "labels": labels}
        process = context.Process(target=_arm, args=(writer, folders[name], chosen, seed, overwrite), daemon=True)
        process.start()
        writer.close()
        readers[reader] = name
        processes.append(process)
    failure: BaseException | None = None
    try:
        while readers and failure is None:
            for ready in wait(list(readers), timeout=0.5):
                assert isinstance(ready, Connection)
                name = readers[ready]
                try:
                    message = ready.recv()
                except EOFError:
                    del readers[ready]
                    if not state[name].finished:
                        failure = RuntimeError(f"the {name} run died; start the demo again and it goes on from there")
                    continue
                if isinstance(message, BaseException):
                    failure = message
                else:
                    _note(state[name], *message)
            show(state)
    finally:
        for process in processes:
            if failure is not None and process.is_alive():
                process.terminate()
            process.join()
    if failure is not None:
        raise failure


def _note(progress: Progress, step: int, steps: int, metrics: dict[str, float] | None) -> None:
    if metrics is None:
        progress.finished = True
        return
    if progress.started is None:
        progress.started, progress.first_step = time.monotonic(), step
    progress.step, progress.steps, progress.metrics = step, steps, metrics


def _arm(writer: Connection, folder: Path, settings: Mapping[str, Any], seed: int, overwrite: bool) -> None:
    """One arm, in a process of its own."""
    from ..experiments.run import run

    def send(step: int, steps: int, metrics: Any) -> None:
        writer.send((step, steps, dict(metrics)))

    try:
        run(
            "modular/add",
            seed=seed,
            out=folder,
            settings=settings,
            decay_products=True,
            resume=not overwrite,
            overwrite=overwrite,
            progress=send,
        )
        writer.send((0, 0, None))
    except SpectralEdgeError as error:
        writer.send(type(error)(str(error)))
