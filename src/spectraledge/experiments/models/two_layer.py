"""One hidden layer on one-hot pairs: 436,224 parameters at p = 71 and 2,048 units.

Source: the network of arXiv:2509.21519, which the published eigengap runs train.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class TwoLayer(nn.Module):
    """f(a, b) = V s(W [e_a, e_b]), no biases; both matrices start as ``nn.Linear`` does, W drawn first.

    Args:
        p: Number of token values and of classes.
        d_hidden: Hidden units.
        activation: "square" or "relu".
    """

    # Muon takes W, where features form, and leaves V to AdamW.
    outer: ClassVar[tuple[str, ...]] = ("head.",)

    def __init__(self, p: int = 71, d_hidden: int = 2048, activation: str = "square") -> None:
        super().__init__()
        self.p, self.activation = p, activation
        self.hidden = nn.Linear(2 * p, d_hidden, bias=False)
        self.head = nn.Linear(d_hidden, p, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs ``(batch, p)`` of token pairs ``(batch, 2)``."""
        one_hot = functional.one_hot(tokens, self.p).flatten(1).to(self.hidden.weight)
        before = self.hidden(one_hot)
        return self.head(before.square() if self.activation == "square" else torch.relu(before))
