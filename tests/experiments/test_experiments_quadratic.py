"""The exact worlds as runs: what is recorded is what the closed forms say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectraledge.errors import SettingError
from spectraledge.experiments import catalogue
from spectraledge.experiments.config import configure
from spectraledge.experiments.frozen_adamw import FrozenAdamW
from spectraledge.experiments.run import run
from spectraledge.experiments.settings import DeepLinearSettings, QuadraticSettings, build_settings
from spectraledge.experiments.tasks.deep_linear import DeepLinearTask, linear_data, linear_init
from spectraledge.experiments.tasks.quadratic import QuadraticTask
from spectraledge.experiments.tasks.quadratic_world import closed_form_gram, quadratic_world
from spectraledge.recording import Recording
from spectraledge.theory.deep_linear import deep_linear_descent, deep_linear_flow
from spectraledge.theory.gap import gap_position
from spectraledge.theory.hierarchy import hierarchy_exponent, inverted_hierarchy_slope
from spectraledge.theory.linear_descent import collapse_time
from spectraledge.theory.stationary import stationary_strengths


def gram(recording: Recording, last: int, window: int, block: int = 0) -> np.ndarray:
    rows = np.arange(last - window + 1, last + 1)
    lags = rows[:, None] - rows
    return recording.products[np.maximum(rows[:, None], rows), block, np.abs(lags)]


EXACT: dict[str, dict[str, Any]] = {
    "gd": {"weight_decay": 0.3},
    "gd with alternating and flat modes": {
        "eigenvalues": "3.5,1,0.3,0.1,0.01,0",
        "basis": "identity",
        "tensors": 3,
        "lr": 0.5,
        "weight_decay": 0.02,
    },
    "momentum": {"momentum": 0.9, "weight_decay": 0.2},
    "frozen_adamw": {"optimizer": "frozen_adamw", "noise": 0, "weight_decay": 0.2, "lr": 0.05},
}


@pytest.mark.parametrize("name", EXACT)
def test_products_of_a_run_without_noise_are_the_closed_form(name: str) -> None:
    settings = {**EXACT[name], "steps": 150}
    recording = run("quadratic", settings=settings, every=5, window=10)
    for last in (9, 14, 29):
        predicted = closed_form_gram(QuadraticSettings(**settings), stride=5, window=10, start=(last - 9) * 5)
        # Updates shrink to 1e-5 of the parameters at most, which are rounded to 1e-16: 1e-11 of an update.
        np.testing.assert_allclose(gram(recording, last, 10), predicted, rtol=1e-9, atol=1e-9 * predicted.max())


def test_singular_values_and_the_gap_are_the_closed_form() -> None:
    settings = {"eigenvalues": "power:200,1", "lr": 0.2, "steps": 100}
    recording = run("quadratic", settings=settings, every=1, window=10)
    spectra = recording.spectra(window=10)
    predicted = np.sqrt(
        np.abs(np.linalg.eigvalsh(closed_form_gram(QuadraticSettings(**settings), stride=1, window=10))[::-1])
    )
    # Both go through a Gram in float64: sigma^2 is good to about 1e-15 of the first, and the fourth sigma is
    # 1e-4 of it.
    np.testing.assert_allclose(spectra.singular_values[0, :4], predicted[:4], rtol=1e-6)
    assert gap_position(spectra.singular_values[0], floor=spectra.floor[0]) == gap_position(
        predicted, floor=spectra.floor[0]
    )


@pytest.fixture(scope="module")
def noisy() -> tuple[dict[str, Any], Recording]:
    settings = {
        "optimizer": "sgd",
        "noise": 1.0,
        "start": 0.0,
        "eigenvalues": "0.05,0.1,0.3,1,3,10",
        "repeat": 500,
        "basis": "identity",
        "tensors": 6,
        "lr": 0.1,
        "steps": 3000,
        "eval_every": 1000,
    }
    return settings, run("quadratic", settings=settings, every=50, window=10, lags=9)


def test_strengths_at_rest_are_those_of_stationary_sgd(noisy: tuple[dict[str, Any], Recording]) -> None:
    settings, recording = noisy
    h = np.array([0.05, 0.1, 0.3, 1.0, 3.0, 10.0])
    # From step 1000, five times the slowest mode's relaxation time 1 / (lr h) = 200, energy within 5e-5 of rest.
    energy = np.nanmean(recording.products[20:, 1:, 0], axis=0) / settings["repeat"]
    strengths = np.sqrt(10 * energy)
    # 500 modes and 40 updates: standard error of a strength 0.5 sqrt(2 / 20000) = 0.5 %.
    np.testing.assert_allclose(strengths, stationary_strengths(h, 0.1, 1.0, 50, 10), rtol=0.02)
    # Between two curvatures the slope is the mean of the exponent over log h: from eta h s = 0.25, no hierarchy
    # yet, to 15, inverted. Errors of 0.5 % at both ends make 0.007 of a slope over log 10.
    for i, j in ((0, 2), (2, 4), (0, 4)):
        slope = inverted_hierarchy_slope(strengths[i : j + 1], h[i : j + 1])
        assert slope.low <= slope.value <= slope.high
        ends = np.log(strengths[j] / strengths[i]) / np.log(h[j] / h[i])
        expected = hierarchy_exponent(np.geomspace(h[i], h[j], 2001), 0.1, 50).mean()
        assert ends == pytest.approx(expected, abs=0.02)
    exact = inverted_hierarchy_slope(stationary_strengths(h, 0.1, 1.0, 50, 10), h)
    assert float(inverted_hierarchy_slope(strengths, h).value) == pytest.approx(float(exact.value), abs=0.01)


def test_rows_are_correlated_as_stationary_sgd_says(noisy: tuple[dict[str, Any], Recording]) -> None:
    settings, recording = noisy
    expected = closed_form_gram(QuadraticSettings(**settings), stride=50, window=4, start=None)[0]
    late = recording.products[20:, 0]
    found = np.array([np.nanmean(late[lag:, lag]) for lag in range(4)])
    # 3000 modes of unequal energy and 40 updates: standard errors below 1 % of the diagonal.
    np.testing.assert_allclose(found, expected, atol=0.02 * expected[0])


def test_the_way_to_rest_is_the_expected_gram(noisy: tuple[dict[str, Any], Recording]) -> None:
    settings, recording = noisy
    expected = closed_form_gram(QuadraticSettings(**settings), stride=50, window=5, start=0)
    # One window of 3000 modes: diagonal entries to sqrt(2 / 1500) = 4 %, one standard error.
    np.testing.assert_allclose(gram(recording, 4, 5), expected, atol=0.15 * expected[0, 0])


@pytest.mark.parametrize(
    "extra",
    [
        {"optimizer": "frozen_adamw", "lr": 0.1, "basis": "random", "weight_decay": 0.1},
        {"optimizer": "sgd", "momentum": 0.8, "lr": 0.1},
    ],
)
def test_momentum_noise_at_rest(extra: dict[str, Any]) -> None:
    settings = {
        "eigenvalues": "10,3,1,0.3",
        "repeat": 25,
        "noise": 1.0,
        "noise_shape": "proportional",
        "start": 0.0,
        "optimum": 0.0,
        "steps": 3200,
        "eval_every": 3200,
        **extra,
    }
    recording = run("quadratic", settings=settings, every=4, window=6, lags=5)
    expected = closed_form_gram(QuadraticSettings(**settings), stride=4, window=4, start=None)[0]
    late = recording.products[100:, 0]
    found = np.array([np.nanmean(late[lag:, lag]) for lag in range(4)])
    # 700 updates of 100 modes, at worst a quarter of them and half of the updates independent: sqrt(2 / 8750) =
    # 1.5 % of the diagonal.
    np.testing.assert_allclose(found, expected, atol=0.05 * expected[0])


def test_a_gap_collapses_when_its_two_modes_cross() -> None:
    settings = {"eigenvalues": "1,0.2", "basis": "identity", "tensors": 2, "lr": 0.02, "steps": 400, "seed": 1}
    recording = run("quadratic", settings=settings, every=2, window=5, lags=4)
    energy = np.lib.stride_tricks.sliding_window_view(recording.products[:, 1:, 0], 5, axis=0).sum(axis=-1)
    d = np.sqrt(energy)
    decay = -1 / np.polyfit(2 * np.arange(100), np.log(d[:100]), 1)[0]
    np.testing.assert_allclose(decay, 1 / (0.02 * np.array([1.0, 0.2])), rtol=0.05)
    closed = 2 * int(np.argmax(d[:, 0] < d[:, 1]))
    assert d[0, 0] > d[0, 1]
    predicted = float(collapse_time(d[0], [1.0, 0.2], 0.02))
    # The crossing is seen to the next update, two steps.
    assert predicted <= closed <= 1.05 * predicted + 2


def test_gradients_are_what_is_claimed_and_probes_draw_nothing() -> None:
    settings = QuadraticSettings(optimizer="sgd", eigenvalues="2,1,0.5", seed=3)
    experiment = catalogue.entry("quadratic").build(settings)
    task, model = experiment.task, experiment.model
    world, before = quadratic_world(settings), task.state()
    train, val = task.probe_losses()
    gradients = [torch.autograd.grad(loss(model), model.parameters())[0].numpy() for loss in (train, val)]
    np.testing.assert_allclose(gradients[0], world.hessian @ (world.start - world.optimum), atol=1e-14)
    np.testing.assert_allclose(gradients[1], world.hessian @ (world.start - world.val_optimum), atol=1e-14)
    assert task.state() == before
    xi = task.draw()
    noisy = torch.autograd.grad(task.loss(model, xi), model.parameters())[0].numpy()
    np.testing.assert_allclose(noisy, gradients[0] + xi.numpy(), atol=1e-14)
    assert task.state() != before
    (slope,) = torch.autograd.grad(train(model), model.parameters(), create_graph=True)
    rows = [torch.autograd.grad(entry, model.parameters(), retain_graph=True)[0] for entry in slope]
    np.testing.assert_allclose(torch.stack(rows).numpy(), world.hessian, atol=1e-14)
    metrics = task.evaluate(model)
    assert metrics == {"train_loss": float(train(model).detach()), "test_loss": float(val(model).detach())}


def test_replicas_share_the_world_and_not_the_noise() -> None:
    task = QuadraticTask(QuadraticSettings(optimizer="sgd", seed=3))
    first, again, other = task.replica(1), task.replica(1), task.replica(2)
    np.testing.assert_array_equal(first.world.optimum, task.world.optimum)
    xi = first.draw()
    torch.testing.assert_close(xi, again.draw(), rtol=0, atol=0)
    draws = torch.stack([xi, other.draw(), task.draw()])
    assert torch.unique(draws[:, 0]).numel() == 3
    state = first.state()
    following = first.draw()
    again.load_state(state)
    assert torch.equal(again.draw(), following)
    with pytest.raises(SettingError, match="stream must be at least 1; got 0"):
        task.replica(0)


def test_noise_has_the_covariance_that_is_claimed() -> None:
    settings = QuadraticSettings(optimizer="sgd", eigenvalues="4,1,0.5", noise=2.0, noise_shape="proportional")
    task = QuadraticTask(settings)
    draws = torch.stack([task.draw() for _ in range(20_000)]).numpy()
    # Entries up to 8, sampled with a standard error of 8 sqrt(2 / 20000) = 0.08.
    np.testing.assert_allclose(draws.T @ draws / len(draws), 2.0 * task.world.hessian, atol=0.3)
    np.testing.assert_allclose(task.world.noise_covariance, 2.0 * task.world.hessian, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["frozen_adamw", "adamw", "sgd"])
def test_interrupted_and_resumed_is_bit_equal(tmp_path: Path, optimizer: str) -> None:
    def interrupt(step: int, steps: int, metrics: object) -> None:
        if step == 30:
            raise KeyboardInterrupt

    settings = {"eigenvalues": "power:7,1", "optimizer": optimizer, "noise": 0.1, "weight_decay": 0.1}
    settings |= {"steps": 60, "eval_every": 10, "schedule": "cosine"}
    call: dict[str, Any] = {"settings": settings, "window": 3, "every": 4, "checkpoint_every": 20}
    with pytest.raises(KeyboardInterrupt):
        run("quadratic", out=tmp_path, progress=interrupt, **call)
    resumed = run("quadratic", out=tmp_path, resume=True, **call)
    whole = run("quadratic", **{**call, "checkpoint_every": 0})
    assert resumed == whole
    np.testing.assert_array_equal(resumed.products, whole.products)


def test_killed_and_resumed_frozen_adamw_is_bit_equal(tmp_path: Path) -> None:
    settings = {"eigenvalues": "power:7,1", "optimizer": "frozen_adamw", "noise": 0.1, "steps": 60, "eval_every": 10}
    call: dict[str, Any] = {"settings": settings, "window": 3, "every": 4, "checkpoint_every": 20}
    child = (
        "import json, os, signal, sys; from spectraledge.experiments.run import run; "
        "die = lambda step, *_: step == 50 and os.kill(os.getpid(), signal.SIGKILL); "
        "run('quadratic', out=sys.argv[1], progress=die, **json.loads(sys.argv[2]))"
    )
    ended = subprocess.run([sys.executable, "-c", child, str(tmp_path), json.dumps(call)], check=False)
    assert ended.returncode == -signal.SIGKILL
    steps: list[int] = []
    resumed = run("quadratic", out=tmp_path, resume=True, progress=lambda step, *_: steps.append(step), **call)
    # From the checkpoint at 40, not from the beginning.
    assert steps == [50, 60]
    assert resumed == run("quadratic", **{**call, "checkpoint_every": 0})


def test_decay_of_frozen_adamw_is_told_apart() -> None:
    settings = {"optimizer": "frozen_adamw", "noise": 0, "weight_decay": 0.5, "steps": 20}
    recording = run("quadratic", settings=settings, every=1, window=2, decay_products=True)
    assert recording.decay_norm2 is not None
    before = np.r_[np.linalg.norm(quadratic_world(QuadraticSettings()).start) ** 2, recording.theta_norm2[:-1, 0]]
    np.testing.assert_allclose(recording.decay_norm2[:, 0], (0.01 * 0.5) ** 2 * before, rtol=1e-9)


def test_frozen_adamw_state_reads_as_adamws() -> None:
    theta = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = FrozenAdamW([theta], [torch.tensor([4.0, 9.0])], lr=0.1, beta=0.0)
    theta.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    torch.testing.assert_close(theta.detach(), torch.tensor([1 - 0.1 / 2, 2 - 0.1 / 3]))
    state, group = optimizer.state[theta], optimizer.param_groups[0]
    corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** int(state["step"]))
    torch.testing.assert_close(corrected.sqrt() + group["eps"], torch.tensor([2.0, 3.0]))
    other = FrozenAdamW([theta], [torch.ones(2)])
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[theta]["exp_avg_sq"], torch.tensor([4.0, 9.0]))
    with pytest.raises(SettingError, match="second_moments must be positive and shaped as the parameters"):
        FrozenAdamW([theta], [torch.zeros(2)])


def test_a_run_without_accuracy_ends_by_its_steps() -> None:
    settings = {"eigenvalues": "1,0.5", "steps": 40, "eval_every": 5, "stop_after_grok": 1, "dtype": "float32"}
    recording = run("quadratic", settings=settings, every=5, window=2)
    assert recording.steps[-1] == 40
    losses = recording.metrics["train_loss"][1]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"eigenvalues": "1,-2"}, r"eigenvalues must list numbers of at least 0, .*; got 1,-2\. Write for example"),
        ({"eigenvalues": "power:3"}, "eigenvalues must list numbers"),
        ({"noise": 1}, r"noise must be 0 for gd; got 1\. Use optimizer=sgd\."),
        ({"tensors": 3}, r"tensors must divide the number of parameters; got 3 and 50\."),
        ({"optimizer": "muon"}, r"optimizer must be gd or sgd or adamw or frozen_adamw; got muon\."),
    ],
)
def test_mistakes_in_quadratic_settings(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        build_settings(QuadraticSettings, values, name="quadratic")


def test_defaults_follow_the_optimizer_and_text_is_understood() -> None:
    settings = configure("quadratic", settings={"optimizer": "sgd", "eigenvalues": "0.05,0.1", "repeat": "2"})[0]
    assert isinstance(settings, QuadraticSettings)
    assert (settings.noise, settings.momentum, settings.weight_decay, settings.dtype) == (0.01, 0.0, 0.0, "float64")
    assert settings.curvatures == (0.05, 0.05, 0.1, 0.1)
    assert build_settings(QuadraticSettings, {}, name="quadratic").noise == 0.0
    for extra in ({"optimizer": "adamw"}, {"clip": 1.0}, {"schedule": "cosine"}):
        with pytest.raises(SettingError, match="a run with a closed form must use gd, sgd or frozen_adamw"):
            closed_form_gram(QuadraticSettings(**extra), stride=1, window=2)


# Deep linear networks


@pytest.mark.parametrize("extra", [{"layers": 2, "width": 6}, {"layers": 3, "initial": 0.05}, {"layers": 1}])
def test_strengths_of_a_deep_linear_run_follow_the_theory(extra: dict[str, Any]) -> None:
    settings = {"targets": "3,2,1", "lr": 0.005, "steps": 800, "eval_every": 20, **extra}
    recording = run("deep_linear", settings=settings, every=20, window=4)
    chosen = DeepLinearSettings(**settings)
    path = deep_linear_descent([3.0, 2.0, 1.0], chosen.initial, chosen.layers, 0.005, 800)
    flow = deep_linear_flow([3.0, 2.0, 1.0], chosen.initial, chosen.layers, 0.005 * np.arange(801))
    for j in range(3):
        steps, strength = recording.metrics[f"strength_{j + 1}"]
        np.testing.assert_allclose(strength, path[steps.astype(int), j], atol=1e-11)
        # Steps of lr s = 0.015 against the flow: late by some lr L s of a rise, 3 % of the target.
        np.testing.assert_allclose(strength, flow[steps.astype(int), j], atol=0.05 * 3)


def test_strong_modes_are_learnt_first_from_a_small_random_start() -> None:
    settings = {"targets": "4,2,1", "init": "small", "initial": 0.01, "lr": 0.01, "steps": 1200, "eval_every": 10}
    recording = run("deep_linear", settings=settings, every=20, window=4)
    half = []
    for j, target in enumerate((4.0, 2.0, 1.0), 1):
        steps, strength = recording.metrics[f"strength_{j}"]
        half.append(steps[int(np.argmax(strength > target / 2))])
        assert strength[-1] == pytest.approx(target, rel=0.02)
    assert half == sorted(half)
    assert half[0] < half[2]


def test_deep_linear_batches_and_replicas() -> None:
    settings = DeepLinearSettings(batches="drawn", batch_size=8)
    task = DeepLinearTask(settings)
    first, other = task.replica(1), task.replica(2)
    drawn = [t.draw() for t in (task, first, other)]
    assert all(batch is not None and batch.shape == (8,) for batch in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert DeepLinearTask(DeepLinearSettings()).draw() is None
    state = first.state()
    following = first.draw()
    other.load_state(state)
    assert torch.equal(other.draw(), following)
    data = linear_data(settings)
    np.testing.assert_allclose(np.linalg.svd(data.map)[1], [4, 3, 2, 1])
    product = np.linalg.multi_dot(linear_init(settings, data)[::-1])
    np.testing.assert_allclose(data.left.T @ product @ data.right, 0.001 * np.eye(4), atol=1e-15)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"targets": "1,0"}, r"targets must list positive numbers"),
        ({"width": 2}, r"width must be at least the number of targets; got 2 and 4\."),
        ({"n_train": 3}, r"n_train must be at least the number of targets"),
    ],
)
def test_mistakes_in_deep_linear_settings(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        build_settings(DeepLinearSettings, values, name="deep_linear")


def test_width_none_survives_the_written_command() -> None:
    assert configure("deep_linear", settings={"width": "none"})[0].model_dump()["width"] is None
