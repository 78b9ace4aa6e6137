"""AdamW with its second moment fixed: the same step, but one linear map that never changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingError
from .own_step import OwnStep


class FrozenAdamW(OwnStep):
    """theta <- (1 - lr omega) theta - lr m / sqrt(v), m <- beta m + (1 - beta) gradient, v given and fixed.

    No bias correction: v needs none, and m's would make the map differ from step to step for some
    1 / (1 - beta) steps. State is laid out as AdamW's with eps = 0 and beta_2 = 0, so that what reads the
    preconditioner off AdamW's state reads sqrt(v) here.

    Args:
        params: Parameters, in one group.
        second_moments: v of each parameter, of its shape and positive.
        lr: Learning rate.
        beta: Decay rate of the first moment.
        weight_decay: Decoupled.

    Raises:
        SettingError: If second moments and parameters do not match, or one is not positive.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        second_moments: Sequence[Tensor],
        lr: float = 1e-3,
        beta: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        parameters = list(params)
        shapes, given = [tuple(p.shape) for p in parameters], [tuple(v.shape) for v in second_moments]
        if shapes != given or not all(bool((v > 0).all()) for v in second_moments):
            raise SettingError(
                f"second_moments must be positive and shaped as the parameters, {shapes}; got {given}. "
                "Give one tensor for each parameter."
            )
        defaults = {"lr": lr, "betas": (beta, 0.0), "eps": 0.0, "weight_decay": weight_decay}
        super().__init__(parameters, {**defaults, "decoupled_weight_decay": True})
        for parameter, v in zip(parameters, second_moments):
            self.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": v.detach().to(parameter).clone(),
            }

    def _update(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state, lr, beta = self.state[parameter], group["lr"], group["betas"][0]
        state["step"] += 1
        state["exp_avg"].mul_(beta).add_(gradient, alpha=1 - beta)
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt(), value=-lr)
