"""Diagonal preconditioners P of an optimizer: an update is -lr P^-1 times the gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from spectraledge.curvature.preconditioner import second_moment_root
from spectraledge.errors import SettingError
from spectraledge.kernel.probe import OutputProbe, Parameters, check_like

Preconditioner = Mapping[str, torch.Tensor]


def adam_preconditioner(probe: OutputProbe, optimizer: torch.optim.Optimizer) -> Parameters:
    """P = sqrt(v_hat) + eps of Adam, AdamW or NAdam, for every parameter of the probe.

    v_hat is the bias-corrected second moment (its running maximum under amsgrad). The first moment is not in
    P: it only delays the gradient (arXiv:2603.28964's G_eff uses the same P; standard result).

    Args:
        probe: Whose parameters are looked up in the optimizer.
        optimizer: After at least one step.

    Returns:
        Positive tensors by name [loss / parameter].

    Raises:
        SettingError: If a parameter has no second moment yet, or the optimizer keeps none.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    found: Parameters = {}
    for name, parameter in probe.model.named_parameters():
        if name not in probe.parameters:
            continue
        state = optimizer.state.get(parameter, {})
        if id(parameter) not in groups or "exp_avg_sq" not in state:
            raise SettingError(
                f"the optimizer must hold Adam's second moment of {name!r}; it holds {sorted(state) or 'nothing'}. "
                "Take a step first, or pass the preconditioner as a dict of positive tensors."
            )
        found[name] = second_moment_root(optimizer, groups[id(parameter)], state).detach()
    return found


def checked(probe: OutputProbe, preconditioner: Preconditioner | None) -> Parameters | None:
    """The preconditioner in theta's dtype and order, or None for the identity.

    Raises:
        SettingError: If names or shapes differ from theta's, or an entry is not positive.
    """
    if preconditioner is None:
        return None
    found = check_like(probe, preconditioner, "preconditioner")
    for name, tensor in found.items():
        if not bool((tensor > 0).all()):
            raise SettingError(
                f"preconditioner must be positive; {name!r} has entries that are not. Add the optimizer's eps."
            )
    return found


def divided(direction: Parameters, preconditioner: Parameters | None) -> Parameters:
    """P^-1 times a direction."""
    if preconditioner is None:
        return direction
    return {name: t / preconditioner[name] for name, t in direction.items()}
