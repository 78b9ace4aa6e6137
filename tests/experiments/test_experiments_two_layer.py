"""One hidden layer on one-hot pairs: counts, the loss by hand, split, placebo, and learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectraledge.errors import SettingError
from spectraledge.experiments.models.two_layer import TwoLayer
from spectraledge.experiments.settings.parse import build_settings
from spectraledge.experiments.settings.two_layer import TwoLayerSettings
from spectraledge.experiments.tasks.two_layer import (
    TwoLayerTask,
    centred_square,
    two_layer_data,
    two_layer_experiment,
)


def small(**values: object) -> TwoLayerSettings:
    return TwoLayerSettings(**{"p": 7, "d_hidden": 32, **values})  # type: ignore[arg-type]


def test_parameter_count_and_sizes_of_the_published_run() -> None:
    experiment = two_layer_experiment(TwoLayerSettings())
    shapes = {name: tuple(p.shape) for name, p in experiment.model.named_parameters()}
    assert shapes == {"hidden.weight": (2048, 142), "head.weight": (71, 2048)}
    tokens, targets = experiment.task.draw()
    assert (tokens.shape, targets.shape) == ((2016, 2), (2016,))


@pytest.mark.parametrize("activation", ["square", "relu"])
def test_outputs_by_hand(activation: str) -> None:
    model = TwoLayer(p=5, d_hidden=6, activation=activation)
    w, v = model.hidden.weight.detach().numpy(), model.head.weight.detach().numpy()
    before = w[:, 2] + w[:, 5 + 4]
    after = before**2 if activation == "square" else np.maximum(before, 0)
    found = model(torch.tensor([[2, 4]])).detach().numpy()
    # float32: sums of at most 10 terms below 1.
    np.testing.assert_allclose(found[0], v @ after, atol=1e-6)


def test_pairs_are_split_once_by_a_generator_of_their_own() -> None:
    (train, y), (test, z) = two_layer_data(small(seed=4))
    order = torch.randperm(49, generator=torch.Generator().manual_seed(4)).tolist()
    pairs = [(a, b) for a in range(7) for b in range(7)]
    assert [tuple(pair) for pair in torch.cat([train, test]).tolist()] == [pairs[i] for i in order]
    assert torch.cat([y, z]).tolist() == [sum(pairs[i]) % 7 for i in order]
    assert len(y) == 19


def test_placebo_keeps_pairs_and_frequencies() -> None:
    true, placebo = (two_layer_data(TwoLayerSettings(labels=labels)) for labels in ("true", "shuffled"))  # type: ignore[arg-type]
    assert torch.equal(true[0][0], placebo[0][0])
    pooled = [torch.cat([train[1], test[1]]) for train, test in (true, placebo)]
    assert torch.equal(*(torch.bincount(y) for y in pooled))
    # Right by chance with probability 1/71: 5041 / 71 = 71, 5 standard deviations are 5 * sqrt(71 * 70 / 71) = 41.8.
    assert abs(int((pooled[0] == pooled[1]).sum()) - 71) < 42


def test_loss_is_the_published_one() -> None:
    outputs = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(9) % 7
    # The published form, expanded: |f0|^2 - 2 f0_y + 1 - 1/p with f0 = f - mean f.
    f0 = outputs - outputs.mean(dim=1, keepdim=True)
    right = f0[torch.arange(9), targets]
    wanted = ((f0**2).sum(dim=1) - 2 * right + 1 - 1 / 7).mean()
    assert float(centred_square(outputs, targets)) == pytest.approx(float(wanted), rel=1e-13)
    assert float(centred_square(outputs + 5, targets)) == pytest.approx(float(wanted), rel=1e-13)


def test_full_batches_draw_nothing_and_drawn_ones_go_on_exactly() -> None:
    full = TwoLayerTask(small())
    before = full.state()
    assert full.draw()[0] is full.draw()[0]
    assert full.state() == before
    task = TwoLayerTask(small(batches="drawn", batch_size=9))
    twin, other = task.replica(1), TwoLayerTask(small(batches="drawn", batch_size=9))
    assert twin._train[0] is task._train[0]
    first = task.draw()[0]
    assert first.shape == (9, 2)
    assert not torch.equal(first, twin.draw()[0])
    other.load_state(task.state())
    assert torch.equal(task.draw()[0], other.draw()[0])
    with pytest.raises(SettingError, match="at least 1"):
        task.replica(0)


def test_probes_and_evaluations_agree() -> None:
    experiment = two_layer_experiment(small())
    model, task = experiment.model, experiment.task
    assert isinstance(task, TwoLayerTask)
    metrics = task.evaluate(model)
    assert set(metrics) == {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    train, val = task.probe_losses()
    assert (train(model).item(), val(model).item()) == (metrics["train_loss"], metrics["test_loss"])
    outputs, loss = task.probe_outputs(19)
    assert loss.value(outputs(model)).item() == metrics["train_loss"]
    # Blind to a common shift of the outputs: B has a null direction for each pair, and is convex.
    root = loss.root(outputs(model).detach().double())
    assert np.linalg.matrix_rank(root[0], tol=1e-6) == 19 * 6


@pytest.mark.parametrize(("activation", "labels"), [("square", "true"), ("relu", "true"), ("square", "shuffled")])
def test_it_learns_its_training_set(activation: str, labels: str) -> None:
    torch.manual_seed(0)
    settings = small(lr=0.01, weight_decay=0, activation=activation, labels=labels)
    experiment = two_layer_experiment(settings)
    model, task = experiment.model, experiment.task
    adam = torch.optim.Adam(model.parameters(), lr=settings.lr, betas=settings.betas)
    for _ in range(200):
        model.zero_grad()
        task.loss(model, task.draw()).backward()
        adam.step()
    assert task.evaluate(model)["train_accuracy"] == 1.0


def test_settings_follow_the_optimizer_and_say_what_is_wrong() -> None:
    published = TwoLayerSettings()
    assert (published.optimizer, published.lr, published.weight_decay) == ("adam", 1e-3, 2e-4)
    assert (published.betas, published.n_train) == ((0.9, 0.999), 2016)
    assert TwoLayerSettings(optimizer="muon").momentum == 0.95
    with pytest.raises(SettingError, match="a pair on either side"):
        build_settings(TwoLayerSettings, {"p": "2", "train_fraction": "0.1"}, name="two_layer/x2")
