"""Dyck-1: the published facts about the data, the placebo, the metrics by brute force, and the network."""

from __future__ import annotations

import json
from collections import Counter
from itertools import accumulate, chain

import numpy as np
import pytest
import torch
from torch.nn import functional

from spectraledge.errors import SettingError
from spectraledge.experiments.loop import capability, train
from spectraledge.experiments.models.dyck import DyckTransformer
from spectraledge.experiments.optimizers import build_optimizers, hidden_matrices
from spectraledge.experiments.settings.dyck import DyckSettings
from spectraledge.experiments.settings.parse import build_settings
from spectraledge.experiments.tasks.dyck import DyckTask, dyck_experiment
from spectraledge.experiments.tasks.dyck_data import IGNORED, PAD, dyck_data, dyck_sequences

SMALL = {
    "n_train": 8,
    "n_test": 60,
    "max_pairs": 4,
    "positions": 8,
    "batch_size": 5,
    "d_model": 8,
    "layers": 1,
    "heads": 2,
    "d_hidden": 8,
}


def small(**values: object) -> DyckSettings:
    return DyckSettings(**{**SMALL, **values})  # type: ignore[arg-type]


def depths(sequence: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(accumulate(1 - 2 * token for token in sequence))


def prefixes(sequence: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [sequence[: i + 1] for i in range(len(sequence))]


@pytest.fixture(scope="module")
def published() -> list[tuple[int, ...]]:
    return dyck_sequences(DyckSettings())


def test_the_published_counts(published: list[tuple[int, ...]]) -> None:
    learned, tested = published[:50], published[50:]
    assert (len(tested), len(set(published)), len(set(learned)), sum(map(len, learned))) == (5000, 2249, 36, 576)
    assert max(max(depths(sequence)) for sequence in learned) == 9
    assert all(depths(sequence)[-1] == 0 and min(depths(sequence)) >= 0 for sequence in published)


def test_what_the_published_training_set_gives_away(published: list[tuple[int, ...]]) -> None:
    learned, tested = set(published[:50]), published[50:]
    repeated = [len(sequence) for sequence in tested if sequence in learned]
    assert round(100 * len(repeated) / 5000, 1) == 24.4
    assert round(100 * sum(repeated) / sum(map(len, tested)), 1) == 8.6
    known = {prefix for sequence in learned for prefix in prefixes(sequence)}
    positions = [prefix in known for sequence in tested for prefix in prefixes(sequence)]
    assert round(100 * float(np.mean(positions)), 1) == 49.6
    data = dyck_data(DyckSettings())
    weights = data.test_counts[:, None] * data.scored
    assert weights.sum() == len(positions)
    assert (weights * data.unseen).sum() == len(positions) - sum(positions)


def test_the_table_spells_out_every_sequence(published: list[tuple[int, ...]]) -> None:
    data = dyck_data(DyckSettings(seed=7))  # the data do not depend on the run's seed
    counts = [Counter(published[:50]), Counter(published[50:])]
    for row, length in enumerate(data.scored.sum(axis=1)):
        sequence = tuple(data.tokens[row, :length].tolist())
        assert tuple(data.targets[row, :length].tolist()) == depths(sequence)
        assert (data.train_counts[row], data.test_counts[row]) == tuple(count[sequence] for count in counts)
    assert (data.targets[~data.scored] == IGNORED).all()
    assert [tuple(data.tokens[row][data.scored[row]].tolist()) for row in data.order] == published
    # Distinct, never in the training set: 2,234 distinct test sequences less 21 of the 36 trained on.
    assert (data.fresh.sum(), (data.test_counts > 0).sum()) == (2213, 2234)


def test_placebo_is_a_function_of_the_prefix_with_the_same_classes() -> None:
    true, placebo = dyck_data(DyckSettings()), dyck_data(DyckSettings(labels="shuffled"))
    np.testing.assert_array_equal(true.tokens, placebo.tokens)
    np.testing.assert_array_equal(true.order, placebo.order)
    labels = []
    for data in (true, placebo):
        chosen, first = np.unique(data.prefixes, return_index=True)
        of_prefix = data.targets.ravel()[first[chosen >= 0]]
        # One label a prefix, wherever it stands: it can be memorised.
        np.testing.assert_array_equal(data.targets[data.scored], of_prefix[data.prefixes[data.scored]])
        labels.append(of_prefix)
    np.testing.assert_array_equal(np.bincount(labels[0]), np.bincount(labels[1]))
    # Two independent draws agree with probability sum p_k^2; 5 standard deviations of a binomial on top.
    n, p = len(labels[0]), float(np.sum((np.bincount(labels[0]) / len(labels[0])) ** 2))
    assert abs(int((labels[0] == labels[1]).sum()) - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    other = dyck_data(DyckSettings(labels="shuffled", seed=43))
    assert not np.array_equal(placebo.targets, other.targets)


def test_metrics_are_those_of_all_sequences_one_by_one() -> None:
    settings = small()
    torch.manual_seed(0)
    experiment = dyck_experiment(settings)
    model, sequences = experiment.model, dyck_sequences(settings)
    found = experiment.task.evaluate(model)
    assert not any(p.grad is not None for p in model.parameters())
    losses, right = [], []
    for sequence in sequences:
        logits = model(torch.tensor([sequence]))[0].detach()
        wanted = torch.tensor(depths(sequence))
        losses.append(functional.cross_entropy(logits, wanted, reduction="none").tolist())
        right.append((logits.argmax(-1) == wanted).tolist())
    n, learned = settings.n_train, set(sequences[: settings.n_train])
    known = {prefix for sequence in learned for prefix in prefixes(sequence)}
    fresh = {sequence: marks for sequence, marks in zip(sequences, right) if sequence not in learned}
    assert 0 < len(fresh) < settings.n_test
    unseen = [
        mark
        for sequence, marks in zip(sequences[n:], right[n:])
        for prefix, mark in zip(prefixes(sequence), marks)
        if prefix not in known
    ]
    wanted_metrics = {
        "train_loss": np.mean(list(chain.from_iterable(losses[:n]))),
        "train_accuracy": np.mean(list(chain.from_iterable(right[:n]))),
        "test_loss": np.mean(list(chain.from_iterable(losses[n:]))),
        "test_accuracy": np.mean(list(chain.from_iterable(right[n:]))),
        "sequence_accuracy": np.mean([all(marks) for marks in right[n:]]),
        "unseen_accuracy": np.mean(unseen),
        "dedup_accuracy": np.mean(list(chain.from_iterable(fresh.values()))),
        "dedup_sequence_accuracy": np.mean([all(marks) for marks in fresh.values()]),
    }
    # Losses of order 1 in float32, whose sums round differently with the shape of a batch: 1e-5 is 80 ulp.
    assert found == pytest.approx(wanted_metrics, abs=1e-5)
    assert capability(found) == found["test_accuracy"]


def test_losses_and_batches_agree_with_the_metrics() -> None:
    settings = small()
    torch.manual_seed(0)
    experiment = dyck_experiment(settings)
    model, task = experiment.model, experiment.task
    metrics, (learned, tested) = task.evaluate(model), task.probe_losses()
    # All 60 test sequences are probed, for there are fewer than 500. float32 as above.
    assert float(learned(model).detach()) == pytest.approx(metrics["train_loss"], abs=1e-5)
    assert float(tested(model).detach()) == pytest.approx(metrics["test_loss"], abs=1e-5)
    tokens, targets = task.draw()
    assert tokens.shape == targets.shape == (5, settings.context)
    logits = model(tokens)
    wanted = functional.cross_entropy(logits[tokens != PAD], targets[tokens != PAD])
    torch.testing.assert_close(task.loss(model, (tokens, targets)), wanted, atol=1e-5, rtol=0)


def test_replicas_share_data_and_draw_alone() -> None:
    task = DyckTask(small(batch_size=50))
    twin, again = task.replica(1), task.replica(1)
    assert twin.data is task.data
    first = twin.draw()[0]
    assert torch.equal(first, again.draw()[0])
    assert not torch.equal(first, task.draw()[0])
    state = json.loads(json.dumps(task.state()))
    batch = task.draw()[0]
    twin.load_state(state)
    assert torch.equal(batch, twin.draw()[0])
    with pytest.raises(SettingError, match="stream must be at least 1; got 0"):
        task.replica(0)


def test_kernel_outputs_are_logits_of_distinct_training_prefixes() -> None:
    settings = small()
    torch.manual_seed(0)
    experiment = dyck_experiment(settings)
    distinct = list(
        dict.fromkeys(p for sequence in dyck_sequences(settings)[: settings.n_train] for p in prefixes(sequence))
    )
    for n in (6, 10_000):
        outputs, loss = experiment.task.probe_outputs(n)  # type: ignore[attr-defined]
        chosen = distinct[:n]
        wanted = torch.stack([experiment.model(torch.tensor([prefix]))[0, -1] for prefix in chosen])
        found = outputs(experiment.model)
        # Logits of order 1 in float32 from batches of other shapes.
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        targets = torch.tensor([depths(prefix)[-1] for prefix in chosen])
        torch.testing.assert_close(loss.value(found), functional.cross_entropy(wanted, targets), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("positions", "parameters"), [(48, 273_421), (24, 270_349)])
def test_parameter_counts_of_the_published_networks(positions: int, parameters: int) -> None:
    model = DyckTransformer(positions=positions)
    assert sum(p.numel() for p in model.parameters()) == parameters
    first, second = (dict(layer.named_parameters()) for layer in model.encoder.layers)
    assert all(torch.equal(first[name], second[name]) for name in first)
    kinds = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    wanted = [f"encoder.layers.{i}.{kind}" for i in (0, 1) for kind in kinds]
    assert hidden_matrices(model, model.outer) == wanted


def test_the_network_is_causal_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = DyckTransformer(5, 8, 8, 2, 2, 8).double()
    whole, other = torch.tensor([[0, 0, 1, 1, 0, 1]]), torch.tensor([[0, 0, 1, 0, 1, 1, PAD, PAD]])
    logits = model(whole)
    assert logits.shape == (1, 6, 5)
    # float64, order-1 logits through some hundred operations.
    torch.testing.assert_close(logits[:, :3], model(other)[:, :3], atol=1e-12, rtol=0)
    torch.testing.assert_close(logits[:, :3], model(whole[:, :3]), atol=1e-12, rtol=0)
    assert not torch.allclose(logits[:, 3:], model(other)[:, 3:6])


def test_training_learns_depths_and_the_same_twice() -> None:
    ends = []
    for _ in range(2):
        settings = small(steps=150, eval_every=50, batch_size=8, weight_decay=0.0, lr=0.01, defect_every=0)
        torch.manual_seed(settings.seed)
        experiment = dyck_experiment(settings)
        logged: list[dict[str, float]] = []
        optimizers = build_optimizers(experiment.model, settings, experiment.outer)
        train(experiment, optimizers, settings, log=lambda seen=logged, **metrics: seen.append(metrics))
        ends.append(logged[-1])
    assert ends[0] == ends[1]
    # Eight sequences of at most eight brackets, learned by heart; guessing the commonest depth gives about 0.4.
    assert ends[0]["train_accuracy"] > 0.9


def test_settings_are_the_published_ones_and_refuse_what_cannot_be() -> None:
    settings = DyckSettings()
    assert (settings.batch_size, settings.lr, settings.betas, settings.weight_decay) == (50, 1e-3, (0.9, 0.98), 1.0)
    assert (settings.clip, settings.eval_every, settings.steps, settings.stop_after_grok) == (1.0, 100, 10_000, None)
    assert (settings.context, settings.n_classes) == (24, 13)
    with pytest.raises(SettingError, match="positions must be at least twice max_pairs; got 20 and 12"):
        build_settings(DyckSettings, {"positions": 20}, name="dyck")
    with pytest.raises(SettingError, match="d_model must be a multiple of heads; got 10 and 4"):
        build_settings(DyckSettings, {"d_model": 10}, name="dyck")
