"""One run in progress: model, task, optimizers, monitor and folder, started afresh or from a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import torch

from .._attach import attach
from . import catalogue
from .baselines import Baselines
from .checkpoint import MONITOR, drop_after, load_training, newest_valid, read_state, save_checkpoint
from .files import environment, write_json
from .folder import CHECKPOINTS, CONFIG, ENVIRONMENT, FINISHED, clear
from .loop import Position, Progress, train
from .optimizers import build_optimizers
from .probing import ProbeSettings, build_probe
from .settings import TrainingSettings
from .tasks.base import Experiment

if TYPE_CHECKING:
    from ..recording import Recording

# Evaluations between checkpoints that nobody asked for: what a kill can cost.
_AUTOMATIC_EVALUATIONS = 10


@contextmanager
def own_torch(settings: TrainingSettings) -> Iterator[None]:
    """The run's threads, generator and defaults inside, the caller's again outside."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            torch.set_num_threads(settings.threads)
            torch.set_default_dtype(torch.float32)
            # Not torch.manual_seed, which would also reseed every accelerator of the process.
            torch.default_generator.manual_seed(settings.seed)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)


def build_experiment(name: str, settings: TrainingSettings) -> Experiment:
    """Model and task of a run at its first step; to be made inside `own_torch`."""
    with torch.device("cpu"):
        experiment = catalogue.entry(name).build(settings)
    # Drawn in float32 on the CPU and then widened and moved: the same weights everywhere.
    experiment.model.to(getattr(torch, settings.dtype)).to(settings.device)
    return experiment


class Session:
    """A run of one experiment; to be made and trained inside `own_torch`.

    Args:
        name: The experiment's name.
        settings: Its settings.
        config: Content of ``config.json``.
        out: The run's folder, or None for memory only.
        checkpoint_every: Steps between checkpoints; 0 for none, None for automatic ones.
    """

    def __init__(
        self,
        name: str,
        settings: TrainingSettings,
        config: dict[str, Any],
        out: Path | None,
        checkpoint_every: int | None,
    ) -> None:
        self.settings, self.config, self.out = settings, config, out
        self.automatic = checkpoint_every is None
        self.interval = settings.eval_every * _AUTOMATIC_EVALUATIONS if checkpoint_every is None else checkpoint_every
        self.experiment = build_experiment(name, settings)
        self.optimizers = build_optimizers(self.experiment.model, settings, self.experiment.outer)

    def train(self, *, going_on: bool, overwrite: bool, progress: Progress | None) -> Recording:
        """Train to the end and return the recording.

        Args:
            going_on: The folder holds a run of this configuration to be gone on with.
            overwrite: The folder may hold a run to be replaced.
            progress: As for `run`.
        """
        started = time.monotonic()
        checkpoint = newest_valid(self.out / CHECKPOINTS) if self.out is not None and going_on else None
        position = Position() if checkpoint is None else self._restore(checkpoint)
        monitor = attach(
            self.experiment.model,
            self.optimizers,
            **self.config["monitor"],
            **self._probing(),
            out=self.out,
            resume="never" if checkpoint is None else "auto",
            # SGD counts no steps of its own.
            step=None if checkpoint is None else position.step,
            # A run killed before its first checkpoint starts again.
            overwrite=overwrite or (going_on and checkpoint is None),
            # A catalogued run is for its recording: better stopped than finished without one.
            on_error="raise",
            metadata={key: self.config[key] for key in ("experiment", "settings", "command")},
        )
        with monitor:
            if checkpoint is not None:
                monitor.load(checkpoint / MONITOR)
                drop_after(checkpoint.parent, position.step)
            elif self.out is not None:
                clear(self.out)
                write_json(self.out / CONFIG, self.config)
                write_json(self.out / ENVIRONMENT, environment(self.settings.threads))
            baselines = Baselines(self.experiment, self.settings)

            def measure(step: int) -> dict[str, float]:
                spectra = baselines.spectra(step)
                if spectra:
                    monitor.log_weights(spectra)
                return baselines.measure(step)

            train(
                self.experiment,
                self.optimizers,
                self.settings,
                log=monitor.log,
                position=position,
                measure=measure,
                after_step=lambda position: self._checkpoint_if_due(position, monitor),
                progress=progress,
            )
        if self.out is not None:
            self._finish(self.out, position, time.monotonic() - started)
        return monitor.recording

    def _probing(self) -> dict[str, Any]:
        if "probe" not in self.config:
            return {}
        chosen = ProbeSettings(**self.config["probe"])
        return {"probe": build_probe(chosen, self.experiment, self.settings), "probe_every": chosen.every}

    def _restore(self, checkpoint: Path) -> Position:
        state = read_state(checkpoint)
        load_training(checkpoint, self.experiment.model, self.optimizers)
        self.experiment.task.load_state(state["task"])
        history = [(int(step), math.nan if y is None else float(y)) for step, y in state["history"]]
        return Position(int(state["step"]), history, state["reason"])

    def _checkpoint_if_due(self, position: Position, monitor: Any) -> None:
        last = position.reason is not None and not self.automatic
        if self.out is None or not self.interval or not (position.step % self.interval == 0 or last):
            return
        # JSON has no NaN.
        history = [[step, None if math.isnan(y) else y] for step, y in position.history]
        state = {"history": history, "reason": position.reason, "task": self.experiment.task.state()}
        model = self.experiment.model
        save_checkpoint(self.out / CHECKPOINTS, position.step, model, self.optimizers, monitor, state)

    def _finish(self, out: Path, position: Position, seconds: float) -> None:
        table = {"step": position.step, "reason": position.reason, "seconds": round(seconds, 3)}
        write_json(out / FINISHED, table)
        if self.automatic:
            rmtree(out / CHECKPOINTS, ignore_errors=True)
