"""The one training loop of all catalogued experiments.

Knows tasks, optimizers and when to stop; snapshots are taken by the optimizer's own hooks, and files are the
caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from ..detect.grok import SUSTAINED_EVALUATIONS, sustained_step
from .optimizers import lr_factor, set_lr
from .settings import TrainingSettings
from .tasks.base import Experiment

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass
class Position:
    """Where a run stands, apart from parameters and generators.

    Attributes:
        step: Optimizer steps done.
        history: (step, test accuracy) of every evaluation so far; decides when to stop.
        reason: Why the run ended: "steps" or "grokked"; None while it goes on.
    """

    step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    reason: str | None = None


def train(
    experiment: Experiment,
    optimizers: Sequence[Optimizer],
    settings: TrainingSettings,
    *,
    log: Callable[..., object],
    position: Position | None = None,
    measure: Callable[[int], Mapping[str, float]] | None = None,
    after_step: Callable[[Position], None] | None = None,
    progress: Progress | None = None,
) -> Position:
    """Train from ``position`` to the end.

    A step: scale the learning rate, draw, differentiate, clip, update. Step 1 and every ``eval_every``-th
    step are evaluated on the whole training and test set after the update, and logged with the batch loss,
    the gradient norm before clipping and the learning rate of that step. Evaluations draw nothing and leave
    no gradient, so how often they happen does not change the run.

    Args:
        experiment: Model and task.
        optimizers: Stepped in this order, each step.
        settings: Length, schedule, clipping and stopping.
        log: Called with the metrics as keywords once the step they belong to is done.
        position: Where to go on from; the beginning where None.
        measure: Called as ``measure(step)`` after each step; what it returns is logged with the step's metrics.
        after_step: Called after each step, its metrics already logged.
        progress: Called as ``progress(step, steps, metrics)`` at each evaluation.

    Returns:
        The final position, with its reason.
    """
    model, task = experiment.model, experiment.task
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    position = position or Position()
    # Never eval(): the catalogued models have no dropout, and torch's inference kernels round differently.
    model.train()
    while position.reason is None:
        step = position.step + 1
        set_lr(optimizers, lr_factor(step, settings))
        model.zero_grad(set_to_none=True)
        loss = _differentiate(experiment, settings.accumulate)
        norm = clip(parameters, settings.clip)
        for optimizer in optimizers:
            optimizer.step()
        position.step = step
        measured = {} if measure is None else dict(measure(step))
        if due(step, settings.eval_every):
            metrics = task.evaluate(model) | measured
            position.history.append((step, capability(metrics)))
            metrics |= {
                "batch_loss": float(loss),
                "grad_norm": float(norm),
                "lr": float(optimizers[0].param_groups[0]["lr"]),
            }
            log(**metrics)
            if progress is not None:
                progress(step, settings.steps, metrics)
        elif measured:
            log(**measured)
        position.reason = reason_to_stop(position, settings)
        if after_step is not None:
            after_step(position)
    return position


def due(step: int, every: int) -> bool:
    """Whether something that happens at step 1 and every ``every`` steps happens now; never where 0."""
    return every > 0 and (step == 1 or step % every == 0)


def _differentiate(experiment: Experiment, batches: int) -> torch.Tensor:
    """Mean loss of the next batches, detached, its gradient added up in the parameters."""
    task, total = experiment.task, None
    for _ in range(batches):
        loss = task.loss(experiment.model, task.draw())
        if batches > 1:
            loss = loss / batches
        loss.backward()
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total


def clip(parameters: Sequence[torch.nn.Parameter], limit: float | None) -> torch.Tensor:
    """Scale gradients down to a global norm of ``limit`` where they exceed it; the norm before."""
    if limit is not None:
        return clip_grad_norm_(parameters, limit)
    return get_total_norm([p.grad for p in parameters if p.grad is not None])


def capability(metrics: Mapping[str, float]) -> float:
    """The accuracy that decides when to stop: the smallest of all test metrics that are not losses."""
    # With several tasks a run has grokked when the slowest of them has.
    found = [value for name, value in metrics.items() if name.startswith("test") and "loss" not in name]
    return min(found, default=float("nan"))


def reason_to_stop(position: Position, settings: TrainingSettings) -> str | None:
    """Why a run ends at its position: "grokked", "steps", or None where it goes on."""
    step, history = position.step, position.history
    if settings.stop_after_grok is not None and history and history[-1][0] == step:
        steps, accuracy = zip(*history)
        grokked = sustained_step(steps, accuracy, consecutive=SUSTAINED_EVALUATIONS).step
        if grokked is not None and sum(s > grokked for s in steps) >= settings.stop_after_grok:
            return "grokked"
    return "steps" if step >= settings.steps else None
