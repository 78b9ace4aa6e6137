"""Settings of the modular runs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .training import TrainingSettings

Operation = Literal["add", "sub", "mul", "x2_y2", "x2_xy_y2", "x3_xy"]


class ModularSettings(TrainingSettings):
    """Arithmetic modulo ``p`` on two tokens.

    Attributes:
        operation: add, sub, mul, x2_y2 (a^2 + b^2), x2_xy_y2 (a^2 + ab + b^2) or x3_xy (a^3 + ab). The last
            two are not known to grok at weight decay 1.
        p: Modulus; prime for mul.
        train_fraction: Share of all pairs that is trained on.
        labels: "true", or "shuffled": the targets of all pairs permuted, a placebo that can be memorised and
            never generalised.
        d_model: Width. The published model is 128 wide with 2 layers, 4 heads and a hidden layer of 256.
        layers: Encoder layers.
        heads: Attention heads; divides ``d_model``.
        d_hidden: Width of the feed-forward layers.
    """

    operation: Operation = "add"
    p: int = Field(97, ge=2, le=1000)
    train_fraction: float = Field(0.5, gt=0, lt=1)
    labels: Literal["true", "shuffled"] = "true"
    d_model: int = Field(128, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    d_hidden: int = Field(256, ge=1)

    @property
    def n_pairs(self) -> int:
        """Number of pairs, train and test together."""
        return (self.p - 1) ** 2 if self.operation == "mul" else self.p**2

    @property
    def n_train(self) -> int:
        """Number of pairs trained on, rounded down."""
        return int(self.train_fraction * self.n_pairs)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.operation == "mul" and not _is_prime(self.p):
            raise ValueError(
                "p must be prime for mul: only then are 1..p-1 closed under multiplication, so that every "
                f"target is one of them; got {self.p}. Use p=97 as in the paper."
            )
        if self.d_model % self.heads:
            raise ValueError(
                f"d_model must be a multiple of heads; got {self.d_model} and {self.heads}. "
                "Use d_model=128 heads=4 as in the paper."
            )
        if not 0 < self.n_train < self.n_pairs:
            raise ValueError(
                f"train_fraction must leave a pair on either side; got {self.train_fraction} of "
                f"{self.n_pairs} pairs. Use train_fraction=0.5 as in the paper."
            )
        return self


def _is_prime(n: int) -> bool:
    return n >= 2 and all(n % k for k in range(2, int(n**0.5) + 1))
