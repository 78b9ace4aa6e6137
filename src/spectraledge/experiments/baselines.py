"""What every run records beside its updates, so that a claim about updates can be held against cheaper signals.

Norms of parameters and updates are in the recording; losses, accuracies and the gradient norm are logged by the
loop. Here are the others: the commutator defect, the spectra of weight matrices and, on request, the sharpness.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from ..curvature import Objective, lanczos, undisturbed
from ..stream.weights import weight_spectra
from .loop import due
from .optimizers import hidden_matrices
from .settings import TrainingSettings
from .tasks.base import Experiment, Task

# Far from the streams that probes take: a batch of a measurement is drawn by no one else.
_DEFECT_STREAM = 10**9


class Baselines:
    """Measurements of one run; nothing of it is disturbed and no generator of it is used.

    Args:
        experiment: Model and task.
        settings: Which measurements are made, and when.
    """

    def __init__(self, experiment: Experiment, settings: TrainingSettings) -> None:
        self._model, self._task, self._settings = experiment.model, experiment.task, settings
        self._parameters = {name: p for name, p in experiment.model.named_parameters() if p.requires_grad}
        self._hidden = hidden_matrices(experiment.model, experiment.outer)
        every = settings.defect_every
        self._defect_every = settings.eval_every if every is None else every

    def measure(self, step: int) -> dict[str, float]:
        """Metrics that are due at ``step``: ``commutator_defect``, ``commutator_unit`` and ``hessian_top``."""
        found: dict[str, float] = {}
        if due(step, self._defect_every):
            with undisturbed(self._model, train=self._model.training):
                found |= self._commutator(step)
        if due(step, self._settings.sharpness_every):
            with undisturbed(self._model, train=self._model.training):
                found["hessian_top"] = self._sharpness()
        return found

    def spectra(self, step: int) -> dict[str, list[float]]:
        """Singular values of the hidden matrices, where an evaluation is due."""
        if not (self._settings.weight_spectra and due(step, self._settings.eval_every)):
            return {}
        return weight_spectra({name: self._parameters[name] for name in self._hidden}, self._settings.weight_spectra)

    def _commutator(self, step: int) -> dict[str, float]:
        pairs = self._settings.defect_pairs
        first = _DEFECT_STREAM + 2 * pairs * step
        found = []
        for pair in range(pairs):
            one, two = (self._task.replica(first + 2 * pair + side) for side in (0, 1))
            found.append(commutator(self._model, self._parameters, one, two))
        return {
            f"commutator_{name}": statistics.median(values) for name, values in zip(Commutator._fields, zip(*found))
        }

    def _sharpness(self) -> float:
        objective = Objective(self._model, self._parameters, self._task.probe_losses()[0])
        generator = torch.Generator().manual_seed(self._settings.seed)
        pieces = list(self._parameters.values())
        start = torch.cat([torch.randn(p.shape, generator=generator, dtype=p.dtype).ravel() for p in pieces])

        def product(flat: torch.Tensor) -> torch.Tensor:
            split = flat.split([p.numel() for p in pieces])
            vector = {name: part.view_as(p) for (name, p), part in zip(self._parameters.items(), split)}
            image = objective.hessian_product(vector)
            return torch.cat([image.get(name, torch.zeros_like(p)).ravel() for name, p in self._parameters.items()])

        top = lanczos(product, start.to(pieces[0].device), 1, tolerance=1e-2)
        objective.release()
        return float(top.values[0])


class Commutator(NamedTuple):
    """How much it matters in which order two batches are trained on.

    Attributes:
        defect: ||H_B g_A - H_A g_B|| / (||g_A|| ||g_B||) [1 / parameter].
        unit: ||H_B u_A - H_A u_B||, u = g / ||g|| [loss / parameter^2].
    """

    defect: float
    unit: float


def commutator(model: torch.nn.Module, parameters: Mapping[str, torch.Tensor], one: Task, two: Task) -> Commutator:
    """The commutator of two gradient steps, from exact Hessian products.

    The published quotient ||theta_AB - theta_BA|| / (||eta g_A|| ||eta g_B||) tends to ``defect`` for small steps
    eta. Taken literally, with eta = 1e-3 in float32, it is rounding where gradients are small (2.4 at the start of
    a modular run, where it should be 0.22), and a fifth of the published medians are exactly zero; products have no
    step to choose. ``defect`` divides by a gradient norm once more than ``unit``, so it rises when gradients
    vanish, whatever the curvature does: compare the two.

    Args:
        model: The network.
        parameters: Its tensors by name.
        one: Draws batch A.
        two: Draws batch B.

    Returns:
        Both forms; zeros where a gradient is zero.

    Source: arXiv:2602.16746 and its author's grokking code (definition); derived (limit, and the unit form).
    """
    objectives = []
    for task in (one, two):
        objectives.append(Objective(model, parameters, partial(_loss, task, task.draw())))
    gradients = [objective.gradient(keep_graph=True)[1] for objective in objectives]
    norm_a, norm_b = (float(_norm(gradient)) for gradient in gradients)
    if not norm_a * norm_b > 0:
        return Commutator(0.0, 0.0)
    b_on_a = objectives[1].hessian_product({name: g / norm_a for name, g in gradients[0].items()})
    a_on_b = objectives[0].hessian_product({name: g / norm_b for name, g in gradients[1].items()})
    for objective in objectives:
        objective.release()
    return Commutator(_distance(b_on_a, a_on_b, 1 / norm_b, 1 / norm_a), _distance(b_on_a, a_on_b, 1.0, 1.0))


def _loss(task: Task, batch: Any, model: torch.nn.Module) -> torch.Tensor:
    return task.loss(model, batch)


Named = Mapping[str, torch.Tensor]


def _norm(vector: Named) -> torch.Tensor:
    return torch.stack([x.norm().double() for x in vector.values()]).norm()


def _distance(x: Named, y: Named, a: float, b: float) -> float:
    """||a x - b y||; a missing name stands for zeros."""
    parts = {name: a * value for name, value in x.items()}
    for name, value in y.items():
        parts[name] = parts[name] - b * value if name in parts else -b * value
    return float(_norm(parts)) if parts else 0.0
