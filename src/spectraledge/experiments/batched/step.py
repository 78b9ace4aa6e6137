"""One optimizer step of several models: draw, differentiate as one, clip each, update."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from ..optimizers import lr_factor, set_lr
from ..settings import TrainingSettings
from ..tasks.base import Experiment
from .adamw import StackedAdamW
from .gradients import batched_gradients, check_one_computation, stack_batches
from .stack import NotOneComputation, ParameterStack

# What the one computation has but once.
_SHARED = ("device", "dtype", "threads", "optimizer", "accumulate", "decay_norms")


class BatchedStep:
    """N runs in step.

    Each model keeps its own data, batches, learning rate, decay and clipping; only the arithmetic is shared. AdamW is
    applied to the stack, other optimizers model by model.

    Args:
        experiments: Models and tasks; of one kind and of equal shapes.
        settings: One of each.
        optimizers: As ``build_optimizers`` makes them, one list a model.

    Raises:
        NotOneComputation: If the models cannot be trained as one; the sentence says what differs.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        settings: Sequence[TrainingSettings],
        optimizers: Sequence[Sequence[Optimizer]],
    ) -> None:
        for name in _SHARED:
            values = list(dict.fromkeys(getattr(chosen, name) for chosen in settings))
            if len(values) > 1:
                raise NotOneComputation(
                    f"models trained as one must share {name}; got {' and '.join(map(str, values))}. "
                    "Train them in calls of their own."
                )
        self.tasks = [experiment.task for experiment in experiments]
        self.settings, self._optimizers = list(settings), [list(own) for own in optimizers]
        for experiment in experiments:
            experiment.model.train()
        self.stack = ParameterStack([experiment.model for experiment in experiments])
        self._gradients = batched_gradients(experiments[0])
        check_one_computation(self.tasks, self.stack, self._gradients)
        plain = [own[0] for own in self._optimizers if len(own) == 1 and type(own[0]) is AdamW]
        self._stacked = None
        if len(plain) == len(self._optimizers):
            self._stacked = StackedAdamW(self.stack, plain, uniform=self._uniform())

    def step(self, step: int) -> tuple[Tensor, Tensor]:
        """Make optimizer step ``step`` (the first is 1) of every model.

        Returns:
            Losses ``(N,)`` of the batches and gradient norms ``(N,)`` before clipping.
        """
        for chosen, own in zip(self.settings, self._optimizers):
            set_lr(own, lr_factor(step, chosen))
        losses = self._differentiate()
        norms = self._clip()
        if self._stacked is not None:
            self._stacked.step()
        else:
            for own in self._optimizers:
                for optimizer in own:
                    optimizer.step()
        return losses, norms

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these models; the others are whole by themselves again."""
        self.stack.keep(members)
        self.tasks = [self.tasks[member] for member in members]
        self.settings = [self.settings[member] for member in members]
        self._optimizers = [self._optimizers[member] for member in members]
        if self._stacked is not None:
            self._stacked.keep(members, uniform=self._uniform())

    def _differentiate(self) -> Tensor:
        batches = self.settings[0].accumulate
        total = None
        for batch in range(batches):
            grads, losses = self._gradients(self.stack.values, stack_batches([task.draw() for task in self.tasks]))
            total = losses / batches if total is None else total + losses / batches
            for name, into in self.stack.grads.items():
                if batch:
                    into.add_(grads[name], alpha=1 / batches)
                else:
                    torch.div(grads[name], batches, out=into)
        assert total is not None
        return total

    def _clip(self) -> Tensor:
        grads = list(self.stack.grads.values())
        # A norm of norms, as torch's clip_grad_norm_ takes it.
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads]).norm(dim=0)
        limits = [math.inf if chosen.clip is None else chosen.clip for chosen in self.settings]
        if any(limit < math.inf for limit in limits):
            factors = (torch.tensor(limits, dtype=norms.dtype).to(norms.device) / (norms + 1e-6)).clamp_max(1.0)
            for g in grads:
                g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))
        return norms

    def _uniform(self) -> bool:
        def numbers(chosen: TrainingSettings) -> tuple[object, ...]:
            length = chosen.steps if chosen.schedule == "cosine" else None
            return chosen.lr, chosen.weight_decay, chosen.betas, chosen.schedule, chosen.warmup, length

        return len({numbers(chosen) for chosen in self.settings}) == 1
