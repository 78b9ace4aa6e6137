"""The optimizers of the catalogued experiments, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from .frozen_adamw import FrozenAdamW
from .muon import FullPrecisionMuon
from .nesterov import DecoupledNesterov
from .settings import TrainingSettings

COSINE_FLOOR = 0.1


def build_optimizers(model: nn.Module, settings: TrainingSettings, outer: Sequence[str] = ()) -> list[Optimizer]:
    """Optimizers that together hold every trainable parameter once.

    All parameters decay, LayerNorm, biases and embeddings included, as in the published modular runs; without
    ``decay_norms`` those of fewer than two dimensions do not. "muon" takes the hidden matrices and leaves
    embeddings, head, norms and biases to an AdamW at ``adamw_lr``. The decay of "gd", "sgd" and "adam" is
    coupled: it is added to the gradient; that of "nesterov" is decoupled. "frozen_adamw" takes its second moment
    from the model's ``second_moments``.

    Args:
        model: The network.
        settings: Optimizer, learning rates, betas, momentum and decay.
        outer: Beginnings of the names of parameters that face the data (embeddings, positions, head).

    Returns:
        One optimizer, or Muon and AdamW in this order.

    Source: Muon's split is the usual public one; a fused query-key-value projection is orthogonalised as
        one matrix.
    """
    optimizer: str = settings.optimizer
    if optimizer == "frozen_adamw":
        second_moments = cast("Sequence[Tensor]", model.second_moments)
        beta, decay = settings.betas[0], settings.weight_decay
        return [FrozenAdamW(model.parameters(), second_moments, settings.lr, beta, decay)]
    named = list(model.named_parameters())
    parameters = [parameter for _, parameter in named]
    momentum: dict[str, Any] = {
        "lr": settings.lr,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
    }
    if optimizer == "adamw":
        return [_adamw(parameters, settings.lr, settings)]
    if optimizer == "adam":
        groups = _groups(parameters, settings)
        return [Adam(groups, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)]
    if optimizer in ("gd", "sgd"):
        return [SGD(_groups(parameters, settings), **momentum)]
    if optimizer == "nesterov":
        return [DecoupledNesterov(_groups(parameters, settings), **momentum)]
    hidden = set(hidden_matrices(model, outer))
    return [
        FullPrecisionMuon([parameter for name, parameter in named if name in hidden], **momentum),
        _adamw([parameter for name, parameter in named if name not in hidden], settings.adamw_lr, settings),
    ]


def _adamw(parameters: Sequence[Tensor], lr: float, settings: TrainingSettings) -> AdamW:
    return AdamW(_groups(parameters, settings), lr=lr, betas=settings.betas, weight_decay=settings.weight_decay)


def _groups(parameters: Sequence[Tensor], settings: TrainingSettings) -> Any:
    """All in one group, or those that do not decay in a second one."""
    if settings.decay_norms:
        return list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def hidden_matrices(model: nn.Module, outer: Sequence[str] = ()) -> list[str]:
    """Names of the 2-D parameters that map one layer to another.

    Args:
        model: The network.
        outer: Beginnings of the names of parameters that face the data.
    """
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and not name.startswith(tuple(outer))
    ]


def lr_factor(step: int, settings: TrainingSettings) -> float:
    """Share of the learning rate that optimizer step ``step`` (the first is 1) uses.

    Linear warm-up, then constant, or half a cosine down to a tenth at the last step.

    Example:
        >>> from spectraledge.experiments.settings import TrainingSettings
        >>> cosine = TrainingSettings(schedule="cosine", steps=101, warmup=1)
        >>> [round(lr_factor(step, cosine), 3) for step in (1, 51, 101)]
        [1.0, 0.55, 0.1]
    """
    if step <= settings.warmup:
        return step / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    span = max(1, settings.steps - settings.warmup)
    fraction = min(1.0, (step - settings.warmup) / span)
    return COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * fraction))


def set_lr(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Scale every group's learning rate to ``factor`` times the one it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
