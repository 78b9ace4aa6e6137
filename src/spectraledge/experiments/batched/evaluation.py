"""Metrics of several models, their outputs computed as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..tasks.base import Task
from .gradients import batched_outputs
from .stack import ParameterStack

Inputs = tuple[Tensor, ...]


class BatchedEvaluation:
    """``task.evaluate`` of several models.

    A task asks a model for outputs and makes numbers of them. Its questions are taken down once; later all models
    answer them in one computation, and each task is given the answers. Tasks that do not ask the whole model for
    outputs of tensors, or not always the same, are evaluated one by one.

    Args:
        stack: The models.
        tasks: One of each.
    """

    def __init__(self, stack: ParameterStack, tasks: Sequence[Task]) -> None:
        self._stack, self._tasks = stack, list(tasks)
        self._outputs = batched_outputs(stack.models[0])
        self._asked = [_questions(model, task) for model, task in zip(stack.models, tasks)]

    def evaluate(self, members: Sequence[int]) -> list[dict[str, float]]:
        """Metrics of these models, in their order."""
        found: dict[int, dict[str, float]] = {}
        alike: dict[Any, list[int]] = defaultdict(list)
        for member in members:
            asked = self._asked[member]
            if asked is not None:
                alike[tuple(tuple(x.shape for x in inputs) for inputs in asked)].append(member)
        for group in alike.values():
            found |= self._as_one(group)
        return [
            found[member] if member in found else self._tasks[member].evaluate(self._stack.models[member])
            for member in members
        ]

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these models, after ``stack.keep``."""
        self._tasks = [self._tasks[member] for member in members]
        self._asked = [self._asked[member] for member in members]

    def _as_one(self, members: list[int]) -> dict[int, dict[str, float]]:
        everyone = members == list(range(len(self._stack)))
        values = {name: x if everyone else x[members] for name, x in self._stack.values.items()}
        questions = [self._asked[member] or [] for member in members]
        answers = []
        for inputs in zip(*questions):
            answers.append(self._outputs(values, tuple(torch.stack(list(parts)) for parts in zip(*inputs))))
        found = {}
        for index, member in enumerate(members):
            told = _Told(questions[index], [answer[index] for answer in answers])
            try:
                found[member] = self._tasks[member].evaluate(told)
            except _AskedOtherwise:
                self._asked[member] = None
        return found


class _AskedOtherwise(Exception):
    """A task asked something it had not asked the first time."""


class _Told(nn.Module):
    """Stands for a model: knows its answers to the questions that are expected."""

    def __init__(self, questions: Sequence[Inputs], answers: Sequence[Tensor]) -> None:
        super().__init__()
        self._expected = list(zip(questions, answers))

    def forward(self, *inputs: Any) -> Tensor:
        if not self._expected:
            raise _AskedOtherwise
        expected, answer = self._expected.pop(0)
        same = len(expected) == len(inputs) and all(
            a is b or (isinstance(b, Tensor) and torch.equal(a, b)) for a, b in zip(expected, inputs)
        )
        if not same:
            raise _AskedOtherwise
        return answer


def _questions(model: nn.Module, task: Task) -> list[Inputs] | None:
    """What a task's evaluation asks its model, in order; None where the model cannot be stood in for."""
    asked: list[Any] = []
    answered: list[Any] = []

    def note(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        asked.append(None if kwargs else args)
        answered.append(output)

    hook = model.register_forward_hook(note, with_kwargs=True)
    try:
        metrics = task.evaluate(model)
    finally:
        hook.remove()
    tensors = all(isinstance(x, tuple) and all(isinstance(part, Tensor) for part in x) for x in asked)
    if not (asked and tensors and all(isinstance(x, Tensor) for x in answered)):
        return None
    try:
        again = task.evaluate(_Told(asked, answered))
    except (AttributeError, TypeError, _AskedOtherwise):
        return None
    return asked if _equal(again, metrics) else None


def _equal(x: dict[str, float], y: dict[str, float]) -> bool:
    # NaN is equal to NaN here.
    return x.keys() == y.keys() and all(x[k] == y[k] or (x[k] != x[k] and y[k] != y[k]) for k in x)
