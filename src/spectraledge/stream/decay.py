"""The part of an update that decoupled weight decay makes, exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..errors import SettingError
from .ring import UpdateRing
from .sketch import SketchRing

# Optimizers of torch whose decay multiplies the parameters by (1 - lr * weight_decay) before the step.
_DECOUPLED = (torch.optim.AdamW, torch.optim.Muon)


def is_decoupled(optimizer: torch.optim.Optimizer, group: Mapping[str, object]) -> bool:
    """Whether a group's weight decay acts on the parameters directly and not through the gradient."""
    if "decoupled_weight_decay" in group:
        return bool(group["decoupled_weight_decay"])
    return isinstance(optimizer, _DECOUPLED)


def check_decoupled(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Raise where the decay part cannot be told from the gradient part.

    Raises:
        SettingError: If a group has coupled (L2) weight decay: it passes through momentum and preconditioner,
            so no part of the update is its own.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if group.get("weight_decay") and not is_decoupled(optimizer, group):
                raise SettingError(
                    f"decay_products=True needs decoupled weight decay (AdamW, Muon); {type(optimizer).__name__} "
                    f"couples its weight_decay={group['weight_decay']} into the gradient, so the update has no "
                    "part that is the decay's own. Leave decay_products out."
                )


def add_decay(
    ring: UpdateRing | SketchRing,
    optimizer: torch.optim.Optimizer,
    pieces: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
) -> None:
    """Accumulate ``-lr * weight_decay * theta`` of the step that ``optimizer`` is about to make.

    Parameters without a gradient are not decayed by the optimizer and are left out here too.

    Args:
        ring: Where the decay part is kept.
        optimizer: Before its step.
        pieces: What the ring knows of a parameter of the optimizer, by name; empty where it is not monitored.
    """
    for group in optimizer.param_groups:
        rate = float(group["lr"]) * float(group.get("weight_decay") or 0.0)
        if rate == 0.0:
            continue
        for parameter in group["params"]:
            if parameter.grad is not None:
                for name, tensor in pieces(parameter).items():
                    ring.add_decay(name, tensor, -rate)
