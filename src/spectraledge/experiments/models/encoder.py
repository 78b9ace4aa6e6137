"""The encoder that the modular and the Dyck networks share."""

from __future__ import annotations

from torch import nn


def pre_norm_encoder(d_model: int, layers: int, heads: int, d_hidden: int) -> nn.TransformerEncoder:
    """Pre-norm layers with exact GELU, biases and no dropout, batch first, without a final norm.

    ``nn.TransformerEncoder`` copies one layer, so that **all layers start with equal weights**.

    Args:
        d_model: Width.
        layers: Layers.
        heads: Attention heads a layer.
        d_hidden: Width of the feed-forward layers.

    Source: the networks of arXiv:2602.16746 and arXiv:2602.16967.
    """
    layer = nn.TransformerEncoderLayer(
        d_model,
        heads,
        dim_feedforward=d_hidden,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
