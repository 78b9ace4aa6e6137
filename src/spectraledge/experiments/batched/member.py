"""One run of a batch: what it is built from, what it records, and its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._attach import attach
from ..baselines import Baselines
from ..files import environment, write_json
from ..folder import CONFIG, ENVIRONMENT, FINISHED, clear
from ..loop import Position, capability, due, reason_to_stop
from ..optimizers import build_optimizers
from ..probing import ProbeSettings, build_probe
from ..session import build_experiment, own_torch
from ..settings import TrainingSettings

if TYPE_CHECKING:
    from ...recording import Recording


class Member:
    """A run that is trained together with others.

    Built as ``run`` builds it: the same initialisation, data, batches and ``config.json``.

    Args:
        name: The experiment's name.
        settings: Its settings.
        config: Content of ``config.json``.
        out: The run's folder, or None for memory only.
    """

    def __init__(self, name: str, settings: TrainingSettings, config: dict[str, Any], out: Path | None) -> None:
        self.settings, self.config, self.out = settings, config, out
        with own_torch(settings):
            self.experiment = build_experiment(name, settings)
            self.optimizers = build_optimizers(self.experiment.model, settings, self.experiment.outer)
        self.position = Position()
        self._started = time.monotonic()
        self._closed = False

    def open(self, *, overwrite: bool, together: int) -> None:
        """Attach the monitor and begin the folder.

        Args:
            overwrite: The folder may hold a run to be replaced.
            together: Models of the batch; in the recording's header, since the last bits of a batched run are
                its own.
        """
        probing: dict[str, Any] = {}
        if "probe" in self.config:
            chosen = ProbeSettings(**self.config["probe"])
            probe = build_probe(chosen, self.experiment, self.settings)
            probing = {"probe": probe, "probe_every": chosen.every}
        self._together = together
        self._monitor = attach(
            self.experiment.model,
            self.optimizers,
            **self.config["monitor"],
            **probing,
            out=self.out,
            overwrite=overwrite,
            on_error="raise",
            metadata={
                **{key: self.config[key] for key in ("experiment", "settings", "command")},
                "batched": together,
            },
        )
        if self.out is not None:
            clear(self.out)
            write_json(self.out / CONFIG, self.config)
            write_json(self.out / ENVIRONMENT, environment(self.settings.threads))
        self._baselines = Baselines(self.experiment, self.settings)

    @property
    def evaluation_due(self) -> bool:
        """Whether the step just made is one to evaluate."""
        return due(self.position.step, self.settings.eval_every)

    def after_step(self, step: int) -> None:
        """Take note of a step just made; to be called before it is asked whether an evaluation is due."""
        self.position.step = step

    def log(self, loss: float, norm: float, evaluated: Mapping[str, float] | None) -> dict[str, float] | None:
        """Record what belongs to the step just made, as the training loop does, and see whether to stop.

        Args:
            loss: Of the batch; not read where nothing was evaluated.
            norm: Of the gradient before clipping; not read where nothing was evaluated.
            evaluated: Metrics, where an evaluation was due.

        Returns:
            All metrics of an evaluation.
        """
        step = self.position.step
        spectra = self._baselines.spectra(step)
        if spectra:
            self._monitor.log_weights(spectra)
        measured: dict[str, Any] = dict(self._baselines.measure(step))
        metrics: dict[str, Any] | None = None
        if evaluated is not None:
            metrics = {**evaluated, **measured}
            self.position.history.append((step, capability(metrics)))
            metrics |= {
                "batch_loss": loss,
                "grad_norm": norm,
                "lr": float(self.optimizers[0].param_groups[0]["lr"]),
            }
            self._monitor.log(**metrics)
        elif measured:
            self._monitor.log(**measured)
        self.position.reason = reason_to_stop(self.position, self.settings)
        return metrics

    def close(self) -> None:
        """Take the hooks off and close the recording; the folder of a run that has ended then says so.

        Safe to call twice.
        """
        if self._closed:
            return
        self._closed = True
        self._monitor.detach()
        if self.out is not None and self.position.reason is not None:
            seconds = round(time.monotonic() - self._started, 3)
            table = {"step": self.position.step, "reason": self.position.reason, "seconds": seconds}
            write_json(self.out / FINISHED, {**table, "batched": self._together})

    @property
    def recording(self) -> Recording:
        """What was recorded."""
        return self._monitor.recording
