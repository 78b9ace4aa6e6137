"""Lottery tickets by the leading direction: masks of the largest |v_1|, of the largest weights, and at random.

All keep the same share of the parameters, so that only the choice differs. Trained from the rewound weights
with ``hold_masks``; comparing them is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import SettingError
from .vectors import Vector

Masks = Mapping[str, Tensor]


def ticket_masks(scores: Vector, fraction: float) -> dict[str, Tensor]:
    """Keep the ``fraction`` of all entries with the largest absolute score, over all tensors together.

    Give v_1 (``intervene.window_directions``) for the ticket of the spectral edge, the weights for the usual
    one by magnitude. Equal scores are kept in the order of the tensors: the count is exact.

    Args:
        scores: By name, shaped as the parameters; NaN counts as smallest.
        fraction: Share to keep, in (0, 1].

    Returns:
        Boolean tensors by name; ``round(fraction * P)`` entries are True. Source: arXiv:2603.28964v1-v3
        (connection to lottery tickets); the comparison is derived.

    Raises:
        SettingError: If the fraction is out of range.

    Example:
        >>> ticket_masks({"w": torch.tensor([3.0, -5.0, 1.0, 0.0])}, 0.5)["w"]
        tensor([ True,  True, False, False])
    """
    flat = torch.cat([scores[name].detach().double().abs().flatten().cpu() for name in scores])
    keep = _count(fraction, flat.numel())
    chosen = torch.argsort(torch.nan_to_num(flat, nan=-1.0), descending=True, stable=True)[:keep]
    return _shaped(chosen, scores)


def random_masks(like: Vector, fraction: float, rng: np.random.Generator) -> dict[str, Tensor]:
    """Keep ``round(fraction * P)`` entries drawn evenly from all parameters; arguments as `ticket_masks`.

    Raises:
        SettingError: If the fraction is out of range.
    """
    size = sum(tensor.numel() for tensor in like.values())
    return _shaped(torch.from_numpy(rng.permutation(size)[: _count(fraction, size)]), like)


def matched_random_masks(masks: Masks, rng: np.random.Generator) -> dict[str, Tensor]:
    """Keep at random as many entries of every tensor as ``masks`` does.

    The stricter control: a ticket by global scores also chooses how much of each layer to keep, which a
    random ticket over all parameters does not match.
    """
    out = {}
    for name, mask in masks.items():
        keep = int(mask.sum())
        chosen = torch.from_numpy(rng.permutation(mask.numel())[:keep])
        out[name] = torch.zeros(mask.numel(), dtype=torch.bool).index_fill_(0, chosen, True).reshape(mask.shape)
        out[name] = out[name].to(mask.device)
    return out


def mask_overlap(first: Masks, second: Masks) -> float:
    """Share of the entries kept by the first that the second keeps too; ``fraction`` by chance."""
    kept = sum(int(mask.sum()) for mask in first.values())
    both = sum(int((mask & second[name]).sum()) for name, mask in first.items())
    return both / kept if kept else float("nan")


@torch.no_grad()
def hold_masks(parameters: Mapping[str, Tensor], masks: Masks, optimizers: Iterable[Optimizer]) -> list[Any]:
    """Set the entries outside the masks to zero, now and after every optimizer step.

    Args:
        parameters: By name, trained in place; those without a mask are left alone.
        masks: Boolean, shaped as the parameters.
        optimizers: The hook is put on each.

    Returns:
        Handles with ``remove()``, one an optimizer.

    Raises:
        SettingError: If a mask has another shape than its parameter, or no parameter.
    """
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            found = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            raise SettingError(f"mask {name} must be shaped as its parameter, {tuple(mask.shape)}; got {found}.")

    @torch.no_grad()
    def hold(*_: object) -> None:
        for name, mask in masks.items():
            parameters[name].mul_(mask)

    hold()
    return [optimizer.register_step_post_hook(torch.compiler.disable(hold)) for optimizer in optimizers]


def _count(fraction: float, size: int) -> int:
    if not 0.0 < fraction <= 1.0:
        raise SettingError(f"fraction must lie in (0, 1]; got {fraction}. Use 0.2 to keep a fifth.")
    return max(1, round(fraction * size))


def _shaped(chosen: Tensor, like: Vector) -> dict[str, Tensor]:
    size = sum(tensor.numel() for tensor in like.values())
    flat = torch.zeros(size, dtype=torch.bool).index_fill_(0, chosen, True)
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {
        name: part.reshape(tensor.shape).to(tensor.device)
        for part, (name, tensor) in zip(parts, like.items(), strict=True)
    }
