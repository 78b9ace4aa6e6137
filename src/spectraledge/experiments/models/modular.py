"""The two-token transformer of the modular runs: 290,401 parameters at p = 97.

Source: the network described for the single-task modular runs of arXiv:2603.28964.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .encoder import pre_norm_encoder


class ModularTransformer(nn.Module):
    """Pre-norm encoder over the two tokens, read at the first.

    Token embedding N(0, 1), position vectors N(0, 1) / sqrt(d_model), encoder layers without mask or
    dropout and with biases everywhere, a final LayerNorm and an untied linear head. The fused
    query-key-value projection is Xavier-uniform over its (3 d_model, d_model) shape, every other linear
    layer is PyTorch's default. ``nn.TransformerEncoder`` copies one layer, so that **all layers start with
    equal weights**: kept, since it is part of what the published grok steps were measured on.

    Args:
        p: Number of token values and of classes.
        d_model: Width.
        layers: Encoder layers.
        heads: Attention heads a layer.
        d_hidden: Width of the feed-forward layers.
    """

    # Parameters that face the data and not another layer: Muon leaves them to AdamW.
    outer: ClassVar[tuple[str, ...]] = ("embedding.", "position", "head.")

    def __init__(self, p: int = 97, d_model: int = 128, layers: int = 2, heads: int = 4, d_hidden: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(p, d_model)
        self.position = nn.Parameter(torch.randn(2, d_model) / d_model**0.5)
        self.encoder = pre_norm_encoder(d_model, layers, heads, d_hidden)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, p)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(batch, p)`` of token pairs ``(batch, 2)``."""
        hidden = self.encoder(self.embedding(tokens) + self.position)
        # The head reads position 0 only; without a mask it has attended to both tokens.
        return self.head(self.norm(hidden[:, 0]))
