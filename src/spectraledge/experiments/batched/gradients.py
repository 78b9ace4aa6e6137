"""Losses, gradients and outputs of all models of a stack in one computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..tasks.base import Experiment, Task
from .stack import NotOneComputation, ParameterStack, Tensors

# Relative. Losses of equal parameters on equal batches differ by rounding, 1e-7 in float32; a model or a task of
# another kind is off by far more.
_SAME_LOSS = 1e-4


class _Loss(nn.Module):
    """A task's loss as a module's forward, which torch.func can call with other parameters."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.model, self.task = experiment.model, experiment.task

    def forward(self, batch: Any) -> Tensor:
        return self.task.loss(self.model, batch)


def batched_gradients(experiment: Experiment) -> Callable[[Tensors, Any], tuple[Tensors, Tensor]]:
    """Gradients ``(N, ...)`` by name and losses ``(N,)`` from stacked parameters and stacked batches.

    Args:
        experiment: The code of the model and of the loss; its parameters are not used.
    """
    module = _Loss(experiment)

    def loss(parameters: Tensors, batch: Any) -> Tensor:
        return functional_call(module, {f"model.{name}": p for name, p in parameters.items()}, (batch,))

    both = vmap(grad_and_value(loss))

    def call(parameters: Tensors, batches: Any) -> tuple[Tensors, Tensor]:
        with batchable_attention():
            return both(parameters, batches)

    return call


def batched_outputs(model: nn.Module) -> Callable[[Tensors, tuple[Any, ...]], Any]:
    """Outputs ``(N, ...)`` from stacked parameters and stacked inputs, without a graph."""
    forward = vmap(lambda parameters, inputs: functional_call(model, parameters, inputs))

    def call(parameters: Tensors, inputs: tuple[Any, ...]) -> Any:
        with torch.no_grad(), batchable_attention():
            return forward(parameters, inputs)

    return call


def batchable_attention() -> Any:
    """Attention from plain products: the fused kernel of the CPU has no batching rule and would be looped over."""
    return sdpa_kernel(SDPBackend.MATH)


def stack_batches(batches: Sequence[Any]) -> Any:
    """Batches of equal form as one, ``(N, ...)``: tensors, or tuples, lists and dicts of them.

    Raises:
        NotOneComputation: If their forms or shapes differ.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        shapes = {tuple(batch.shape) for batch in batches}
        if len(shapes) > 1:
            raise NotOneComputation(
                f"models trained as one must draw batches of one shape; got {sorted(shapes)}. "
                "Give them one batch_size, or train them in calls of their own."
            )
        return torch.stack(list(batches))
    if isinstance(first, dict):
        return {key: stack_batches([batch[key] for batch in batches]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(stack_batches(parts) for parts in zip(*batches, strict=True))
    raise NotOneComputation(
        f"batches of models trained as one must be tensors or tables of them; got {type(first).__name__}. "
        "Train this experiment one model at a time."
    )


def check_one_computation(tasks: Sequence[Task], stack: ParameterStack, gradients: Callable[..., Any]) -> None:
    """Raise unless the one computation gives each model's own loss, measured on a batch that no run draws.

    Parameters of equal shapes do not make models equal: heads, activations and what a task keeps to itself show
    only here.

    Raises:
        NotOneComputation: As said, or if the loss cannot be batched.
    """
    batches = [task.replica(1).draw() for task in tasks]
    with torch.no_grad():
        own = torch.stack([task.loss(model, batch) for task, model, batch in zip(tasks, stack.models, batches)])
    try:
        _, found = gradients(stack.values, stack_batches(batches))
    except RuntimeError as error:
        raise NotOneComputation(
            f"a loss must allow batching over models to be trained as one; {type(tasks[0]).__name__}'s does not "
            f"({str(error).splitlines()[0]}). Train this experiment one model at a time."
        ) from error
    off = (found - own).abs() / own.abs().clamp_min(1e-30)
    if not bool((off < _SAME_LOSS).all()):
        member = int(off.argmax())
        raise NotOneComputation(
            "models trained as one must be of one kind; the loss of model "
            f"{member + 1} is {float(own[member]):.6g} by itself and {float(found[member]):.6g} in the one "
            "computation. Train models of different heads, activations or data in calls of their own."
        )
