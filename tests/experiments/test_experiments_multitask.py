"""Several operations at once: parameter counts, targets by brute force, the placebo, and the sum of losses."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.nn import functional

from spectraledge.errors import SettingError
from spectraledge.experiments.loop import capability
from spectraledge.experiments.models.modular import ModularTransformer
from spectraledge.experiments.models.multitask import MultiTaskTransformer
from spectraledge.experiments.optimizers import build_optimizers, hidden_matrices
from spectraledge.experiments.settings.multitask import MultiTaskSettings
from spectraledge.experiments.settings.parse import build_settings
from spectraledge.experiments.tasks.multitask import MultiTask, multitask_data, multitask_experiment

SMALL = {"tasks": "tri", "p": 7, "d_model": 8, "layers": 1, "heads": 2, "d_hidden": 8, "batch_size": 9}


def small(**values: object) -> MultiTaskSettings:
    return MultiTaskSettings(**{**SMALL, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(("tasks", "parameters"), [("dual", 302_914), ("tri", 315_427)])
def test_parameter_counts_of_the_published_networks(tasks: str, parameters: int) -> None:
    settings = MultiTaskSettings(tasks=tasks)  # type: ignore[arg-type]
    model = multitask_experiment(settings).model
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert list(model.head) == list(settings.operations)  # type: ignore[arg-type]
    # The heads face the data: Muon leaves them to AdamW.
    assert not any(name.startswith("head") for name in hidden_matrices(model, MultiTaskTransformer.outer))


def test_targets_order_and_split_against_brute_force() -> None:
    data = multitask_data(MultiTaskSettings(tasks="tri", seed=5))
    pairs = [(a, b) for a in range(1, 97) for b in range(1, 97)]
    random.Random(5).shuffle(pairs)
    assert data.train_tokens.tolist() + data.test_tokens.tolist() == [list(pair) for pair in pairs]
    assert (len(data.train_tokens), len(data.test_tokens)) == (4608, 4608)
    wanted = [[(a + b) % 97, a * b % 97, (a * a + b * b) % 97] for a, b in pairs]
    assert data.train_targets.tolist() + data.test_targets.tolist() == wanted


def test_placebo_permutes_each_head_apart() -> None:
    true, placebo = (multitask_data(MultiTaskSettings(tasks="tri", labels=x)) for x in ("true", "shuffled"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(true.train_tokens, placebo.train_tokens)
    pooled = [np.concatenate([data.train_targets, data.test_targets]) for data in (true, placebo)]
    orders = []
    for head in range(3):
        np.testing.assert_array_equal(np.bincount(pooled[0][:, head]), np.bincount(pooled[1][:, head]))
        # Right by chance with probability 1/97 (x2_y2's classes are even to 1 %, which adds less than one):
        # 9216 / 97 = 95, and 5 standard deviations of a binomial are 5 * sqrt(95 * 96 / 97) = 48.5.
        agreeing = pooled[0][:, head] == pooled[1][:, head]
        assert abs(int(agreeing.sum()) - 9216 / 97) < 50
        orders.append(agreeing)
    # One common permutation would leave the same pairs right under every head; independent ones share about one.
    assert int((orders[0] & orders[1]).sum()) < 10


def test_trunk_and_first_head_start_as_those_of_one_operation() -> None:
    torch.manual_seed(3)
    one = ModularTransformer(p=7, d_model=8, layers=1, heads=2, d_hidden=8)
    torch.manual_seed(3)
    several = MultiTaskTransformer(("add", "mul"), p=7, d_model=8, layers=1, heads=2, d_hidden=8)
    tokens = torch.tensor([[1, 2], [3, 4]])
    logits = several(tokens)
    assert logits.shape == (2, 2, 7)
    assert torch.equal(logits[:, 0], one(tokens))
    assert not torch.allclose(logits[:, 1], logits[:, 0])


def test_loss_is_the_sum_and_metrics_are_of_each_operation() -> None:
    torch.manual_seed(0)
    experiment = multitask_experiment(small())
    model, task = experiment.model, experiment.task
    tokens, targets = task.draw()
    logits = model(tokens)
    apart = [functional.cross_entropy(logits[:, i], targets[:, i]) for i in range(3)]
    # float32: one mean over 27 rows instead of three over 9.
    assert task.loss(model, (tokens, targets)).item() == pytest.approx(sum(x.item() for x in apart), rel=1e-6)
    metrics = task.evaluate(model)
    operations = ("add", "mul", "x2_y2")
    for name in ("train", "test"):
        losses = [metrics[f"{name}_loss_{operation}"] for operation in operations]
        assert metrics[f"{name}_loss"] == pytest.approx(sum(losses), rel=1e-6)
    assert capability(metrics) == min(metrics[f"test_accuracy_{operation}"] for operation in operations)
    assert all(p.grad is None for p in model.parameters())
    train, val = task.probe_losses()
    assert train(model).item() == metrics["train_loss"]
    assert val(model).item() == metrics["test_loss"]


def test_outputs_of_a_probe_give_the_same_loss() -> None:
    experiment = multitask_experiment(small())
    model, task = experiment.model.double(), experiment.task
    assert isinstance(task, MultiTask)
    outputs, loss = task.probe_outputs(5)
    logits = outputs(model)
    assert logits.shape == (5, 3, 7)
    tokens, targets = (values[:5] for values in task._train)
    assert loss.value(logits).item() == pytest.approx(task.loss(model, (tokens, targets)).item(), rel=1e-12)
    hessian = torch.autograd.functional.hessian(loss.value, logits.detach()).reshape(15, 7, 15, 7)
    blocks = loss.blocks(logits)
    for i in range(15):
        torch.testing.assert_close(blocks[i], hessian[i, :, i])


def test_batches_are_those_of_a_generator_seeded_alone_and_replicas_share_the_data() -> None:
    task, rng = MultiTask(small(seed=11)), np.random.RandomState(11)
    data = multitask_data(small(seed=11))
    twin = task.replica(1)
    assert twin._train[0] is task._train[0]
    for _ in range(2):
        tokens, targets = task.draw()
        chosen = rng.randint(0, 18, size=9)
        np.testing.assert_array_equal(tokens.numpy(), data.train_tokens[chosen])
        np.testing.assert_array_equal(targets.numpy(), data.train_targets[chosen])
    assert not torch.equal(twin.draw()[0], MultiTask(small(seed=11)).draw()[0])
    other = MultiTask(small(seed=11))
    other.load_state(task.state())
    assert torch.equal(task.draw()[1], other.draw()[1])
    with pytest.raises(SettingError, match="at least 1"):
        task.replica(0)


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    experiment = multitask_experiment(small(lr=0.01))
    model, task = experiment.model, experiment.task
    (adamw,) = build_optimizers(model, small(lr=0.01), experiment.outer)
    before = task.evaluate(model)["train_loss"]
    for _ in range(20):
        model.zero_grad()
        task.loss(model, task.draw()).backward()
        adamw.step()
    assert task.evaluate(model)["train_loss"] < before


@pytest.mark.parametrize(
    ("values", "words"),
    [({"p": "9"}, "prime"), ({"heads": "3"}, "multiple of heads"), ({"tasks": "quad"}, "tasks must be dual or tri")],
)
def test_settings_that_cannot_be_are_refused_in_sentences(values: dict[str, str], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        build_settings(MultiTaskSettings, values, name="multitask/dual")
