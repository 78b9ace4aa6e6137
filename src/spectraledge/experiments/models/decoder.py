"""The decoder-only transformer of the language runs: 51,045,888 parameters at the published size.

Source: the network described for the TinyStories runs of arXiv:2603.28964.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class Decoder(nn.Module):
    """Pre-norm causal decoder with learned positions, whose output matrix is its embedding.

    Linear layers without biases, LayerNorms with them; GELU; no dropout; embeddings, positions and matrices all
    N(0, 0.02). Query, key and value are one matrix of shape (3 d_model, d_model).

    Args:
        vocab_size: Number of token numbers.
        context: Position vectors; sequences may be shorter.
        d_model: Width.
        layers: Decoder layers.
        heads: Attention heads a layer.
        d_hidden: Width of the feed-forward layers.

    Example:
        >>> model = Decoder(vocab_size=20, context=8, d_model=8, layers=1, heads=2, d_hidden=16)
        >>> model(torch.tensor([[3, 1, 4]])).shape
        torch.Size([1, 3, 20])
    """

    # Parameters that face the data and not another layer: Muon leaves them to AdamW.
    outer: ClassVar[tuple[str, ...]] = ("embedding.", "position.")

    def __init__(
        self,
        vocab_size: int = 50_257,
        context: int = 256,
        d_model: int = 512,
        layers: int = 8,
        heads: int = 16,
        d_hidden: int = 2048,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(context, d_model)
        self.layers = nn.ModuleList(DecoderLayer(d_model, heads, d_hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        """Logits ``(batch, length, vocab_size)`` of the token after each of ``tokens`` ``(batch, length)``.

        Args:
            tokens: Token numbers.
            at: One position of each sequence, ``(batch,)``, whose logits alone are wanted: ``(batch, vocab_size)``.
        """
        hidden = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden)
        if at is not None:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), at]
        return functional.linear(self.norm(hidden), self.embedding.weight)


class DecoderLayer(nn.Module):
    """Causal self-attention and two linear layers, each behind a LayerNorm and beside a residual connection."""

    def __init__(self, d_model: int, heads: int, d_hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.hidden_norm = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, d_hidden, bias=False)
        self.down = nn.Linear(d_hidden, d_model, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, length, d_model)`` to the same shape."""
        hidden = hidden + self.out(self._attend(self.qkv(self.attention_norm(hidden))))
        return hidden + self.down(functional.gelu(self.up(self.hidden_norm(hidden))))

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, length, _ = qkv.shape
        # (3, batch, heads, length, d_model / heads)
        query, key, value = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, length, -1)
