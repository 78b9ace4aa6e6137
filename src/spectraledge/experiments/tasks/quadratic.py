"""A quadratic loss whose Hessian and gradient noise are known: the experiment with an answer to everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..models.quadratic import ParameterVector
from ..settings import QuadraticSettings
from .base import Experiment
from .quadratic_world import QuadraticWorld, quadratic_world
from .streams import OwnBatches

LossFunction = Callable[[nn.Module], Tensor]


class QuadraticTask(OwnBatches):
    """Loss (theta - c)^T H (theta - c) / 2 + <xi, theta>, so that the gradient is H (theta - c) + xi exactly.

    Args:
        settings: Hessian, optima and noise.
        stream: Which of the run's independent noises; 0 is the run's own.
    """

    def __init__(self, settings: QuadraticSettings, stream: int = 0) -> None:
        self._settings, self._dtype = settings, getattr(torch, settings.dtype)
        self.world: QuadraticWorld = quadratic_world(settings)
        self._curvatures = self._tensor(self.world.curvatures)
        self._modes = None if settings.basis == "identity" else self._tensor(self.world.modes)
        self._optimum, self._val_optimum = self._tensor(self.world.optimum), self._tensor(self.world.val_optimum)
        self._noise_scale = np.sqrt(self.world.noise_variance)
        self._start_batches(settings.seed, stream)

    def draw(self) -> Tensor | None:
        """Gradient noise xi (n) of the next step; None, with nothing drawn, where there is no noise."""
        if not self._settings.noise:
            return None
        along = self._noise_scale * self._rng.standard_normal(len(self._noise_scale))
        return self._tensor(along if self._modes is None else self.world.modes @ along)

    def loss(self, model: nn.Module, batch: Tensor | None) -> Tensor:
        """Training loss with the noise of one step."""
        theta = model()
        full = self._full(theta, self._optimum)
        return full if batch is None else full + batch @ theta

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """``train_loss`` and ``test_loss`` without noise, the second of the validation optimum."""
        train, val = self.probe_losses()
        with torch.no_grad():
            return {"train_loss": float(train(model)), "test_loss": float(val(model))}

    def probe_losses(self) -> tuple[LossFunction, LossFunction]:
        """Training and validation loss without noise, as functions of the model; they draw nothing."""
        return (
            lambda model: self._full(model(), self._optimum),
            lambda model: self._full(model(), self._val_optimum),
        )

    def _full(self, theta: Tensor, optimum: Tensor) -> Tensor:
        away = theta - optimum
        along = away if self._modes is None else away @ self._modes
        return 0.5 * (self._curvatures * along**2).sum()

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self._dtype)


def quadratic_experiment(settings: QuadraticSettings) -> Experiment:
    """Parameters and task of one quadratic run; everything is drawn by generators of its own."""
    task = QuadraticTask(settings)
    pieces = (torch.from_numpy(values) for values in (task.world.start, task.world.second_moments))
    start, second_moments = pieces
    return Experiment(ParameterVector(start, settings.tensors, second_moments), task)
