"""The loop: repeatable, not altered by measuring, stopping where it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spectraledge.experiments import catalogue
from spectraledge.experiments.loop import Position, train
from spectraledge.experiments.optimizers import build_optimizers
from spectraledge.experiments.session import own_torch
from spectraledge.experiments.settings import ModularSettings
from spectraledge.experiments.tasks.base import Experiment

TINY: dict[str, Any] = {
    "p": 7,
    "d_model": 8,
    "layers": 1,
    "heads": 2,
    "d_hidden": 8,
    "batch_size": 8,
    "steps": 24,
    "eval_every": 8,
}


def trained(**values: Any) -> tuple[list[torch.Tensor], list[dict[str, float]]]:
    settings = ModularSettings(**{**TINY, **values})
    logged: list[dict[str, float]] = []
    with own_torch(settings):
        experiment = catalogue.entry("modular/add").build(settings)
        experiment.model.to(getattr(torch, settings.dtype))
        optimizers = build_optimizers(experiment.model, settings, experiment.outer)
        train(experiment, optimizers, settings, log=lambda **metrics: logged.append(metrics))
    return [p.detach().clone() for p in experiment.model.parameters()], logged


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_two_runs_are_bit_equal_and_seeds_differ(optimizer: str) -> None:
    first, logged = trained(optimizer=optimizer)
    second, again = trained(optimizer=optimizer)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert logged == again
    other, _ = trained(optimizer=optimizer, seed=43)
    assert not torch.equal(first[0], other[0])


def test_how_often_one_measures_does_not_alter_the_run() -> None:
    rarely, _ = trained(eval_every=24)
    always, logged = trained(eval_every=1)
    assert len(logged) == 24
    assert all(torch.equal(a, b) for a, b in zip(rarely, always, strict=True))


def test_evaluations_come_at_step_one_and_every_interval() -> None:
    _, logged = trained()
    assert len(logged) == 4  # 1, 8, 16, 24
    assert set(logged[0]) == {
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "batch_loss",
        "grad_norm",
        "lr",
    }


def test_wider_arithmetic_starts_from_the_same_weights() -> None:
    narrow, wide = trained(steps=1)[0], trained(steps=1, dtype="float64")[0]
    assert wide[0].dtype == torch.float64
    # One AdamW step moves an entry by at most lr (1e-3) in either; its size may differ near zero gradients.
    assert all(torch.allclose(a.double(), b, rtol=0, atol=2.1e-3) for a, b in zip(narrow, wide, strict=True))


def test_clipping_limits_what_sgd_moves() -> None:
    start = trained(steps=1, optimizer="sgd", lr=1e-30, weight_decay=0, momentum=0)[0]
    moved = trained(steps=1, optimizer="sgd", lr=1.0, weight_decay=0, momentum=0, clip=0.01)[0]
    norm = float(sum(((a - b) ** 2).sum() for a, b in zip(start, moved, strict=True))) ** 0.5
    # At lr 1 the update is the clipped gradient, of norm 0.01; float32 subtraction of entries of order 1
    # leaves 6e-8 an entry over 887 entries, 2e-6 in all.
    assert norm == pytest.approx(0.01, abs=5e-6)
    _, logged = trained(steps=1, clip=None)
    _, clipped = trained(steps=1, clip=0.01)
    assert logged[0]["grad_norm"] == pytest.approx(clipped[0]["grad_norm"], rel=1e-6)  # before clipping


def test_the_callers_generators_threads_and_defaults_are_untouched() -> None:
    import random

    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    try:
        changed, _ = trained(threads=1)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert torch.get_num_threads() == threads
    assert all(torch.equal(a, b) for a, b in zip(changed, trained()[0], strict=True))


class Scripted:
    """A task whose test accuracy is written in advance, one value an evaluation."""

    def __init__(self, accuracy: list[float]) -> None:
        self.accuracy = iter(accuracy)

    def draw(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: None) -> torch.Tensor:
        return model(torch.ones(1, 1)).sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        value = next(self.accuracy)
        return {"test_accuracy": value, "test_other": 1.0, "test_loss": 0.0}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        return None


@pytest.mark.parametrize(("go_on", "last"), [(0, 50), (2, 70), (None, 100)])
def test_stopping_after_grokking(go_on: int | None, last: int) -> None:
    # Evaluations at 1, 10, 20, ...; three in a row at 0.98 are those of 30, 40 and 50.
    script = [0.0, 0.99, 0.5, 0.98, 0.99, 0.99, 0.1, 0.1, 0.1, 0.1, 0.1]
    settings = ModularSettings(steps=100, eval_every=10, stop_after_grok=go_on)
    model = nn.Linear(1, 1)
    experiment = Experiment(model, Scripted(script))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    position = train(experiment, [optimizer], settings, log=lambda **metrics: None)
    assert position.step == last
    assert position.reason == ("steps" if go_on is None else "grokked")


def test_a_finished_position_trains_no_further() -> None:
    model = nn.Linear(1, 1)
    position = Position(step=5, reason="steps")
    done = train(Experiment(model, Scripted([])), [], ModularSettings(), log=print, position=position)
    assert done.step == 5
