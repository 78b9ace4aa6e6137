"""The momentum of an optimizer as the displacement it is about to make, and its way back into the buffers.

Adam keeps its momentum in gradient units, while the directions of a window live in parameter space: a mix of
two directions means something only after the preconditioner. Here ``u = lr * m / (sqrt(v) + eps)``; what is
done to u is written back as ``m = u (sqrt(v) + eps) / lr``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..curvature.preconditioner import bias_correction, second_moment_root
from ..errors import SettingError
from .vectors import Vector

Metric = Literal["update", "buffer"]


class Momentum:
    """Momentum buffers of several optimizers under their parameters' names.

    Args:
        parameters: The tensors that are trained, by name.
        optimizers: Their optimizers; SGD and Muon with momentum, Adam and AdamW.
        metric: ``update``: buffers divided by the preconditioner and times the learning rate, the
            displacement of one step [parameter]. ``buffer``: as they are [gradient]; for Adam a rotation
            there is no rotation of what moves the parameters. Muon orthogonalises afterwards: its u is
            ``lr * m`` in both.

    Raises:
        SettingError: If an optimizer keeps no momentum, has made no step or has a learning rate of zero.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], optimizers: Iterable[Optimizer], *, metric: Metric = "update"
    ) -> None:
        if metric not in get_args(Metric):
            raise SettingError(f"metric must be update or buffer; got {metric!r}. The default is update.")
        names = {id(tensor): name for name, tensor in parameters.items()}
        self._buffers: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor | float] = {}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if id(parameter) in names:
                        name = names[id(parameter)]
                        buffer, scale = _momentum(optimizer, optimizer.state.get(parameter, {}), group)
                        self._buffers[name] = buffer
                        self._scales[name] = scale if metric == "update" else 1.0
        missing = sorted(set(parameters) - set(self._buffers))
        if missing:
            raise SettingError(
                f"every parameter must belong to one of the optimizers; {missing[0]} does not. Pass all of them."
            )

    @torch.no_grad()
    def read(self) -> dict[str, Tensor]:
        """u by name, shaped as the parameters; new tensors."""
        return {name: buffer * self._scales[name] for name, buffer in self._buffers.items()}

    @torch.no_grad()
    def add(self, change: Vector) -> None:
        """Add a change of u to the buffers, in place."""
        for name, buffer in self._buffers.items():
            buffer.add_(change[name].to(buffer.dtype).reshape(buffer.shape) / self._scales[name])


def _momentum(
    optimizer: Optimizer, state: Mapping[str, Any], group: Mapping[str, Any]
) -> tuple[Tensor, Tensor | float]:
    """Buffer of one parameter and what turns it into a displacement of one step."""
    lr = float(group["lr"])
    if lr == 0.0:
        raise SettingError("the learning rate must not be zero at an intervention; got 0. Choose a later step.")
    if "exp_avg" in state:
        root = second_moment_root(optimizer, group, state)
        return state["exp_avg"], lr / bias_correction(optimizer, group, state, 0) / root
    buffer = state.get("momentum_buffer")
    if not isinstance(buffer, Tensor):
        raise SettingError(
            "an intervention on momentum needs an optimizer that has made a step and keeps momentum; "
            "found no buffer. Use kind='step', momentum > 0, or a later step."
        )
    return buffer, lr
