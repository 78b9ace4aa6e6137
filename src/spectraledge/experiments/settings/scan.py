"""Settings of the SCAN runs, published and small."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from .training import OPTIMIZER_DEFAULTS, TrainingSettings

# Of the simple split: four fifths of 20,910 commands, and the rest.
N_LINES = {"train": 16_728, "test": 4_182}


class ScanSettings(TrainingSettings):
    """Commands to action sequences, SCAN's simple split.

    Differs from the published run: a split of our own where no files are given; 30,000 steps at any weight decay,
    where the published ones without it end at 20,000; batches from a generator of their own; words numbered in a
    fixed order and not as the files bring them; 512 of the training commands evaluated.

    Attributes:
        n_train: Commands trained on, of 16,728.
        n_test: Commands tested on, of 4,182.
        data_seed: Of both subsets, and of the split where there are no files; ``seed`` does not change them.
        train_file: The official training lines, ``IN: command OUT: actions``; None for a split of our own.
        test_file: The official test lines; given where ``train_file`` is.
        labels: "true", or "shuffled": the action sequences of all commands permuted, train and test together, a
            placebo that can be memorised and never generalised.
        d_model: Width. The published model is 256 wide with 3 + 3 layers, 4 heads and a hidden layer of 512.
        layers: Encoder layers, and decoder layers.
        heads: Attention heads; divides ``d_model``.
        d_hidden: Width of the feed-forward layers.
    """

    optimizer_defaults: ClassVar[dict[str, dict[str, float]]] = {
        **OPTIMIZER_DEFAULTS,
        "adamw": {"lr": 1e-4, "momentum": 0.0, "weight_decay": 1.0},
    }

    lr: float = Field(1e-4, gt=0)
    batch_size: int = Field(256, ge=1)
    steps: int = Field(30_000, ge=1)
    eval_every: int = Field(500, ge=1)
    # Grokking is the third evaluation in a row; the published runs stop at the fifth.
    stop_after_grok: int | None = Field(2, ge=0)
    n_train: int = Field(2048, ge=1, le=N_LINES["train"])
    n_test: int = Field(500, ge=1, le=N_LINES["test"])
    data_seed: int = Field(0, ge=0, lt=2**32)
    train_file: str | None = None
    test_file: str | None = None
    labels: Literal["true", "shuffled"] = "true"
    d_model: int = Field(256, ge=1)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    d_hidden: int = Field(512, ge=1)

    @field_validator("train_file", "test_file", mode="before")
    @classmethod
    def _no_file_from_text(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() in ("", "none", "null") else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.train_file is None) != (self.test_file is None):
            raise ValueError(
                f"train_file and test_file must be given together; got {self.train_file} and {self.test_file}. "
                "Give both, or none for a split of our own."
            )
        if self.d_model % self.heads:
            raise ValueError(
                f"d_model must be a multiple of heads; got {self.d_model} and {self.heads}. "
                "Use d_model=256 heads=4 as in the published runs."
            )
        return self


class SmallScanSettings(ScanSettings):
    """The same task and kind of network at a size that one core trains in minutes; the choices are ours.

    90,185 parameters in 1 + 1 layers; some 45 ms a step on one core. As many commands are trained on as in the
    published runs: fewer would save no time, and 512 of them are soon known by heart and say little about the rest.

    Attributes: those of `ScanSettings`.
    """

    # At 1e-3 and decay 1 accuracy on the training set itself had not passed 0.88 (512 commands, 1,600 steps) and 0.84
    # (1,024 commands, 2,400 steps), and went up and down by a tenth.
    optimizer_defaults: ClassVar[dict[str, dict[str, float]]] = {
        **OPTIMIZER_DEFAULTS,
        "adamw": {"lr": 5e-4, "momentum": 0.0, "weight_decay": 1.0},
    }

    lr: float = Field(5e-4, gt=0)
    batch_size: int = Field(64, ge=1)
    steps: int = Field(6000, ge=1)
    eval_every: int = Field(100, ge=1)
    stop_after_grok: int | None = Field(10, ge=0)
    d_model: int = Field(64, ge=1)
    layers: int = Field(1, ge=1)
    heads: int = Field(4, ge=1)
    d_hidden: int = Field(128, ge=1)
