"""The encoder-decoder transformer of the SCAN runs: 3,979,529 parameters.

Source: the network described for the SCAN runs of arXiv:2603.28964 (which states about 1.5 million parameters).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

# The first ids of either vocabulary; words follow.
PAD, SOS, EOS = 0, 1, 2


class ScanTransformer(nn.Module):
    """Pre-norm encoder and decoder, the decoder under a causal mask and read at every position.

    Token and position embeddings of commands and of actions N(0, 1); ``nn.Transformer`` without dropout and with
    biases everywhere, all its matrices drawn Xavier-uniform after copying, so that **layers differ**; its own final
    norms, one more LayerNorm, and an untied linear head. The encoder does not attend to padding, but the decoder
    does attend to what the encoder makes of it, as in the published runs: hand over commands padded to the full
    ``command_positions``. Padding of actions stands on the right only, where the causal mask hides it.

    Args:
        command_words: Vocabulary of commands, PAD, SOS and EOS included (the last two are never used).
        action_words: Vocabulary of actions, the same three included.
        command_positions: Position vectors of commands.
        action_positions: Position vectors of actions; sequences may be shorter.
        d_model: Width.
        layers: Encoder layers, and decoder layers.
        heads: Attention heads a layer.
        d_hidden: Width of the feed-forward layers.
    """

    # Parameters that face the data and not another layer: Muon leaves them to AdamW.
    outer: ClassVar[tuple[str, ...]] = (
        *("command_embedding.", "command_position.", "action_embedding.", "action_position."),
        "head.",
    )

    mask: Tensor

    def __init__(
        self,
        command_words: int = 16,
        action_words: int = 9,
        command_positions: int = 11,
        action_positions: int = 50,
        d_model: int = 256,
        layers: int = 3,
        heads: int = 4,
        d_hidden: int = 512,
    ) -> None:
        super().__init__()
        self.command_embedding = nn.Embedding(command_words, d_model)
        self.command_position = nn.Embedding(command_positions, d_model)
        self.action_embedding = nn.Embedding(action_words, d_model)
        self.action_position = nn.Embedding(action_positions, d_model)
        shape = {"dim_feedforward": d_hidden, "dropout": 0.0, "activation": "gelu", "batch_first": True}
        # What nn.Transformer builds, in the order in which it builds it, except for nested tensors: it asks for
        # them and then warns that norm_first cannot have them.
        layer = nn.TransformerEncoderLayer(d_model, heads, norm_first=True, **shape)  # type: ignore[arg-type]
        encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(d_model), enable_nested_tensor=False)
        self.transformer = nn.Transformer(
            d_model,
            heads,
            num_decoder_layers=layers,
            custom_encoder=encoder,
            norm_first=True,
            **shape,  # type: ignore[arg-type]
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, action_words)
        # True where attention is forbidden: to later positions. Not part of the saved state: nothing is learned.
        hidden = torch.ones(action_positions, action_positions, dtype=torch.bool).triu(diagonal=1)
        self.register_buffer("mask", hidden, persistent=False)

    def forward(self, commands: Tensor, actions: Tensor) -> Tensor:
        """Logits ``(batch, length, action_words)`` of the action after each of ``actions`` ``(batch, length)``.

        Args:
            commands: ``(batch, command_positions)``, padded with PAD.
            actions: SOS and the actions so far.
        """
        return self._decode(self._encode(commands), actions)

    @torch.no_grad()
    def generate(self, commands: Tensor) -> Tensor:
        """The likeliest action, one after the other, each read back: greedy decoding.

        Args:
            commands: ``(batch, command_positions)``, padded with PAD.

        Returns:
            ``(batch, length)``, EOS and whatever comes after it included; as long as the sequence that ends last, at
            most ``action_positions``.
        """
        memory = self._encode(commands)
        actions = torch.full((len(commands), 1), SOS, device=commands.device)
        ended = torch.zeros(len(commands), dtype=torch.bool, device=commands.device)
        while actions.shape[1] <= len(self.mask) and not ended.all():
            following = self._decode(memory, actions)[:, -1].argmax(-1)
            actions = torch.cat([actions, following[:, None]], dim=1)
            ended |= following == EOS
        return actions[:, 1:]

    def _encode(self, commands: Tensor) -> Tensor:
        hidden = self.command_embedding(commands) + self.command_position.weight
        return self.transformer.encoder(hidden, src_key_padding_mask=commands == PAD)

    def _decode(self, memory: Tensor, actions: Tensor) -> Tensor:
        length = actions.shape[1]
        hidden = self.action_embedding(actions) + self.action_position.weight[:length]
        mask = self.mask[:length, :length]
        return self.head(self.norm(self.transformer.decoder(hidden, memory, tgt_mask=mask, tgt_is_causal=True)))
