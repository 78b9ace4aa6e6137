"""What the record says of the optimizers' parameter groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def describe_groups(optimizers: Sequence[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    """Numbers and words of every parameter group, for the record."""
    out = []
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            plain = {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in group.items()
                if key != "params"
                and isinstance(value, (int, float, str, bool, tuple, type(None)))
                and not (isinstance(value, tuple) and any(isinstance(v, torch.Tensor) for v in value))
            }
            out.append({"optimizer": i, "class": type(optimizer).__name__, **plain})
    return out


def largest_momentum(optimizers: Sequence[torch.optim.Optimizer]) -> float | None:
    """Largest momentum coefficient in use, which sets how far rows of the update matrix correlate in time."""
    found = [0.0]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            betas = group.get("betas")
            beta = betas[0] if isinstance(betas, (tuple, list)) and betas else group.get("momentum", 0.0)
            found.append(float(beta or 0.0))
    return max(found)
