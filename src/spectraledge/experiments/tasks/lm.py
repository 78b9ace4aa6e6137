"""Next-token prediction on random crops of a text, with key retrieval and a second text half-way on request.

Source: the TinyStories runs of arXiv:2603.28964 (crops, padding, loss and probes as described there).
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...errors import DataError
from ...kernel import OutputLoss
from ...kernel import cross_entropy as kernel_cross_entropy
from ..models.decoder import Decoder
from ..settings.lm import LanguageSettings
from ..text import Corpus, Documents, build_corpus
from .base import Experiment, Loss
from .key_retrieval import KeyRetrieval, RetrievalSet
from .streams import OwnBatches

# Crops of either probe loss: what a small batch holds.
_PROBED = 16

# Logits held at a time while evaluating: 256 MiB in float32.
_LOGITS = 2**26

# Test sequences answered at a time; of each, one row of logits is wanted.
_ASKED = 64

Numbers = NDArray[np.int64]
Marks = NDArray[np.bool_]


class Batch(NamedTuple):
    """Sequences and what is predicted from them, ``(batch, context)`` each.

    Attributes:
        tokens: Token numbers.
        targets: The tokens that follow.
        weights: Of each target in the loss: 1 in all over text, ``probe_weight`` in all over answers, 0 at padding.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor


class Crops:
    """Pieces of ``context + 1`` tokens of documents; short documents are padded with the end of text.

    Args:
        documents: Where they come from; those of fewer than 2 tokens hold no prediction and are left out.
        end: What pads.
        context: Tokens to predict from.
        rows: Documents are equally likely, as rows of a data set are in the published runs; else every crop is,
            so that a long file counts for more than a short one.

    Raises:
        DataError: If no document is left.
    """

    def __init__(self, documents: Documents, end: int, context: int, *, rows: bool) -> None:
        lengths = np.diff(documents.offsets)
        kept = lengths >= 2
        if not kept.any():
            raise DataError("text must hold documents of at least 2 tokens; all are shorter. Give a longer text.")
        self._tokens, self._end, self._context = documents.tokens, end, context
        self._starts, self._lengths = documents.offsets[:-1][kept], lengths[kept]
        self._rows = rows
        # Crops of all documents before each one, and of all.
        self._before = np.concatenate([[0], np.cumsum(np.maximum(1, self._lengths - context))])

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Numbers, Marks]:
        """Random crops: tokens ``(n, context + 1)``, and which of them are text."""
        if not self._rows:
            return self._numbered(rng.integers(self._before[-1], size=n))
        chosen = rng.integers(len(self._starts), size=n)
        return self._cut(chosen, rng.integers(np.maximum(1, self._lengths[chosen] - self._context)))

    def spaced(self, n: int) -> tuple[Numbers, Marks]:
        """At most ``n`` crops, evenly spaced and always the same; beginnings of documents where these are rows."""
        if not self._rows:
            return self._numbered(evenly_spaced(int(self._before[-1]), n))
        chosen = evenly_spaced(len(self._starts), n)
        return self._cut(chosen, np.zeros(len(chosen), dtype=np.int64))

    def _numbered(self, crops: Numbers) -> tuple[Numbers, Marks]:
        chosen = np.searchsorted(self._before, crops, side="right") - 1
        return self._cut(chosen, crops - self._before[chosen])

    def _cut(self, chosen: Numbers, start: Numbers) -> tuple[Numbers, Marks]:
        place = start[:, None] + np.arange(self._context + 1)
        lengths = self._lengths[chosen, None]
        text = place < lengths
        tokens = self._tokens[self._starts[chosen, None] + np.minimum(place, lengths - 1)]
        return np.where(text, tokens, self._end).astype(np.int64), text


def evenly_spaced(total: int, n: int) -> Numbers:
    """At most ``n`` of 0..total-1, the first and the last among them.

    Example:
        >>> evenly_spaced(15, 4).tolist(), evenly_spaced(2, 4).tolist()
        ([0, 5, 9, 14], [0, 1])
    """
    return np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(np.int64))


