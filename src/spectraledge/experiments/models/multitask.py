"""The modular transformer with a head for each operation: 302,914 parameters with two, 315,427 with three.

Source: the networks of arXiv:2602.18523 (order of initialisation as in its published training code).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .modular import ModularTransformer


class Heads(nn.ModuleDict):
    """Linear heads on one representation."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits ``(batch, heads, p)`` of representations ``(batch, d_model)``."""
        return torch.stack([head(hidden) for head in self.values()], dim=1)


class MultiTaskTransformer(ModularTransformer):
    """`ModularTransformer` with several heads at position 0; logits ``(batch, operations, p)``.

    Drawn in the order embedding, positions, encoder layer, heads as listed: from one seed, trunk and first head
    are those of the one-operation network.

    Args:
        operations: Names of the heads.
        p: Number of token values and of classes.
        d_model: Width.
        layers: Encoder layers.
        heads: Attention heads a layer.
        d_hidden: Width of the feed-forward layers.
    """

    def __init__(
        self,
        operations: Sequence[str],
        p: int = 97,
        d_model: int = 128,
        layers: int = 2,
        heads: int = 4,
        d_hidden: int = 256,
    ) -> None:
        super().__init__(p, d_model, layers, heads, d_hidden)
        first, *others = operations
        heads_of = {first: self.head, **{name: nn.Linear(d_model, p) for name in others}}
        self.head = Heads(heads_of)  # type: ignore[assignment]
