"""Language models: sizes, crops, key retrieval, the shift, loss weights, replay, and a short run of each kind."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spectraledge.errors import DataError, SettingError
from spectraledge.experiments.baselines import Baselines
from spectraledge.experiments.loop import capability, train
from spectraledge.experiments.models.decoder import Decoder
from spectraledge.experiments.optimizers import build_optimizers, hidden_matrices
from spectraledge.experiments.settings.lm import (
    GPT2Settings,
    LanguageSettings,
    SmallLanguageSettings,
    StoriesSettings,
)
from spectraledge.experiments.settings.parse import build_settings
from spectraledge.experiments.tasks.key_retrieval import SENTENCES, KeyRetrieval
from spectraledge.experiments.tasks.lm import Batch, Crops, LanguageTask, language_experiment
from spectraledge.experiments.text import ByteTokenizer, Documents

TINY = {
    "tokenizer": "bytes",
    "context": 24,
    "layers": 2,
    "d_model": 16,
    "heads": 2,
    "d_hidden": 32,
    "batch_size": 4,
    "accumulate": 1,
    "warmup": 2,
    "steps": 20,
    "eval_every": 10,
    "eval_sequences": 6,
    "lr": 3e-3,
}
# Bytes are short tokens: the sentences take up to 59 of them.
RETRIEVAL = {
    "probe_share": 0.5,
    "context": 128,
    "probe_gap": (5, 12),
    "probe_far_gap": (20, 40),
    "probe_sequences": 30,
}


def write(folder: Path, name: str, words: str) -> str:
    """A text of 300 lines whose words come in no fixed order."""
    rng = np.random.default_rng(7)
    lines = [" ".join(rng.choice(words.split(), size=8)) for _ in range(300)]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return str(folder / name)


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write(tmp_path, "first.txt", "a gap opens and the signal rises out of noise while weights decay")


@pytest.fixture
def digits(tmp_path: Path) -> str:
    return write(tmp_path, "second.txt", "10 21 332 4 57 608 99 1000")


def tiny(**values: object) -> LanguageSettings:
    return LanguageSettings(**{**TINY, **values})  # type: ignore[arg-type]


def same(one: Batch, two: Batch) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, two))


def train_quietly(settings: LanguageSettings) -> tuple[list[dict[str, float]], nn.Module, LanguageTask]:
    torch.manual_seed(0)
    experiment = language_experiment(settings)
    logged: list[dict[str, float]] = []
    optimizers = build_optimizers(experiment.model, settings, experiment.outer)
    train(experiment, optimizers, settings, log=lambda **metrics: logged.append(metrics))
    return logged, experiment.model, experiment.task  # type: ignore[return-value]


# --- the network ---------------------------------------------------------------------------------------------------


def sizes(settings: LanguageSettings, vocab_size: int) -> tuple[int, int]:
    with torch.device("meta"):
        model = Decoder(
            vocab_size, settings.context, settings.d_model, settings.layers, settings.heads, settings.d_hidden
        )
    trunk = hidden_matrices(model, Decoder.outer)
    parameters = dict(model.named_parameters())
    return sum(p.numel() for p in parameters.values()), sum(parameters[name].numel() for name in trunk)


def test_parameters_are_as_many_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing normal numbers for tensors without data loads a compiler, which takes seconds.
    monkeypatch.setattr(torch.Tensor, "normal_", lambda tensor, *_, **__: tensor)
    assert sizes(StoriesSettings(), 50_257) == (51_045_888, 25_165_824)
    assert sizes(GPT2Settings(), 50_257) == (123_767_040, 84_934_656)
    # Embedding 2048 * 128, positions 128 * 128, 4 layers of 12 * 128^2, and 9 norms of 256.
    assert sizes(SmallLanguageSettings(), 2048) == (262_144 + 16_384 + 786_432 + 9 * 256, 786_432)


def test_the_decoder_is_causal_and_drawn_as_published() -> None:
    torch.manual_seed(0)
    model = Decoder(50, 12, 64, 2, 4, 256).double()
    tokens = torch.randint(50, (3, 10))
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 50
    with torch.no_grad():
        logits, others = model(tokens), model(changed)
        assert logits.shape == (3, 10, 50)
        assert torch.equal(logits[:, :6], others[:, :6])
        assert all(not torch.equal(logits[:, place], others[:, place]) for place in range(6, 10))
        at = torch.tensor([0, 9, 4])
        # One product of matrices for another: float64, numbers of order 1.
        torch.testing.assert_close(model(tokens, at), logits[torch.arange(3), at], rtol=0, atol=1e-12)
    assert not [name for name, _ in model.named_parameters() if "bias" in name and "norm" not in name]
    matrices = torch.cat([p.detach().ravel() for p in model.parameters() if p.ndim == 2])
    # Standard errors of mean and deviation of n draws: 0.02 / sqrt(n) and 0.02 / sqrt(2 n); five of them.
    n = len(matrices)
    assert abs(float(matrices.mean())) < 5 * 0.02 / n**0.5
    assert abs(float(matrices.std()) - 0.02) < 5 * 0.02 / (2 * n) ** 0.5


def test_outer_parameters_are_those_that_face_the_text() -> None:
    model = Decoder(20, 8, 8, 1, 2, 16)
    inside = ["layers.0.qkv.weight", "layers.0.out.weight", "layers.0.up.weight", "layers.0.down.weight"]
    assert hidden_matrices(model, Decoder.outer) == inside


# --- crops ---------------------------------------------------------------------------------------------------------


def documents(*lengths: int) -> Documents:
    """Token t of document i is 100 i + t."""
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    tokens = [np.arange(100 * i, 100 * i + n, dtype=np.int32) for i, n in enumerate(lengths)]
    return Documents(np.concatenate(tokens), offsets)


@pytest.mark.parametrize("rows", [False, True])
def test_crops_are_pieces_of_one_document_and_short_ones_are_padded(rows: bool) -> None:
    crops = Crops(documents(4, 1, 20, 8), end=999, context=7, rows=rows)
    tokens, text = crops.draw(4000, np.random.default_rng(0))
    assert tokens.shape == text.shape == (4000, 8)
    assert (tokens[~text] == 999).all()
    # Within a document tokens go up by one, so that crossing into another would show.
    assert (np.diff(tokens, axis=1)[text[:, 1:]] == 1).all()
    starts, counts = np.unique(tokens[:, 0], return_counts=True)
    # Document 1 is too short; 0 and 3 have one crop each, 2 has thirteen.
    assert starts.tolist() == [0, *range(200, 213), 300]
    share = np.full(15, 1 / 39) if rows else np.full(15, 1 / 15)
    if rows:
        share[[0, -1]] = 1 / 3
    # Five standard errors of a share.
    assert (np.abs(counts / 4000 - share) < 5 * np.sqrt(share * (1 - share) / 4000)).all()
    assert text[tokens[:, 0] == 0].sum(axis=1).tolist() == [4] * counts[0]


def test_spaced_crops_are_fixed_distinct_and_few() -> None:
    tokens, _ = Crops(documents(4, 1, 20, 8), end=999, context=7, rows=False).spaced(4)
    assert tokens[:, 0].tolist() == [0, 204, 208, 300]  # crops 0, 5, 9 and 14 of 15
    assert len(Crops(documents(4, 1, 20, 8), end=999, context=7, rows=False).spaced(100)[0]) == 15
    assert Crops(documents(4, 1, 20, 8), end=999, context=7, rows=True).spaced(2)[0][:, 0].tolist() == [0, 300]
    with pytest.raises(DataError, match="at least 2 tokens"):
        Crops(documents(1, 1), end=999, context=7, rows=True)


def test_targets_follow_their_tokens_and_padding_weighs_nothing(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("hello world " * 2, encoding="utf-8")
    task = LanguageTask(tiny(text=str(tmp_path / "short.txt"), context=40))
    batch = task.draw()
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    padded = batch.targets == task.corpus.end
    assert padded.any()
    assert (batch.weights[padded] == 0).all()
    weights = batch.weights[~padded]
    assert (weights == weights[0]).all()
    assert float(batch.weights.sum()) == pytest.approx(1, abs=1e-14)


def test_loss_is_the_mean_over_text(text: str) -> None:
    task = LanguageTask(tiny(text=text))
    model = Decoder(257, 24, 16, 2, 2, 32).double()
    batch = task.draw()
    wanted = functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
    # Two orders of summing a hundred numbers of order 1 in float64.
    assert float(task.loss(model, batch).detach()) == pytest.approx(float(wanted.detach()), abs=1e-13)


# --- key retrieval -------------------------------------------------------------------------------------------------


def split_at_answer(sequence: list[int], answer: int) -> tuple[str, str]:
    return bytes(sequence[:answer]).decode(), bytes(sequence[answer : answer + 1]).decode()


@pytest.mark.parametrize("gap", [(5, 12), (20, 40), (3, 3)])
def test_the_answer_is_the_codeword_said_before(gap: tuple[int, int]) -> None:
    retrieval = KeyRetrieval(ByteTokenizer(), tiny(**RETRIEVAL))
    assert bytes(retrieval.codewords.tolist()).decode() == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    rng = np.random.default_rng(0)
    gaps, offsets, codewords, used = set(), set(), set(), set()
    for _ in range(400):
        filler = rng.integers(ord("0"), ord("9") + 1, size=129)
        tokens, marks, answer = retrieval.inject(filler, np.ones(129, dtype=bool), gap, rng)
        assert tokens.shape == marks.shape == (129,)
        assert marks.all()
        said, codeword = split_at_answer(tokens.tolist(), answer)
        (kind,) = (k for k, (_, _, question) in enumerate(SENTENCES) if said.endswith(question + " "))
        before, after, question = SENTENCES[kind]
        key = f"{before} {codeword}{after}"
        offset = said.index(key)
        between = said[offset + len(key) : -len(question) - 1]
        # The sequence goes on where it was cut, and nothing of it is lost but its end.
        rest = bytes(tokens[answer + 1 :].tolist()).decode()
        assert (said[:offset] + between + rest).encode() == bytes(filler.tolist())[
            : 129 - len(key) - len(question) - 2
        ]
        gaps.add(len(between))
        offsets.add(offset)
        codewords.add(codeword)
        used.add(kind)
    # 400 draws leave out one of 26 with probability below 26 (25/26)^400 = 4e-6, one of 21 or fewer with less.
    assert gaps == set(range(gap[0], gap[1] + 1))
    assert (offsets, len(codewords), used) == (set(range(9)), 26, set(range(5)))


def test_test_sets_ask_at_their_gaps_and_hide_nothing() -> None:
    settings = tiny(**{**RETRIEVAL, "probe_sequences": 60})
    retrieval = KeyRetrieval(ByteTokenizer(), settings)
    for far, (low, high) in ((False, (5, 12)), (True, (20, 40))):
        found = retrieval.test_set(far=far)
        assert found.tokens.shape == (60, int(found.asked.max()) + 1)
        for row, asked, codeword in zip(found.tokens, found.asked, found.codewords):
            said = bytes(row[: asked + 1].tolist()).decode("latin-1")
            (question,) = (words + " " for _, _, words in SENTENCES if said.endswith(words + " "))
            # The codeword stands before the only full stop, and capitals besides begin sentences.
            key, stop = said.index(f" {chr(codeword)}."), said.index(".")
            assert (key, said.count(".")) == (stop - 2, 1)
            assert low <= len(said) - len(question) - stop - 1 <= high
        again = KeyRetrieval(ByteTokenizer(), settings).test_set(far=far)
        np.testing.assert_array_equal(found.tokens, again.tokens)
        np.testing.assert_array_equal(found.codewords, again.codewords)


def test_answers_weigh_what_the_step_says_and_language_one(text: str) -> None:
    task = LanguageTask(tiny(text=text, **RETRIEVAL, accumulate=2, probe_late_step=3))
    shares = []
    for drawn in range(200):
        batch = task.draw()
        asked = (batch.targets >= ord("A")) & (batch.targets <= ord("Z"))
        # A capital is an answer, the key itself, or the first letter of a sentence: the weight tells.
        language = batch.weights[0, 0] if batch.weights[0, 0] > 0 else batch.weights[batch.weights > 0].min()
        answers = (batch.weights != language) & asked
        wanted = 2.0 if drawn < 4 else 4.0  # two batches a step, so that step 3 begins with batch 5
        if answers.any():
            assert float(batch.weights[answers].sum()) == pytest.approx(wanted, abs=1e-12)
        assert (answers.sum(dim=1) <= 1).all()
        assert float(batch.weights[~answers].sum()) == pytest.approx(1, abs=1e-12)
        shares.append(float(answers.double().sum() / 4))
    # Half of 800 sequences, within five standard errors.
    assert abs(np.mean(shares) - 0.5) < 5 * 0.5 / 800**0.5


def test_retrieval_is_scored_by_the_likeliest_answer(text: str) -> None:
    class Knows(nn.Module):
        """Answers with the capital that stands before the first full stop, at some share of the questions."""

        def forward(self, tokens: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
            if at is None:
                return torch.zeros(*tokens.shape, 257)
            logits = torch.zeros(len(tokens), 257)
            for row, sequence in enumerate(tokens.tolist()):
                said = [a for a, b in pairwise(sequence) if b == ord(".") and ord("A") <= a <= ord("Z")]
                logits[row, said[0] if row % 3 else 0] = 1
            return logits

    metrics = LanguageTask(tiny(text=text, **RETRIEVAL)).evaluate(Knows())
    assert metrics["in_accuracy"] == metrics["ood_accuracy"] == pytest.approx(20 / 30)
    assert metrics["test_loss"] == pytest.approx(np.log(257), rel=1e-6)  # float32 logits, all equal


class Lowercase(ByteTokenizer):
    """A tokenizer that knows no capitals."""

    def decode(self, tokens: list[int]) -> str:
        return super().decode(tokens).lower()


def test_retrieval_says_what_is_missing(text: str) -> None:
    with pytest.raises(SettingError, match=r"context must hold .* got 24\. .*probe_share=0"):
        LanguageTask(tiny(text=text, probe_share=0.1))
    with pytest.raises(SettingError, match=r"at least 16 single tokens .* has 0\. .*probe_share=0"):
        KeyRetrieval(Lowercase(), tiny(**RETRIEVAL))


def test_codewords_of_a_learnt_vocabulary_are_single_tokens_after_a_space(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    names = [first + second for first in "ABCDEF" for second in "KLMNO"]
    path = write(tmp_path, "names.txt", " ".join(names))
    settings = tiny(text=path, tokenizer="bpe", vocab_size=400, **{**RETRIEVAL, "context": 160})
    task = LanguageTask(settings)
    assert task.retrieval is not None
    words = [task.corpus.tokenizer.decode([int(token)]) for token in task.retrieval.codewords]
    assert {" " + name for name in names} <= set(words)
    assert all(task.corpus.tokenizer.encode(word) == [token] for word, token in zip(words, task.retrieval.codewords))


# --- the run -------------------------------------------------------------------------------------------------------


def test_twenty_steps_learn_and_leave_the_run_as_it_is(text: str) -> None:
    logged, model, task = train_quietly(tiny(text=text))
    assert [metrics["train_loss"] for metrics in logged] == sorted((m["train_loss"] for m in logged), reverse=True)
    # An untrained network guesses among 257.
    assert logged[0]["test_loss"] == pytest.approx(np.log(257), abs=0.2)
    assert logged[-1]["test_loss"] < 5
    assert capability(logged[-1]) == logged[-1]["test_accuracy"] < 0.98
    model.zero_grad()
    before = task.state()
    metrics = task.evaluate(model)
    assert task.state() == before
    assert not any(p.grad is not None for p in model.parameters())
    # Fewer crops than 16, so that the probes see them all.
    for name, loss in zip(("train_loss", "test_loss"), task.probe_losses()):
        assert float(loss(model).detach()) == pytest.approx(metrics[name], rel=1e-5)  # float32
    outputs, _ = task.probe_outputs(30)
    assert outputs(model).shape == (30, 257)
    assert train_quietly(tiny(text=text))[0] == logged


def test_evaluation_in_pieces_is_evaluation_at_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = LanguageTask(tiny(text=text, **RETRIEVAL))
    model = Decoder(257, 128, 16, 2, 2, 32).double()
    whole = task.evaluate(model)
    monkeypatch.setattr("spectraledge.experiments.tasks.lm._LOGITS", 2 * 128 * 257)
    for name, value in task.evaluate(model).items():
        assert value == pytest.approx(whole[name], abs=1e-12)


@pytest.mark.parametrize(("shift_step", "first"), [(None, 11), (5, 5)])
def test_batches_change_text_at_the_step_and_both_are_evaluated(
    text: str, digits: str, shift_step: int | None, first: int
) -> None:
    settings = tiny(text=text, shift_text=digits, shift_step=shift_step, accumulate=2)
    task = LanguageTask(settings)

    def is_second(batch: Batch) -> bool:
        known = set(b"0123456789 \n")
        found = {all(token in known for token in row) for row in batch.tokens.tolist()}
        assert len(found) == 1
        return found.pop()

    kinds = []
    for _ in range(settings.steps):
        twin = task.replica(1)
        pair = [is_second(task.draw()), is_second(task.draw())]
        assert is_second(twin.draw()) == pair[0] == pair[1]
        kinds.append(pair[0])
    assert kinds == [step >= first for step in range(1, settings.steps + 1)]
    found = task.evaluate(Decoder(257, 24, 16, 1, 2, 32))
    assert list(found) == [
        f"{name}_{metric}" for name in ("train", "test", "shift") for metric in ("loss", "accuracy")
    ]


def test_the_shift_is_learnt_from_its_step_on(text: str, digits: str) -> None:
    common = {"text": text, "steps": 40, "lr": 1e-2, "eval_every": 20, "schedule": "constant"}
    logged, _, _ = train_quietly(tiny(**common, shift_text=digits))
    at = {"half": logged[1], "end": logged[2]}
    assert at["half"]["test_loss"] < at["half"]["shift_loss"]
    assert at["end"]["shift_loss"] < at["half"]["shift_loss"]
    assert at["end"]["test_loss"] > at["half"]["test_loss"]


def test_state_goes_on_where_it_was_and_replicas_draw_their_own(text: str, digits: str) -> None:
    settings = tiny(text=text, shift_text=digits, shift_step=3, **RETRIEVAL)
    task = LanguageTask(settings)
    task.draw()
    state = json.loads(json.dumps(task.state()))
    one, two = task.replica(1), task.replica(2)
    first = one.draw()
    assert not same(first, two.draw())
    assert same(first, task.replica(1).draw())
    assert task.state() == state
    assert one.corpus is task.corpus
    ahead = [task.draw() for _ in range(3)]
    assert not same(ahead[0], first)
    fresh = LanguageTask(settings)
    fresh.load_state(state)
    assert all(same(fresh.draw(), batch) for batch in ahead)
    assert not same(LanguageTask(tiny(**{**settings.model_dump(), "seed": 7})).draw(), LanguageTask(settings).draw())
    with pytest.raises(SettingError, match="stream must be at least 1"):
        task.replica(0)


def test_the_placebo_keeps_tokens_and_loses_their_order(text: str) -> None:
    true, placebo = (LanguageTask(tiny(text=text, labels=labels)).corpus for labels in ("true", "shuffled"))
    both = [np.concatenate([c.train.tokens, c.val.tokens]) for c in (true, placebo)]
    np.testing.assert_array_equal(*(np.bincount(tokens) for tokens in both))
    assert not np.array_equal(*both)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "nesterov"])
def test_every_optimizer_and_the_commutator_take_it(text: str, optimizer: str) -> None:
    settings = LanguageSettings(
        **{**TINY, "text": text, "steps": 2, "optimizer": optimizer, "lr": LanguageSettings(optimizer=optimizer).lr}
    )
    experiment = language_experiment(settings)
    optimizers = build_optimizers(experiment.model, settings, experiment.outer)
    measured = Baselines(experiment, settings)
    assert measured.measure(1)["commutator_defect"] > 0
    assert len(measured.spectra(1)) == 2 * 6  # query, key and value apart
    train(experiment, optimizers, settings, log=lambda **metrics: None)
    undecayed = [p for o in optimizers for g in o.param_groups if g["weight_decay"] == 0 for p in g["params"]]
    assert {p.ndim for p in undecayed} == {1}


def test_bfloat16_products_leave_parameters_in_float32(text: str) -> None:
    task = LanguageTask(tiny(text=text, autocast="bfloat16"))
    model = Decoder(257, 24, 16, 2, 2, 32)
    batch = task.draw()
    rough, fine = task.loss(model, batch), LanguageTask(tiny(text=text)).loss(model, batch)
    assert rough.dtype == torch.float32
    # Logits of order 0.1 with 8 bits of mantissa: single targets are off by some 1e-3, their mean by less.
    assert 0 < abs(float((rough - fine).detach())) < 1e-3
    rough.backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


# --- settings ------------------------------------------------------------------------------------------------------


def test_a_missing_text_is_said_in_a_sentence() -> None:
    with pytest.raises(SettingError, match=r"text must name what to train on; .*--set text=FILE"):
        language_experiment(SmallLanguageSettings())


def test_defaults_are_the_published_ones() -> None:
    stories = StoriesSettings()
    assert (stories.batch_size * stories.accumulate, stories.betas, stories.weight_decay) == (128, (0.9, 0.95), 0.5)
    assert (stories.probe_share, stories.probe_weight, stories.probe_weight_late) == (0.1, 2, 4)
    muon = StoriesSettings(optimizer="muon")
    assert (muon.lr, muon.momentum, muon.adamw_lr, muon.weight_decay) == (0.02, 0.95, 1e-3, 0.5)
    assert GPT2Settings(optimizer="muon").weight_decay == GPT2Settings().weight_decay == 0.1
    assert not any(kind().decay_norms for kind in (SmallLanguageSettings, StoriesSettings, GPT2Settings))


def test_settings_are_read_from_text_and_refused_in_a_sentence() -> None:
    read = build_settings(
        LanguageSettings, {"probe_gap": "3,9", "shift_step": "none", "max_train_documents": "12"}, name="lm"
    )
    assert (read.probe_gap, read.shift_step, read.max_train_documents) == ((3, 9), None, 12)
    for values, words in (
        ({"heads": 5}, "d_model must be a multiple of heads"),
        ({"shift_step": 5}, "shift_step needs a second text"),
        ({"probe_far_gap": "9,3"}, "probe_far_gap must give the least and the most"),
    ):
        with pytest.raises(SettingError, match=words):
            build_settings(LanguageSettings, values, name="lm")
