"""Settings of the quadratic runs."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from .number_lists import number_list
from .training import TrainingSettings


class QuadraticSettings(TrainingSettings):
    """A quadratic loss with a known Hessian and known gradient noise.

    Attributes:
        optimizer: "gd" (no noise) or "sgd": torch's SGD, weight decay coupled. "adamw", or "frozen_adamw"
            whose second moment is fixed: weight decay decoupled. Without momentum the two kinds of decay are
            the same.
        momentum: Of gd and sgd; 0 unless set. AdamW's kinds have ``betas``.
        batch_size: Not used: the noise is drawn as such.
        eigenvalues: Of the Hessian: "0.05,0.1,0.3", or "power:n,exponent" for j^-exponent, j = 1..n. 0 is a
            flat direction.
        repeat: Each eigenvalue this many times, its copies side by side.
        basis: "random", a rotation drawn by the seed, or "identity": parameters are the modes.
        tensors: Parameter tensors of equal length that the vector is cut into.
        noise: Variance of the gradient noise per step along each mode; 0 for gd.
        noise_shape: "constant" for all modes, or "proportional": ``noise`` times the eigenvalue.
        start: Distance of the first parameters from the optimum, in a direction drawn by the seed.
        optimum: Distance of the optimum from 0; matters with weight decay only.
        val_distance: Distance of the validation optimum from that of training.
        preconditioner_spread: Largest over smallest entry of the frozen sqrt(v), whose logarithms are evenly
            spaced about 0 and dealt out to the parameters by the seed.
    """

    optimizer_defaults: ClassVar[dict[str, dict[str, float]]] = {
        "gd": {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "noise": 0.0},
        "sgd": {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "noise": 0.01},
        "adamw": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0, "noise": 0.01},
        "frozen_adamw": {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0, "noise": 0.01},
    }

    optimizer: Literal["gd", "sgd", "adamw", "frozen_adamw"] = "gd"  # type: ignore[assignment]
    lr: float = Field(0.1, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0)
    steps: int = Field(2000, ge=1)
    stop_after_grok: int | None = Field(None, ge=0)
    device: Literal["cpu"] = "cpu"
    # Closed forms tell more than these baselines.
    defect_every: int | None = Field(0, ge=0)
    weight_spectra: int = Field(0, ge=0)
    dtype: Literal["float32", "float64"] = "float64"
    eigenvalues: str = "power:50,1"
    repeat: int = Field(1, ge=1)
    basis: Literal["random", "identity"] = "random"
    tensors: int = Field(1, ge=1)
    noise: float = Field(0.0, ge=0)
    noise_shape: Literal["constant", "proportional"] = "constant"
    start: float = Field(1.0, ge=0)
    optimum: float = Field(1.0, ge=0)
    val_distance: float = Field(0.5, ge=0)
    preconditioner_spread: float = Field(10.0, ge=1)

    @property
    def curvatures(self) -> tuple[float, ...]:
        """Eigenvalues in the order of the modes."""
        listed = number_list("eigenvalues", self.eigenvalues, zero=True)
        return tuple(value for value in listed for _ in range(self.repeat))

    @field_validator("eigenvalues")
    @classmethod
    def _eigenvalues_are_numbers(cls, value: str) -> str:
        number_list("eigenvalues", value, zero=True)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.optimizer == "gd" and self.noise:
            raise ValueError(f"noise must be 0 for gd; got {self.noise:g}. Use optimizer=sgd.")
        n = len(self.curvatures)
        if n % self.tensors:
            raise ValueError(
                f"tensors must divide the number of parameters; got {self.tensors} and {n}. Use tensors=1."
            )
        return self
