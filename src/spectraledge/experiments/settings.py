"""The settings of catalogued experiments: names, ranges, defaults and where the defaults come from.

Knows nothing about torch, so that names and ranges can be listed and checked before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import SettingError
from .sentences import setting_sentences

Operation = Literal["add", "sub", "mul", "x2_y2", "x2_xy_y2", "x3_xy"]

# Per optimizer: learning rate, momentum, weight decay.
# adamw: the published modular runs. muon: the usual public defaults, learning rate 0.02 and momentum 0.95.
# sgd: decay enters the gradient, so momentum multiplies it by 1 / (1 - 0.9); 1e-3 then shrinks weights by
# lr * wd / (1 - momentum) = 1e-3 a step, the rate of AdamW at lr 1e-3 and decay 1.
OPTIMIZER_DEFAULTS: dict[str, dict[str, float]] = {
    "adamw": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 1.0},
    "muon": {"lr": 0.02, "momentum": 0.95, "weight_decay": 1.0},
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
}

SettingsT = TypeVar("SettingsT", bound="TrainingSettings")


class TrainingSettings(BaseModel):
    """What every experiment can set, whatever its task and model.

    Attributes:
        optimizer: "adamw" (all parameters), "muon" (hidden matrices; AdamW for the rest) or "sgd".
        lr: Learning rate per optimizer step; 1e-3 for AdamW, 0.02 for Muon, 0.1 for SGD.
        adamw_lr: Learning rate of the AdamW half under Muon; not used otherwise.
        betas: AdamW's two decay rates.
        momentum: Of Muon (0.95) and SGD (0.9); not used by AdamW.
        weight_decay: Decoupled (AdamW, Muon): weights shrink by lr * weight_decay a step. Coupled (SGD):
            added to the gradient. 1.0, and 1e-3 for SGD.
        schedule: "constant", or "cosine" to a tenth of ``lr`` at the last step.
        warmup: Steps of linear warm-up.
        batch_size: Examples a step, drawn with replacement.
        clip: Global gradient norm above which gradients are scaled down; None for no clipping.
        steps: Optimizer steps at most.
        eval_every: Optimizer steps between evaluations; step 1 is always evaluated.
        stop_after_grok: Evaluations to go on after grokking (three in a row at 0.98) before stopping; None to
            never stop early.
        seed: Of initialisation, data split and batches.
        threads: CPU threads of torch; part of the settings because it changes the last bits of every sum.
        dtype: Of parameters and arithmetic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    lr: float = Field(gt=0, default=1e-3)
    adamw_lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(1.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(0, ge=0)
    batch_size: int = Field(512, ge=1)
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

    @model_validator(mode="before")
    @classmethod
    def _optimizer_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        chosen = values.get("optimizer", "adamw")
        defaults = OPTIMIZER_DEFAULTS.get(str(chosen), OPTIMIZER_DEFAULTS["adamw"])
        return {**defaults, **values}

    @field_validator("clip", "stop_after_grok", mode="before")
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


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """Split ``key=value`` words; types are checked later, by the experiment's own settings.

    Raises:
        SettingError: If a word has no "=" or no key, or a key comes twice with different values.

    Example:
        >>> parse_settings(["weight_decay=0", "betas=0.9,0.98"])
        {'weight_decay': '0', 'betas': '0.9,0.98'}
    """
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key, value = key.strip().replace("-", "_"), value.strip()
        if not equals or not key or not value:
            raise SettingError(f"a setting must read key=value; got {pair!r}. Write for example weight_decay=0.")
        if values.get(key, value) != value:
            raise SettingError(
                f"a setting must be given once; got {key}={values[key]} and {key}={value}. Keep one of them."
            )
        values[key] = value
    return values


def build_settings(
    kind: type[SettingsT],
    values: Mapping[str, object],
    *,
    name: str,
    fixed: Mapping[str, object] | None = None,
) -> SettingsT:
    """Validated settings of one experiment.

    Args:
        kind: The experiment's settings class.
        values: What the caller set; text as given on a command line is accepted for every field.
        name: The experiment's name, for messages.
        fixed: Values that the name implies; setting one of them to something else is refused.

    Raises:
        SettingError: On an unknown name (the nearest is suggested), a value out of range, or a fixed value
            changed.

    Example:
        >>> build_settings(ModularSettings, {"optimizer": "muon"}, name="modular/add").lr
        0.02
    """
    fixed = dict(fixed or {})
    for key, value in fixed.items():
        if key in values and str(values[key]) != str(value):
            raise SettingError(
                f"{key} is fixed by the name {name} to {value}; got {values[key]}. Choose the experiment by its name."
            )
    try:
        return kind(**{**values, **fixed})  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingError(" ".join(setting_sentences(error, kind, name))) from None


def _is_prime(n: int) -> bool:
    return n >= 2 and all(n % k for k in range(2, int(n**0.5) + 1))
