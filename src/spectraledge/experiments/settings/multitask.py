"""Settings of the multi-task modular runs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from .modular import ModularSettings, Operation
from .training import TrainingSettings

# Order of the heads: their initialisation is drawn in it.
HEADS: dict[str, tuple[Operation, ...]] = {"dual": ("add", "mul"), "tri": ("add", "mul", "x2_y2")}


class MultiTaskSettings(TrainingSettings):
    """Several operations modulo ``p`` on the same two tokens: one trunk, a head for each.

    Differs from the published runs: ``steps`` (theirs end at 300,000, or 50,000 without weight decay) and
    ``stop_after_grok`` (theirs end with the evaluation that completes the last operation's grokking).

    Attributes:
        tasks: "dual": add and mul; "tri": add, mul and x2_y2 (a^2 + b^2).
        p: Modulus, prime; pairs are those of 1..p-1.
        train_fraction: Share of all pairs that is trained on.
        labels: "true", or "shuffled": each head's targets permuted over all pairs, independently of the other
            heads; a placebo that can be memorised and never generalised.
        d_model: Width. The published trunk is 128 wide with 2 layers, 4 heads and a hidden layer of 256.
        layers: Encoder layers.
        heads: Attention heads a layer; divides ``d_model``.
        d_hidden: Width of the feed-forward layers.
    """

    # Published runs at weight decay 1: dual grok by step 16,300, tri by 30,500.
    steps: int = Field(40_000, ge=1)
    tasks: Literal["dual", "tri"] = "dual"
    p: int = Field(97, ge=2, le=1000)
    train_fraction: float = Field(0.5, gt=0, lt=1)
    labels: Literal["true", "shuffled"] = "true"
    d_model: int = Field(128, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    d_hidden: int = Field(256, ge=1)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """One for each head, in order."""
        return HEADS[self.tasks]

    @property
    def pairs(self) -> ModularSettings:
        """Settings of the one-operation run with the same pairs, split, batches and network: that of mul."""
        shared = ("p", "train_fraction", "d_model", "layers", "heads", "d_hidden", "batch_size", "seed", "device")
        return ModularSettings(operation="mul", **{name: getattr(self, name) for name in shared})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            self.pairs  # noqa: B018 - what the one-operation run refuses is refused here, in its words
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(str(first.get("ctx", {}).get("error", first["msg"]))) from None
        return self