class LanguageTask(OwnBatches):
    """Mean cross-entropy of the next token, that of answers to key questions added with a weight of its own.

    Which text a batch comes from and the weight of answers follow from how many batches were drawn before:
    ``accumulate`` make a step. A replica counts on from where the task stands.

    Args:
        settings: Text, context, batch size, probes and shift.
        stream: Which of the independent batch generators; 0 is the run's own.

    Attributes:
        corpus: The first text.
        retrieval: Key retrieval, or None.
    """

    def __init__(self, settings: LanguageSettings, stream: int = 0) -> None:
        self._settings = settings
        self.corpus = _corpus(settings, settings.text, None)
        self._train = self._crops(self.corpus, "train", settings.text)
        sets = {"train": self._train, "test": self._crops(self.corpus, "val", settings.text)}
        self._shift: Crops | None = None
        if settings.shift_text.strip():
            second = _corpus(settings, settings.shift_text, self.corpus)
            self._shift = self._crops(second, "train", settings.shift_text)
            sets["shift"] = self._crops(second, "val", settings.shift_text)
        self._fixed = {name: crops.spaced(settings.eval_sequences) for name, crops in sets.items()}
        self._evaluated = {name: self._batch(*fixed) for name, fixed in self._fixed.items()}
        self.retrieval = KeyRetrieval(self.corpus.tokenizer, settings) if settings.probe_share else None
        self._asked: dict[str, RetrievalSet] = {}
        if self.retrieval is not None:
            self._asked = {"in": self.retrieval.test_set(far=False), "ood": self.retrieval.test_set(far=True)}
        self._start_batches(settings.seed, stream)
        self._drawn = 0

    def _crops(self, corpus: Corpus, side: str, text: str) -> Crops:
        rows = all(source.strip().startswith("hf:") for source in text.split(",") if source.strip())
        return Crops(getattr(corpus, side), corpus.end, self._settings.context, rows=rows)

    def draw(self) -> Batch:
        """The next batch; see `Batch`."""
        settings, rng = self._settings, self._rng
        step = self._drawn // settings.accumulate + 1
        self._drawn += 1
        crops = self._shift if self._shift is not None and settings.shifted(step) else self._train
        tokens, text = crops.draw(settings.batch_size, rng)
        if self.retrieval is None:
            return self._batch(tokens, text)
        answers = np.zeros(tokens.shape, dtype=bool)
        for row in np.flatnonzero(rng.random(len(tokens)) < settings.probe_share):
            tokens[row], text[row], answer = self.retrieval.inject(tokens[row], text[row], settings.probe_gap, rng)
            answers[row, answer] = True
        late = step >= settings.probe_late_step
        return self._batch(tokens, text, answers, settings.probe_weight_late if late else settings.probe_weight)

    def _batch(self, tokens: Numbers, text: Marks, answers: Marks | None = None, weight: float = 0.0) -> Batch:
        """Sequences of ``context + 1`` tokens against themselves, one token on."""
        language = text[:, 1:].copy()
        weights = np.zeros(language.shape)
        if answers is not None and answers.any():
            asked = answers[:, 1:]
            language &= ~asked
            weights[asked] = weight / asked.sum()
        weights[language] = 1 / language.sum()
        device = self._settings.device
        parts = (tokens[:, :-1], tokens[:, 1:], weights)
        return Batch(*(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of text in nats, plus ``probe_weight`` times that of answers."""
        each, _ = self._each(model, batch)
        return (each * batch.weights.to(each.dtype)).sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Losses in nats a token and accuracies as fractions, on fixed crops without key retrieval.

        Returns:
            ``train_loss``, ``train_accuracy`` (the likeliest next token is the right one), ``test_loss`` and
            ``test_accuracy``; with a second text ``shift_loss`` and ``shift_accuracy`` on what is held out of it;
            with key retrieval ``in_accuracy`` and ``ood_accuracy``, the share of questions whose likeliest answer
            is the codeword, at the gaps of training and at larger ones.
        """
        metrics: dict[str, float] = {}
        rows = max(1, _LOGITS // (self._settings.context * self.corpus.vocab_size))
        with torch.no_grad():
            for name, batch in self._evaluated.items():
                loss = accuracy = 0.0
                for part in map(Batch, *(values.split(rows) for values in batch)):
                    each, right = self._each(model, part)
                    loss += float((each.double() * part.weights).sum())
                    accuracy += float((right * part.weights).sum())
                metrics |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
            for name, asked in self._asked.items():
                metrics[f"{name}_accuracy"] = self._answered(model, asked)
        return metrics

    def _each(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and whether the likeliest token is right, ``(batch, context)`` each."""
        with self._precision():
            logits = model(batch.tokens)
        # Sums over a vocabulary need more than bfloat16.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        each = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
        return each.view(batch.targets.shape), logits.argmax(-1) == batch.targets

    def _answered(self, model: nn.Module, asked: RetrievalSet) -> float:
        parts = (asked.tokens, asked.asked, asked.codewords)
        sequences, at, codewords = (torch.from_numpy(part).to(self._settings.device) for part in parts)
        right = 0
        for start in range(0, len(at), _ASKED):
            rows = slice(start, start + _ASKED)
            with self._precision():
                right += int((model(sequences[rows], at[rows]).argmax(-1) == codewords[rows]).sum())
        return right / len(at)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._settings.autocast == "none":
            return nullcontext()
        return torch.autocast(torch.device(self._settings.device).type, dtype=torch.bfloat16)

    def probe_losses(self) -> tuple[Loss, Loss]:
        """Mean cross-entropy on at most 16 of the crops evaluated, train and held out, of the first text."""

        def on(name: str) -> Loss:
            tokens, text = self._fixed[name]
            chosen = evenly_spaced(len(tokens), _PROBED)
            batch = self._batch(tokens[chosen], text[chosen])
            return lambda model: self.loss(model, batch)

        return on("train"), on("test")

    def probe_outputs(self, n: int) -> tuple[Loss, OutputLoss]:
        """Logits at the first ``n`` targets of the crops evaluated, ``(n, vocab)``, and their mean cross-entropy."""
        batch = self._evaluated["train"]
        crop, place = (where[:n] for where in torch.nonzero(batch.weights, as_tuple=True))
        tokens, targets = batch.tokens[: int(crop.max()) + 1], batch.targets[crop, place]
        return lambda model: model(tokens)[crop, place], kernel_cross_entropy(targets)

    def state(self) -> dict[str, Any]:
        """State of the batch generator, and how many batches were drawn."""
        return {"drawn": self._drawn, "generator": super().state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Put the batch generator and the count back."""
        self._drawn = int(state["drawn"])
        super().load_state(state["generator"])


def language_experiment(settings: LanguageSettings) -> Experiment:
    """Network and task of one language run; the initialisation is drawn from torch's default generator."""
    task = LanguageTask(settings)
    model = Decoder(
        task.corpus.vocab_size,
        settings.context,
        settings.d_model,
        settings.layers,
        settings.heads,
        settings.d_hidden,
    )
    return Experiment(model, task, Decoder.outer)


def _corpus(settings: LanguageSettings, text: str, first: Corpus | None) -> Corpus:
    """A text as tokens: those of the first one, where there is one."""
    most = settings.max_train_documents, settings.max_val_documents
    return build_corpus(
        text,
        tokenizer=settings.tokenizer if first is None else first.tokenizer,
        vocab_size=settings.vocab_size,
        val_fraction=settings.val_fraction,
        max_documents=None if most == (None, None) else (most[0] or sys.maxsize, most[1] or sys.maxsize),
        shuffled=settings.labels == "shuffled",
        seed=settings.seed,
    )
