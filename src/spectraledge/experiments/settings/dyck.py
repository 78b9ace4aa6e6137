"""Settings of the Dyck-1 runs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .training import TrainingSettings


class DyckSettings(TrainingSettings):
    """Depth of the stack after each bracket of a balanced sequence.

    Differs from the published run: 10,000 steps at any weight decay, where the published ones are 20,000 at decay 1
    and 10,000 at decay 0; never stopped early, where the published rule (ten evaluations in a row at 0.99) was
    hardly ever met; batches from a generator of their own; no evaluation on longer sequences.

    Attributes:
        n_train: Sequences trained on, repetitions included.
        n_test: Sequences tested on, repetitions included.
        max_pairs: Most pairs of brackets in a sequence, and the deepest class; the context is twice as long.
        data_seed: Of the sequences and their split; ``seed`` does not change them.
        labels: "true", or "shuffled": the depths of all distinct prefixes permuted, a placebo that can be memorised
            and never generalised.
        positions: Position vectors; those beyond the context are not used, but move the initialisation of
            everything after them. 48 as in the published runs; 24 in the published learning-rate sweep.
        d_model: Width. The published model is 128 wide with 2 layers, 4 heads and a hidden layer of 256.
        layers: Encoder layers.
        heads: Attention heads; divides ``d_model``.
        d_hidden: Width of the feed-forward layers.
    """

    batch_size: int = Field(50, ge=1)
    steps: int = Field(10_000, ge=1)
    stop_after_grok: int | None = Field(None, ge=0)
    n_train: int = Field(50, ge=1)
    n_test: int = Field(5000, ge=1)
    max_pairs: int = Field(12, ge=1, le=1000)
    data_seed: int = Field(0, ge=0, lt=2**32)
    labels: Literal["true", "shuffled"] = "true"
    positions: int = Field(48, ge=2)
    d_model: int = Field(128, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    d_hidden: int = Field(256, ge=1)

    @property
    def context(self) -> int:
        """Length of the longest sequence, to which all are padded."""
        return 2 * self.max_pairs

    @property
    def n_classes(self) -> int:
        """Depths 0 to ``max_pairs``."""
        return self.max_pairs + 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.positions < self.context:
            raise ValueError(
                f"positions must be at least twice max_pairs; got {self.positions} and {self.max_pairs}. "
                "Use positions=48 max_pairs=12 as in the published runs."
            )
        if self.d_model % self.heads:
            raise ValueError(
                f"d_model must be a multiple of heads; got {self.d_model} and {self.heads}. "
                "Use d_model=128 heads=4 as in the published runs."
            )
        return self
