"""The causal transformer of the Dyck runs: 273,421 parameters with 48 position vectors, 270,349 with 24.

Source: the network described for the Dyck runs of arXiv:2603.28964 (which states about 150,000 parameters).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .encoder import pre_norm_encoder


class DyckTransformer(nn.Module):
    """Pre-norm encoder under a causal mask, read at every position.

    Token embedding and position embedding N(0, 1), encoder layers without dropout and with biases everywhere, a
    final LayerNorm and an untied linear head. ``nn.TransformerEncoder`` copies one layer, so that **all layers start
    with equal weights**, as in the published runs. Padding stands on the right only, where a causal mask hides it
    from every bracket; no padding mask is needed.

    Args:
        n_classes: Depths told apart.
        positions: Position vectors; sequences may be shorter.
        d_model: Width.
        layers: Encoder layers.
        heads: Attention heads a layer.
        d_hidden: Width of the feed-forward layers.
    """

    # Parameters that face the data and not another layer: Muon leaves them to AdamW.
    outer: ClassVar[tuple[str, ...]] = ("embedding.", "position.", "head.")

    mask: Tensor

    def __init__(
        self,
        n_classes: int = 13,
        positions: int = 48,
        d_model: int = 128,
        layers: int = 2,
        heads: int = 4,
        d_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, d_model)
        self.position = nn.Embedding(positions, d_model)
        self.encoder = pre_norm_encoder(d_model, layers, heads, d_hidden)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_classes)
        # True where attention is forbidden: to later positions. Not part of the saved state: nothing is learned.
        hidden = torch.ones(positions, positions, dtype=torch.bool).triu(diagonal=1)
        self.register_buffer("mask", hidden, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(batch, length, n_classes)`` of tokens ``(batch, length)``."""
        length = tokens.shape[1]
        hidden = self.embedding(tokens) + self.position.weight[:length]
        hidden = self.encoder(hidden, mask=self.mask[:length, :length], is_causal=True)
        return self.head(self.norm(hidden))
