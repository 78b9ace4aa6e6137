"""Settings of the deep linear runs."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from .number_lists import number_list
from .training import TrainingSettings


class DeepLinearSettings(TrainingSettings):
    """A network W_L ... W_1 x that learns a linear map of known singular values.

    Attributes:
        optimizer: "gd" or "sgd": torch's SGD, weight decay coupled; or "adamw".
        targets: Singular values of the map: "3,2,1", or "power:n,exponent". Their number is the dimension of
            inputs and outputs.
        layers: L.
        width: Of the hidden layers; at least the dimension, which is the default.
        init: "balanced": every mode starts with strength ``initial``, equal in all layers and aligned with
            the map, so that it stays alone. "small": independent normal entries of standard deviation
            ``initial``.
        initial: See ``init``.
        n_train: Whitened training inputs.
        n_test: Standard normal test inputs.
        batches: "full", or "drawn": ``batch_size`` inputs a step, with replacement.
    """

    optimizer_defaults: ClassVar[dict[str, dict[str, float]]] = {
        "gd": {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0},
        "sgd": {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0},
        "adamw": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0},
    }

    optimizer: Literal["gd", "sgd", "adamw"] = "gd"  # type: ignore[assignment]
    lr: float = Field(0.01, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(16, ge=1)
    clip: float | None = Field(None, gt=0)
    steps: int = Field(1000, ge=1)
    stop_after_grok: int | None = Field(None, ge=0)
    device: Literal["cpu"] = "cpu"
    # Closed forms tell more than these baselines.
    defect_every: int | None = Field(0, ge=0)
    weight_spectra: int = Field(0, ge=0)
    dtype: Literal["float32", "float64"] = "float64"
    targets: str = "4,3,2,1"
    layers: int = Field(2, ge=1)
    width: int | None = Field(None, ge=1)
    init: Literal["balanced", "small"] = "balanced"
    initial: float = Field(0.001, gt=0)
    n_train: int = Field(64, ge=1)
    n_test: int = Field(256, ge=1)
    batches: Literal["full", "drawn"] = "full"

    @property
    def singular_values(self) -> tuple[float, ...]:
        """Of the map to be learned, in the order given."""
        return number_list("targets", self.targets)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of input, hidden layers and output."""
        n = len(self.singular_values)
        return (n, *(self.width or n for _ in range(self.layers - 1)), n)

    @field_validator("targets")
    @classmethod
    def _targets_are_numbers(cls, value: str) -> str:
        number_list("targets", value)
        return value

    @field_validator("width", mode="before")
    @classmethod
    def _width_from_text(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() in ("none", "null") else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        n = len(self.singular_values)
        if self.width is not None and self.width < n:
            raise ValueError(
                f"width must be at least the number of targets; got {self.width} and {n}. Leave width out."
            )
        if self.n_train < n:
            raise ValueError(
                f"n_train must be at least the number of targets, for whitened inputs; got {self.n_train} and {n}. "
                "Use n_train=64."
            )
        return self
