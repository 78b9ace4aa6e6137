"""What every catalogued experiment can set, with the defaults of each optimizer."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Per optimizer: learning rate, momentum, weight decay.
# adamw: the published modular runs. muon: the usual public defaults, learning rate 0.02 and momentum 0.95.
# sgd: decay enters the gradient, so momentum multiplies it by 1 / (1 - 0.9); 1e-3 then shrinks weights by
# lr * wd / (1 - momentum) = 1e-3 a step, the rate of AdamW at lr 1e-3 and decay 1.
# nesterov: decay is decoupled, so that 0.1 * 0.01 = 1e-3 a step is again that rate.
OPTIMIZER_DEFAULTS: dict[str, dict[str, float]] = {
    "adamw": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 1.0},
    "muon": {"lr": 0.02, "momentum": 0.95, "weight_decay": 1.0},
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
}


class TrainingSettings(BaseModel):
    """What every experiment can set, whatever its task and model.

    Attributes:
        optimizer: "adamw" (all parameters), "muon" (hidden matrices; AdamW for the rest), "sgd", or "nesterov"
            (SGD with Nesterov's momentum and decoupled decay).
        lr: Learning rate per optimizer step; 1e-3 for AdamW, 0.02 for Muon, 0.1 for SGD and Nesterov.
        adamw_lr: Learning rate of the AdamW half under Muon; not used otherwise.
        betas: AdamW's two decay rates.
        momentum: Of Muon (0.95), SGD and Nesterov (0.9; 0 is plain SGD); not used by AdamW.
        weight_decay: Decoupled (AdamW, Muon, Nesterov): weights shrink by lr * weight_decay a step. Coupled (SGD):
            added to the gradient. 1.0; 1e-3 for SGD and 0.01 for Nesterov, which shrink weights at the same rate.
        decay_norms: Whether norms and biases (tensors of fewer than two dimensions) decay too.
        schedule: "constant", or "cosine" to a tenth of ``lr`` at the last step.
        warmup: Steps of linear warm-up.
        batch_size: Examples drawn at once, with replacement.
        accumulate: Batches whose gradients are averaged in one optimizer step.
        clip: Global gradient norm above which gradients are scaled down; None for no clipping.
        steps: Optimizer steps at most.
        eval_every: Optimizer steps between evaluations; step 1 is always evaluated.
        stop_after_grok: Evaluations to go on after grokking (three in a row at 0.98) before stopping; None to
            never stop early.
        seed: Of initialisation, data split and batches.
        threads: CPU threads of torch; part of the settings because it changes the last bits of every sum.
        dtype: Of parameters and arithmetic.
        device: Of parameters and data, as torch names it. Batches are drawn on the CPU: the same data everywhere.
        defect_every: Optimizer steps between measurements of the commutator defect, a baseline; 0 for never, None
            for each evaluation.
        defect_pairs: Pairs of batches of one measurement; the median is recorded.
        weight_spectra: Leading singular values of each hidden weight matrix recorded at each evaluation; 0 for none.
        sharpness_every: Optimizer steps between measurements of the largest Hessian eigenvalue of the training
            loss; 0 for never.
    """

    optimizer_defaults: ClassVar[dict[str, dict[str, float]]] = OPTIMIZER_DEFAULTS

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    optimizer: Literal["adamw", "muon", "sgd", "nesterov"] = "adamw"
    lr: float = Field(gt=0, default=1e-3)
    adamw_lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(1.0, ge=0)
    decay_norms: bool = True
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(0, ge=0)
    batch_size: int = Field(512, ge=1)
    accumulate: int = Field(1, ge=1)
    clip: float | None = Field(1.0, gt=0)
    # Published grok steps at lr 1e-3 and decay 1 are 2,500 to 3,800; the non-grokking operations were
    # followed for 7,500. 8,000 covers both.
    steps: int = Field(8000, ge=1)
    eval_every: int = Field(100, ge=1)
    # Windows end up to window * every steps after the last update they hold, so a run cut at the grok step
    # would leave the event at its edge; 10 evaluations are the 1,000 steps that the published defect runs
    # went on.
    stop_after_grok: int | None = Field(10, ge=0)
    seed: int = Field(42, ge=0, lt=2**32)
    threads: int = Field(1, ge=1)
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    defect_every: int | None = Field(None, ge=0)
    # One pair costs some nine gradients: at one measurement in 100 steps, a tenth of the run.
    defect_pairs: int = Field(1, ge=1)
    # Position 2 and its neighbours: what the published weight-matrix gaps are read from.
    weight_spectra: int = Field(4, ge=0)
    sharpness_every: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _optimizer_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        usual = cls.model_fields["optimizer"].default
        chosen = values.get("optimizer", usual)
        defaults = cls.optimizer_defaults.get(str(chosen), cls.optimizer_defaults[usual])
        return {**defaults, **values}

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.optimizer == "nesterov" and self.momentum == 0:
            raise ValueError("momentum must be above 0 for nesterov; got 0. Use optimizer=sgd for plain SGD.")
        return self

    @field_validator("clip", "stop_after_grok", "defect_every", mode="before")
    @classmethod
    def _none_from_text(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() in ("none", "null") else value

    @field_validator("betas", mode="before")
    @classmethod
    def _pair_from_text(cls, value: object) -> object:
        return value.strip("()[] ").split(",") if isinstance(value, str) else value

    @field_validator("betas")
    @classmethod
    def _betas_below_one(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(
                f"betas must both lie in [0, 1); got {value[0]:g},{value[1]:g}. Use betas=0.9,0.98 as in the paper."
            )
        return value
