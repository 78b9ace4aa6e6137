"""The metric in which an optimizer descends: its diagonal preconditioner, read off its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


def inverse_preconditioner(
    optimizers: Sequence[torch.optim.Optimizer], parameters: Mapping[str, torch.Tensor]
) -> Tensors | None:
    """The diagonal of P^-1 by parameter, with which the optimizer multiplies its averaged gradient.

    Adam and its kin: ``1 / (sqrt(v) + eps)``, v the bias-corrected second moment (its maximum with amsgrad);
    RMSprop and Adagrad likewise; SGD: ones. An optimizer of another kind may give its own by a method
    ``inverse_preconditioner(parameter)``.

    Args:
        optimizers: Those that train.
        parameters: The monitored tensors by name.

    Returns:
        By name, ones included; None where the preconditioner is not a known diagonal (Muon, LBFGS) or there is
        none yet. Unit: that of parameter / (learning rate * gradient).

    Source: theory of arXiv:2603.28964 reads curvature in the optimizer's own metric only under this; standard
        definitions of the optimizers.
    """
    out: Tensors = {}
    for optimizer, group, name, parameter in _owned(optimizers, parameters):
        found = _inverse(optimizer, group, parameter)
        if found is None:
            return None
        out[name] = found
    return out if len(out) == len(parameters) else None


def step_direction(
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Mapping[str, torch.Tensor],
    inverse: Mapping[str, torch.Tensor] | None,
) -> Tensors | None:
    """``P^-1 m``, the direction of the last step without weight decay: the update was ``-lr`` times it.

    ``inverse`` is what :func:`inverse_preconditioner` gave; m is the bias-corrected first moment (Adam), the
    momentum buffer (SGD). None where the state does not tell: SGD without momentum, whose direction is the batch's
    gradient, is told apart by the caller.
    """
    if inverse is None:
        return None
    out: Tensors = {}
    for optimizer, group, name, parameter in _owned(optimizers, parameters):
        state = optimizer.state.get(parameter, {})
        if "exp_avg" in state:
            out[name] = state["exp_avg"] / bias_correction(optimizer, group, state, 0) * inverse[name]
        elif state.get("momentum_buffer") is not None and not group.get("nesterov"):
            out[name] = state["momentum_buffer"] * inverse[name]
        else:
            return None
    return out if len(out) == len(parameters) else None


def second_moment_root(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], state: Mapping[str, Any]
) -> torch.Tensor:
    """P = ``sqrt(v) + eps`` of one parameter of Adam or its kin, v bias-corrected (its maximum with amsgrad)."""
    second = state.get("max_exp_avg_sq", state["exp_avg_sq"])
    return (second / bias_correction(optimizer, group, state, 1)).sqrt() + float(group.get("eps", 0.0))


def bias_correction(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], state: Mapping[str, Any], moment: int
) -> float:
    """``1 - beta^step`` of the first (0) or second (1) moment; 1 for optimizers that do not correct."""
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW | torch.optim.NAdam | torch.optim.RAdam):
        return 1.0
    return 1.0 - float(group["betas"][moment]) ** float(state["step"])


def _inverse(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: torch.Tensor
) -> torch.Tensor | None:
    own = getattr(optimizer, "inverse_preconditioner", None)
    if callable(own):
        return own(parameter)
    state = optimizer.state.get(parameter, {})
    if isinstance(optimizer, torch.optim.SGD):
        return torch.ones_like(parameter)
    if isinstance(optimizer, torch.optim.Muon | torch.optim.LBFGS) or not state:
        return None
    if "exp_avg_sq" in state:
        return 1 / second_moment_root(optimizer, group, state)
    eps = float(group.get("eps", 0.0))
    if "square_avg" in state:
        return 1 / (state["square_avg"].sqrt() + eps)
    if isinstance(optimizer, torch.optim.Adagrad):
        return 1 / (state["sum"].sqrt() + eps)
    return None


def _owned(
    optimizers: Sequence[torch.optim.Optimizer], parameters: Mapping[str, torch.Tensor]
) -> list[tuple[torch.optim.Optimizer, dict[str, Any], str, torch.Tensor]]:
    names = {id(tensor): name for name, tensor in parameters.items()}
    return [
        (optimizer, group, names[id(p)], p)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
        if id(p) in names
    ]
