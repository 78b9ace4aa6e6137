"""Settings of the two-layer modular addition runs."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from .training import TrainingSettings


class TwoLayerSettings(TrainingSettings):
    """Addition modulo ``p`` of one-hot pairs by one hidden layer, f = V s(W x), without biases.

    Defaults are the published run: full batches, Adam with coupled decay (its "eta"), no clipping, 400 steps, one
    being an epoch; 800 where ``activation="relu"``. Differs from it: evaluations every 5 steps (theirs: each), and
    snapshots are the recording's business (theirs: each step, window 20, the first layer alone).

    Attributes:
        optimizer: "adam" (decay coupled: added to the gradient), "adamw", or "muon" (W; AdamW for V). Learning
            rate and decay of the last two are this package's choice.
        p: Modulus.
        train_fraction: Share of the p^2 pairs that is trained on.
        labels: "true", or "shuffled": the targets of all pairs permuted, a placebo that can be memorised and
            never generalised.
        d_hidden: Hidden units.
        activation: s; "square" or "relu".
        batches: "full", or "drawn": ``batch_size`` pairs a step, with replacement.
    """

    # The last two grok within the published 400 steps; at a quarter of AdamW's decay it does not.
    optimizer_defaults: ClassVar[dict[str, dict[str, float]]] = {
        "adam": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 2e-4},
        "adamw": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 4.0},
        "muon": {"lr": 0.02, "momentum": 0.95, "weight_decay": 1.0},
    }

    optimizer: Literal["adam", "adamw", "muon"] = "adam"  # type: ignore[assignment]
    weight_decay: float = Field(2e-4, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(None, gt=0)
    steps: int = Field(400, ge=1)
    eval_every: int = Field(5, ge=1)
    # The published spectral event comes after the grok step.
    stop_after_grok: int | None = Field(None, ge=0)
    # Two full batches are equal, and gradients of one loss commute.
    defect_every: int | None = Field(0, ge=0)
    p: int = Field(71, ge=2, le=1000)
    train_fraction: float = Field(0.4, gt=0, lt=1)
    labels: Literal["true", "shuffled"] = "true"
    d_hidden: int = Field(2048, ge=1)
    activation: Literal["square", "relu"] = "square"
    batches: Literal["full", "drawn"] = "full"

    @property
    def n_train(self) -> int:
        """Number of pairs trained on, rounded down."""
        return int(self.train_fraction * self.p**2)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.n_train < self.p**2:
            raise ValueError(
                f"train_fraction must leave a pair on either side; got {self.train_fraction} of {self.p**2} pairs. "
                "Use train_fraction=0.4 as published."
            )
        return self
