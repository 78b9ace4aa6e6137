"""SGD with Nesterov's momentum whose weight decay acts on the weights and not through the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import SGD

from .own_step import OwnStep


class DecoupledNesterov(OwnStep, SGD):
    """theta <- (1 - lr omega) theta - lr (g + mu b), b <- mu b + g.

    ``torch.optim.SGD`` with ``nesterov=True`` adds its decay to the gradient, where momentum multiplies it.
    Without decay the two make the same steps.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: mu, above 0.
        weight_decay: omega.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=True)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True

    def _update(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state, lr, mu = self.state[parameter], group["lr"], group["momentum"]
        # torch's own first step: the buffer starts as the gradient
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = gradient.clone()
        else:
            state["momentum_buffer"].mul_(mu).add_(gradient)
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(gradient.add(state["momentum_buffer"], alpha=mu), alpha=-lr)
