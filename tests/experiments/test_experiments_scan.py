"""SCAN: grammar and published counts, files, placebo, metrics one command at a time, greedy decoding, the network."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spectraledge.errors import DataError, SettingError
from spectraledge.experiments.loop import capability, train
from spectraledge.experiments.models.scan import EOS, PAD, SOS, ScanTransformer
from spectraledge.experiments.optimizers import build_optimizers, hidden_matrices
from spectraledge.experiments.settings.parse import build_settings
from spectraledge.experiments.settings.scan import ScanSettings, SmallScanSettings
from spectraledge.experiments.tasks.scan import ScanTask, scan_experiment
from spectraledge.experiments.tasks.scan_data import IGNORED, read_scan_file, scan_data, scan_split, shuffled_meanings
from spectraledge.experiments.tasks.scan_grammar import ACTION_WORDS, COMMAND_WORDS, scan_meanings

TINY = {"n_train": 12, "n_test": 10, "batch_size": 5, "d_model": 16, "layers": 1, "heads": 2, "d_hidden": 16}


def tiny(**values: object) -> ScanSettings:
    return ScanSettings(**{**TINY, **values})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def meanings() -> dict[str, str]:
    return scan_meanings()


def line(command: str, actions: str) -> str:
    return f"IN: {command} OUT: {actions}\n"


def test_the_grammar_yields_the_official_lines(meanings: dict[str, str]) -> None:
    text = "".join(sorted(line(*pair) for pair in meanings.items()))
    digest = "6be4b39bc8bf3a20be810b6991250d0493e608560609db6765dd679e1ed1c98e"
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert len(meanings) == 20_910
    commands, actions = ([words.split() for words in side] for side in (meanings, meanings.values()))
    assert (min(map(len, commands)), max(map(len, commands))) == (1, 9)
    assert (min(map(len, actions)), max(map(len, actions))) == (1, 48)
    assert {word for words in commands for word in words} == set(COMMAND_WORDS)
    assert {word for words in actions for word in words} == set(ACTION_WORDS)
    assert (len(COMMAND_WORDS), len(ACTION_WORDS)) == (13, 6)


def test_own_split_has_the_official_sizes_and_repeats_nothing(meanings: dict[str, str]) -> None:
    everything = scan_split(ScanSettings(n_train=16_728, n_test=4_182), meanings)
    assert [len(side) for side in everything] == [16_728, 4_182]
    assert set(everything[0]) | set(everything[1]) == set(meanings)
    default = scan_split(ScanSettings(seed=7), meanings)  # the data do not depend on the run's seed
    # Subsets are beginnings of the same order.
    assert default == (everything[0][:2048], everything[1][:500])
    assert len({*default[0], *default[1]}) == 2548
    assert scan_split(ScanSettings(data_seed=1), meanings) != default


def test_files_take_the_place_of_the_split(tmp_path: Path, meanings: dict[str, str]) -> None:
    commands = list(meanings)
    sides = commands[:30], commands[100:120]
    paths = []
    for name, side in zip(("train", "test"), sides):
        paths.append(str(tmp_path / name))
        Path(paths[-1]).write_text("\n" + "".join(line(c, meanings[c]) for c in side), encoding="utf-8")
    chosen = scan_split(tiny(train_file=paths[0], test_file=paths[1]), meanings)
    order = list(range(30))
    random.Random(0).shuffle(order)
    assert chosen[0] == [sides[0][i] for i in order[:12]]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    assert chosen[1] == [sides[1][i] for i in order[:10]]
    with pytest.raises(DataError, match="n_test must be at most the 20 lines of its file; got 21"):
        scan_split(tiny(train_file=paths[0], test_file=paths[1], n_test=21), meanings)
    with pytest.raises(DataError, match="no command may stand in train_file and in test_file; got 30 in both"):
        scan_split(tiny(train_file=paths[0], test_file=paths[0]), meanings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "a SCAN file must be readable text; got .* \\(No such file or directory\\)"),
        (b"\xff\xfe", "a SCAN file must be readable text; got .* \\(not UTF-8 text\\)"),
        (b"IN: walk OUT: I_WALK\nwalk\tI_WALK\n", 'line 2 of .* must read "IN: command OUT: actions"'),
        (b"walk OUT: I_WALK\n", "line 1 of .* must read"),
        (b"IN: walk OUT: I_RUN\n", "line 1 of .* must hold a command of SCAN's grammar and the actions"),
        (b"IN: swim OUT: I_SWIM\n", "line 1 of .* must hold a command of SCAN's grammar"),
    ],
)
def test_files_that_are_not_scan(tmp_path: Path, meanings: dict[str, str], content: bytes | None, words: str) -> None:
    path = tmp_path / "lines.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_scan_file(str(path), meanings)


def test_tokens_spell_out_the_lines(meanings: dict[str, str]) -> None:
    settings = ScanSettings()
    for side, lines in zip(scan_split(settings, meanings), scan_data(settings)):
        assert (lines.commands.shape[1], lines.inputs.shape[1], lines.targets.shape[1]) == (11, 50, 50)
        for i, command in enumerate(side):
            words = [COMMAND_WORDS[word - 3] for word in lines.commands[i] if word != PAD]
            n = lines.lengths[i]
            actions = [ACTION_WORDS[word - 3] for word in lines.targets[i, : n - 1]]
            assert (" ".join(words), " ".join(actions)) == (command, meanings[command])
            assert (lines.inputs[i, 0], lines.targets[i, n - 1]) == (SOS, EOS)
            np.testing.assert_array_equal(lines.inputs[i, 1:n], lines.targets[i, : n - 1])
            assert (lines.inputs[i, n:] == PAD).all()
            assert (lines.targets[i, n:] == IGNORED).all()


def test_placebo_moves_whole_sequences(meanings: dict[str, str]) -> None:
    placebo = shuffled_meanings(meanings, 42)
    assert placebo.keys() == meanings.keys()
    counts = Counter(meanings.values())
    assert Counter(placebo.values()) == counts
    # Two independent draws agree with probability sum p_k^2; 5 standard deviations of a binomial on top.
    n, p = len(meanings), sum((count / len(meanings)) ** 2 for count in counts.values())
    same = sum(placebo[command] == meanings[command] for command in meanings)
    assert abs(same - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    assert shuffled_meanings(meanings, 43) != placebo
    settings = tiny(labels="shuffled")
    for side, true, lines in zip(scan_split(settings, meanings), scan_data(tiny()), scan_data(settings)):
        np.testing.assert_array_equal(true.commands, lines.commands)
        for command, targets, length in zip(side, lines.targets, lines.lengths):
            assert " ".join(ACTION_WORDS[word - 3] for word in targets[: length - 1]) == placebo[command]


@pytest.fixture(scope="module")
def partly_trained() -> tuple[ScanSettings, ScanTransformer, ScanTask]:
    """A network in float64 that is right about some commands and wrong about others."""
    settings = tiny(batch_size=12, lr=0.01, weight_decay=0.0, steps=40, eval_every=40)
    torch.manual_seed(0)
    experiment = scan_experiment(settings)
    experiment.model.double()
    train(experiment, build_optimizers(experiment.model, settings), settings, log=lambda **metrics: None)
    return settings, experiment.model, experiment.task  # type: ignore[return-value]


def test_metrics_are_those_of_the_commands_one_by_one(
    partly_trained: tuple[ScanSettings, ScanTransformer, ScanTask],
) -> None:
    settings, model, task = partly_trained
    model.zero_grad()
    found = task.evaluate(model)
    assert not any(p.grad is not None for p in model.parameters())
    wanted: dict[str, float] = {}
    for name, lines in zip(("train", "test"), scan_data(settings)):
        losses, right, greedy, prefixes = [], [], [], []
        for command, inputs, targets in zip(*map(torch.from_numpy, (lines.commands, lines.inputs, lines.targets))):
            scored = targets[targets != IGNORED]
            logits = model(command[None], inputs[None, : len(scored)])[0].detach()
            losses.append(functional.cross_entropy(logits, scored, reduction="none"))
            right.append(logits.argmax(-1) == scored)
            answer = model.generate(command[None])[0]
            greedy.append(torch.equal(answer, scored))
            both = min(len(answer), len(scored))
            same = (answer[:both] == scored[:both]).double().cumprod(0).sum()
            prefixes.append(float(same / len(scored)))
        wanted[f"{name}_loss"] = float(torch.cat(losses).mean())
        wanted[f"{name}_accuracy"] = float(np.mean([bool(marks.all()) for marks in right]))
        # Teacher-forced accuracy of sequences is that of greedy decoding, command by command.
        assert greedy == [bool(marks.all()) for marks in right]
    wanted["token_accuracy"] = float(torch.cat(right).double().mean())
    wanted["prefix_accuracy"] = float(np.mean(prefixes))
    # float64, a few hundred operations on numbers of order 1.
    assert found == pytest.approx(wanted, abs=1e-12)
    assert 0 < found["train_accuracy"] < 1
    assert capability(found) == found["test_accuracy"]


def test_greedy_decoding_of_a_batch_is_that_of_each_command(
    partly_trained: tuple[ScanSettings, ScanTransformer, ScanTask],
) -> None:
    settings, model, _ = partly_trained
    commands = torch.from_numpy(scan_data(settings)[0].commands)
    together = model.generate(commands)
    assert together.shape[1] <= 50
    for command, row in zip(commands, together):
        alone = model.generate(command[None])[0]
        assert torch.equal(row[: len(alone)], alone)
    # A network that never ends is stopped at the last position.
    with torch.no_grad():
        endless = ScanTransformer(d_model=8, layers=1, heads=2, d_hidden=8)
        endless.head.bias[EOS] = -1e3
    assert endless.generate(commands[:2]).shape == (2, 50)


def test_losses_and_batches_agree_with_the_metrics(
    partly_trained: tuple[ScanSettings, ScanTransformer, ScanTask],
) -> None:
    _, model, task = partly_trained
    metrics, (learned, tested) = task.evaluate(model), task.probe_losses()
    # All commands are evaluated and probed, for there are few. float64 as above.
    assert float(learned(model).detach()) == pytest.approx(metrics["train_loss"], abs=1e-12)
    assert float(tested(model).detach()) == pytest.approx(metrics["test_loss"], abs=1e-12)
    commands, inputs, targets = batch = task.draw()
    assert commands.shape == (12, 11)
    assert inputs.shape == targets.shape
    assert (targets != IGNORED).any(0).all()  # cut to the longest
    scored = targets != IGNORED
    wanted = functional.cross_entropy(model(commands, inputs)[scored], targets[scored])
    torch.testing.assert_close(task.loss(model, batch), wanted, atol=1e-12, rtol=0)


def test_kernel_outputs_are_the_first_actions(partly_trained: tuple[ScanSettings, ScanTransformer, ScanTask]) -> None:
    settings, model, task = partly_trained
    lines = scan_data(settings)[0]
    commands, inputs, targets = map(torch.from_numpy, (lines.commands, lines.inputs, lines.targets))
    scored = targets != IGNORED
    everything = model(commands, inputs)[scored]
    first = int(lines.lengths[0])
    for n in (1, first, first + 1, 10_000):
        outputs, loss = task.probe_outputs(n)
        found = outputs(model)
        torch.testing.assert_close(found, everything[:n], atol=1e-12, rtol=0)
        wanted = functional.cross_entropy(everything[:n], targets[scored][:n])
        torch.testing.assert_close(loss.value(found), wanted, atol=1e-12, rtol=0)


def test_long_training_sets_are_evaluated_in_part() -> None:
    settings = tiny(n_train=600)
    torch.manual_seed(0)
    experiment = scan_experiment(settings)
    lines = scan_data(settings)[0]
    chosen = [torch.from_numpy(x[:512]) for x in (lines.commands, lines.inputs, lines.targets)]
    with torch.no_grad():
        logits = experiment.model(*chosen[:2])
    wanted = functional.cross_entropy(logits.flatten(0, 1), chosen[2].flatten())
    # Losses of order 2 in float32, whose sums round differently with the shape of a batch.
    assert experiment.task.evaluate(experiment.model)["train_loss"] == pytest.approx(float(wanted), abs=1e-5)


def test_replicas_share_data_and_draw_alone() -> None:
    task = ScanTask(tiny(batch_size=50))
    twin, again = task.replica(1), task.replica(1)
    assert twin.train is task.train
    first = twin.draw()[0]
    assert torch.equal(first, again.draw()[0])
    assert not torch.equal(first, task.draw()[0])
    state = json.loads(json.dumps(task.state()))
    batch = task.draw()[0]
    twin.load_state(state)
    assert torch.equal(batch, twin.draw()[0])
    with pytest.raises(SettingError, match="stream must be at least 1; got 0"):
        task.replica(0)


def test_parameter_counts_of_the_published_network() -> None:
    model = ScanTransformer()
    assert sum(p.numel() for p in model.parameters()) == 3_979_529
    assert sum(p.numel() for p in model.transformer.parameters()) == 3_954_688
    hidden = hidden_matrices(model, model.outer)
    attention = [name for name in hidden if "attn" in name]
    shapes = dict(model.named_parameters())
    assert sum(shapes[name].numel() for name in attention) == 2_359_296
    # Three encoder layers with one attention, three decoder layers with two, and two feed-forward matrices each.
    assert (len(attention), len(hidden)) == (18, 30)


def test_initialisation_is_that_of_torch() -> None:
    torch.manual_seed(0)
    model = ScanTransformer(d_model=16, layers=2, heads=2, d_hidden=8)
    torch.manual_seed(0)
    for rows in (16, 11, 9, 50):
        nn.Embedding(rows, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about nested tensors
        plain = nn.Transformer(16, 2, 2, 2, 8, 0.0, "gelu", batch_first=True, norm_first=True)
    wanted = plain.state_dict()
    assert model.transformer.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in model.transformer.state_dict().items())
    first, second = (layer.linear1.weight for layer in model.transformer.encoder.layers)
    assert not torch.equal(first, second)


def test_the_decoder_is_causal_and_the_encoder_blind_to_padding() -> None:
    torch.manual_seed(0)
    model = ScanTransformer(d_model=16, layers=2, heads=2, d_hidden=8).double()
    commands = torch.tensor([[3, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0]])
    whole, other = torch.tensor([[SOS, 3, 4, 5, 6]]), torch.tensor([[SOS, 3, 4, 6, 5, PAD, PAD]])
    logits = model(commands, whole)
    assert logits.shape == (1, 5, 9)
    # float64, order-1 logits through some hundred operations.
    torch.testing.assert_close(logits[:, :3], model(commands, other)[:, :3], atol=1e-12, rtol=0)
    assert not torch.allclose(logits[:, 3:], model(commands, other)[:, 3:5])
    assert not torch.allclose(logits, model(commands.flip(1), whole))
    memory = model._encode(commands)
    with torch.no_grad():
        model.command_embedding.weight[PAD] += torch.randn(16)
    torch.testing.assert_close(memory[:, :3], model._encode(commands)[:, :3], atol=1e-12, rtol=0)
    assert not torch.allclose(memory[:, 3:], model._encode(commands)[:, 3:])


def test_training_is_the_same_twice() -> None:
    ends = []
    for _ in range(2):
        settings = tiny(steps=20, eval_every=20, batch_size=8, weight_decay=0.0, lr=0.01)
        torch.manual_seed(settings.seed)
        experiment = scan_experiment(settings)
        logged: list[dict[str, float]] = []
        optimizers = build_optimizers(experiment.model, settings, experiment.outer)
        train(experiment, optimizers, settings, log=lambda seen=logged, **metrics: seen.append(metrics))
        ends.append(logged[-1])
    assert ends[0] == ends[1]
    assert ends[0]["train_loss"] < logged[0]["train_loss"]


def test_settings_are_the_published_ones_and_refuse_what_cannot_be() -> None:
    settings = ScanSettings()
    assert (settings.batch_size, settings.lr, settings.betas, settings.weight_decay) == (256, 1e-4, (0.9, 0.98), 1.0)
    assert (settings.clip, settings.eval_every, settings.steps) == (1.0, 500, 30_000)
    assert ScanSettings(optimizer="muon").lr == 0.02
    # Three evaluations in a row at 0.98 are grokking; the published runs stop at the fifth.
    assert settings.stop_after_grok == 2
    small = SmallScanSettings()
    assert (small.d_model, small.layers, small.batch_size, small.lr, small.n_train) == (64, 1, 64, 5e-4, 2048)
    assert build_settings(ScanSettings, {"train_file": "none"}, name="scan").train_file is None
    with pytest.raises(SettingError, match="must be given together; got lines and None"):
        build_settings(ScanSettings, {"train_file": "lines"}, name="scan")
    with pytest.raises(SettingError, match="d_model must be a multiple of heads; got 10 and 4"):
        build_settings(ScanSettings, {"d_model": 10}, name="scan")
    with pytest.raises(SettingError, match="n_train must be at most 16728; got 20000"):
        build_settings(ScanSettings, {"n_train": 20_000}, name="scan")
