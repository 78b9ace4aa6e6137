"""A parameter vector and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ParameterVector(nn.Module):
    """A vector cut into tensors of equal length, so that parts of it can be recorded apart.

    Args:
        start: (n) first values.
        tensors: Number of pieces; divides n.
        second_moments: (n) fixed second moment of each entry, for an optimizer that wants one.
    """

    def __init__(self, start: Tensor, tensors: int = 1, second_moments: Tensor | None = None) -> None:
        super().__init__()
        self.theta = nn.ParameterList(nn.Parameter(piece.clone()) for piece in start.chunk(tensors))
        fixed = torch.ones_like(start) if second_moments is None else second_moments
        self.second_moments: Sequence[Tensor] = fixed.chunk(tensors)

    def forward(self) -> Tensor:
        """The vector (n), with a graph."""
        return torch.cat(list(self.theta))
