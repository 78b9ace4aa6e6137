"""One fork of a run and its cells: copies that differ by one change, trained on with the same batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..theory import gap_position, gram_spectrum
from .intervene_design import CONTROLS, KINDS, Design
from .loop import Position, train
from .mixing import Mixer, parameters_like, window_directions
from .optimizers import build_optimizers

if TYPE_CHECKING:
    from ..stream.monitor import Monitor
    from .settings import TrainingSettings
    from .tasks.base import Experiment


class Fork:
    """One run at one time: what all its cells share."""

    def __init__(
        self,
        design: Design,
        settings: TrainingSettings,
        seed: int,
        time: int,
        experiment: Experiment,
        optimizers: Sequence[torch.optim.Optimizer],
        monitor: Monitor,
    ) -> None:
        self.design, self.seed, self.time, self.experiment = design, seed, time, experiment
        self.settings = settings.model_copy(update={"eval_every": design.evaluate_every, "stop_after_grok": None})
        self.states = [optimizer.state_dict() for optimizer in optimizers]
        self.task_state, self.torch_state = experiment.task.state(), torch.get_rng_state()
        self.sigma, self.directions, self.last_update = window_directions(monitor, design.window)
        self.k_star = int(gap_position(self.sigma)) if len(self.sigma) > 1 else 0
        self.limits = self._limits()

    def _copy(self) -> tuple[Any, list[Any], Mixer]:
        model = deepcopy(self.experiment.model)
        optimizers = build_optimizers(model, self.settings, self.experiment.outer)
        for optimizer, state in zip(optimizers, self.states, strict=True):
            # A copy: torch takes tensors of the right type over as they are, and cells would share buffers.
            optimizer.load_state_dict(deepcopy(state))
        parameters = parameters_like(model, self.last_update)
        mixer = Mixer(parameters, optimizers, self.directions, self.last_update, metric=self.design.metric)  # type: ignore[arg-type]
        return model, optimizers, mixer

    def _usable(self, position: int | str) -> bool:
        return isinstance(position, str) or position < len(self.directions)

    def _limits(self) -> dict[str, float]:
        """Largest norm, by kind, that every position of the design allows."""
        _, _, mixer = self._copy()
        usable = [position for position in self.design.positions if self._usable(position)]
        return {
            kind: min((mixer.largest_norm(kind, position) for position in usable), default=math.inf)  # type: ignore[arg-type]
            for kind in self.design.kinds
        }

    def run(self, kind: str, position: int | str, amount: float) -> dict[str, Any]:
        """Make the change on a copy, train the horizon, and say what came of it; the run is left as it was."""
        design, task = self.design, self.experiment.task
        limit = self.limits.get(kind, math.inf)
        row: dict[str, Any] = {
            "seed": self.seed,
            "time": self.time,
            "kind": kind,
            "position": position,
            "amount": amount,
            "limit": None if math.isinf(limit) else limit,
            "k_star": self.k_star,
            "sigma": self.sigma.tolist(),
        }
        if not self._usable(position):
            return {**row, "norm": None, "relative": None, "angle": None, "steps": []}
        model, optimizers, mixer = self._copy()
        # Its own stream by seed, time and cell, so that a resumed study draws what an uninterrupted one does.
        words = [self.seed, self.time, KINDS.index(kind), _word(position), round(amount * 1e6)]
        done = mixer.apply(kind, position, min(amount, limit), np.random.default_rng(words))  # type: ignore[arg-type]
        curves: list[dict[str, float]] = [{"step": self.time, **task.evaluate(model)}]
        snapshots = [_flat(model)]

        def after_step(at: Position) -> None:
            if (at.step - self.time) % design.every == 0 and len(snapshots) <= design.window:
                snapshots.append(_flat(model))
            if (at.step - self.time) % design.evaluate_every == 0 and curves[-1]["step"] != at.step:
                curves.append({"step": at.step, **task.evaluate(model)})
            if at.step == self.time + design.horizon:
                at.reason = "horizon"

        quiet = self.settings.model_copy(update={"eval_every": 10**9})
        task.load_state(self.task_state)
        torch.set_rng_state(self.torch_state)
        copied = replace(self.experiment, model=model)
        train(copied, optimizers, quiet, log=ignore, position=Position(self.time), after_step=after_step)
        task.load_state(self.task_state)
        torch.set_rng_state(self.torch_state)
        row |= {key: value for key, value in asdict(done).items() if key not in row}
        row["sigma_after"] = _sigma(snapshots) if len(snapshots) == design.window + 1 else None
        row["steps"] = [int(point.pop("step")) for point in curves]
        return row | {key: [_json(point[key]) for point in curves] for key in curves[0]}


def _word(position: int | str) -> int:
    """A cut as it is, controls above all cuts."""
    return position if isinstance(position, int) else 10_000 + CONTROLS.index(position)


def _flat(model: Any) -> Any:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def _sigma(snapshots: Sequence[Any]) -> list[float]:
    """Singular values of the updates between successive snapshots, descending [parameter]."""
    rows = [(b - a).double() for a, b in itertools.pairwise(snapshots)]
    gram = np.array([[float(x @ y) for y in rows] for x in rows])
    return gram_spectrum(gram).singular_values.tolist()


def _json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def ignore(**_: float) -> None:
    return None
