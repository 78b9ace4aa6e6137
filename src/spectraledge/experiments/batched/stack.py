"""The parameters of several models in one tensor a name, each model holding views of its own slice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import SettingError

Tensors = dict[str, Tensor]


class NotOneComputation(SettingError):
    """Models that cannot be trained as one; each can be by itself."""


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class ParameterStack:
    """Parameters ``(N, ...)`` of N models of equal shapes, and gradients beside them.

    From here on the models' parameters are views: what is written into the stack is what each model holds, and the
    parameter objects stay the same, so that optimizers and monitors that know them go on. The same holds for
    ``.grad``.

    Args:
        models: N of them; their parameters keep their values.

    Raises:
        NotOneComputation: If the models' parameters differ in name, shape, dtype or device.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = list(models)
        self._parameters = [trained(model) for model in models]
        kinds = [{k: (tuple(p.shape), p.dtype, p.device) for k, p in table.items()} for table in self._parameters]
        for number, kind in enumerate(kinds):
            if kind != kinds[0]:
                name = next(k for k in {**kinds[0], **kind} if kind.get(k) != kinds[0].get(k))
                raise NotOneComputation(
                    "models trained as one must have equal parameters; got "
                    f"{name} of {_words(kinds[0].get(name))} in the first and {_words(kind.get(name))} in model "
                    f"{number + 1}. Train them in calls of their own."
                )
        self.names = list(self._parameters[0])
        self.values: Tensors = {}
        self.grads: Tensors = {}
        self._fill(range(len(models)))

    def __len__(self) -> int:
        return len(self.models)

    def parameters(self, member: int) -> dict[str, nn.Parameter]:
        """The parameter objects of one model."""
        return self._parameters[member]

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these models only; the others keep their parameters, in memory of their own."""
        for member in set(range(len(self))) - set(members):
            for parameter in self._parameters[member].values():
                parameter.data = parameter.detach().clone()
                parameter.grad = None
        self.models = [self.models[member] for member in members]
        self._parameters = [self._parameters[member] for member in members]
        if members:
            self._fill(members)

    def _fill(self, members: Sequence[int]) -> None:
        for name in self.names:
            self.values[name] = torch.stack([table[name].detach() for table in self._parameters])
            old = self.grads.get(name)
            self.grads[name] = torch.zeros_like(self.values[name]) if old is None else old[list(members)]
            for member, table in enumerate(self._parameters):
                table[name].data = self.values[name][member]
                table[name].grad = self.grads[name][member]


def _words(kind: tuple[tuple[int, ...], torch.dtype, torch.device] | None) -> str:
    return "none" if kind is None else f"{kind[0]} {str(kind[1]).removeprefix('torch.')} on {kind[2]}"
