"""Depth of a stack of brackets: a few sequences trained on, thousands tested on, most of them repeated.

Source: the Dyck runs of arXiv:2603.28964. In their test set 24.4 % of the sequences are training sequences and 49.6 %
of the positions have their whole prefix in the training set, so that its accuracy rewards memorising; here it stands
beside accuracies that do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...kernel import OutputLoss
from ...kernel import cross_entropy as kernel_cross_entropy
from ..models.dyck import DyckTransformer
from ..settings.dyck import DyckSettings
from .base import Experiment, Loss
from .dyck_data import IGNORED, dyck_data
from .streams import OwnBatches

# Sequences evaluated at once, sorted by length: each chunk is cut to its longest.
_CHUNK = 64

# Test sequences of the probes' validation loss: a gradient of all of them would take the time of 100 training steps.
_PROBED = 500


class DyckTask(OwnBatches):
    """Mean cross-entropy over the brackets of batches drawn with replacement.

    Args:
        settings: Sequences, split and batch size.
        stream: Which of the independent batch generators; 0 is the run's own.
    """

    def __init__(self, settings: DyckSettings, stream: int = 0) -> None:
        self._settings = settings
        self.data = data = dyck_data(settings)
        self._tokens, self._targets = self._place(data.tokens), self._place(data.targets)
        self._train = self._sequences(data.order[: data.n_train])
        self._probed = self._sequences(data.order[data.n_train :][:_PROBED])
        self._chunks = _chunks(data.scored.sum(axis=1))
        self._start_batches(settings.seed, stream)

    def _place(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._settings.device)

    def _sequences(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        chosen = self._place(rows)
        return self._tokens[chosen], self._targets[chosen]

    def draw(self) -> tuple[Tensor, Tensor]:
        """Tokens and targets, both ``(batch, context)``."""
        tokens, targets = self._train
        chosen = self._place(self._rng.integers(len(targets), size=self._settings.batch_size))
        return tokens[chosen], targets[chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the brackets, in nats."""
        return _cross_entropy(model, *batch)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Losses in nats and accuracies as fractions, all of them NaN where a set is empty.

        Returns:
            ``train_loss``, ``train_accuracy``, ``test_loss`` and ``test_accuracy``: means over the brackets of all
            sequences, repetitions counted as often as they stand there. ``sequence_accuracy``: test sequences right
            at every bracket. ``unseen_accuracy``: brackets of the test set whose whole prefix begins no training
            sequence. ``dedup_accuracy`` and ``dedup_sequence_accuracy``: brackets and sequences of the distinct test
            sequences that are not training sequences.
        """
        loss, right = self._at_each_bracket(model)
        data, scored = self.data, self.data.scored
        train, test, dedup = (
            counts[:, None] * scored for counts in (data.train_counts, data.test_counts, data.fresh.astype(np.int64))
        )
        whole = np.asarray((right | ~scored).all(axis=1))
        return {
            "train_loss": _mean(loss, train),
            "train_accuracy": _mean(right, train),
            "test_loss": _mean(loss, test),
            "test_accuracy": _mean(right, test),
            "sequence_accuracy": _mean(whole, data.test_counts),
            "unseen_accuracy": _mean(right, test * data.unseen),
            "dedup_accuracy": _mean(right, dedup),
            "dedup_sequence_accuracy": _mean(whole, data.fresh),
        }

    def _at_each_bracket(self, model: nn.Module) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Cross-entropy and whether the likeliest depth is the right one, ``(n, context)``; 0 and False at PAD.

        Each distinct sequence is evaluated once, as often as it may stand in either set.
        """
        loss = np.zeros(self.data.tokens.shape)
        right = np.zeros(self.data.tokens.shape, dtype=bool)
        with torch.no_grad():
            for rows, length in self._chunks:
                tokens, targets = (values[:, :length] for values in self._sequences(rows))
                logits = model(tokens)
                each = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
                loss[rows, :length] = each.cpu().numpy()
                right[rows, :length] = (logits.argmax(-1) == targets).cpu().numpy()
        return loss, right

    def probe_losses(self) -> tuple[Loss, Loss]:
        """Mean cross-entropy on the whole training set and on the first 500 test sequences."""
        return lambda model: _cross_entropy(model, *self._train), lambda model: _cross_entropy(model, *self._probed)

    def probe_outputs(self, n: int) -> tuple[Loss, OutputLoss]:
        """Logits at the first ``n`` distinct training prefixes, ``(n, n_classes)``, and their mean cross-entropy.

        Distinct, because a prefix met twice adds two equal rows to a tangent kernel.
        """
        prefixes = self.data.prefixes[self.data.order[: self.data.n_train]]
        numbers, where = np.unique(prefixes, return_index=True)
        sequence, column = np.unravel_index(where[numbers >= 0][:n], prefixes.shape)
        rows, place = np.unique(sequence, return_inverse=True)
        tokens, targets = (values[self._place(rows)] for values in self._train)
        at = self._place(place), self._place(column)
        return lambda model: model(tokens)[at], kernel_cross_entropy(targets[at])


def dyck_experiment(settings: DyckSettings) -> Experiment:
    """Network and task of one Dyck run; the initialisation is drawn from torch's default generator."""
    model = DyckTransformer(
        settings.n_classes, settings.positions, settings.d_model, settings.layers, settings.heads, settings.d_hidden
    )
    return Experiment(model, DyckTask(settings), DyckTransformer.outer)


def _cross_entropy(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _mean(values: NDArray[Any], weights: NDArray[Any]) -> float:
    total = weights.sum()
    return float((values * weights).sum() / total) if total else float("nan")


def _chunks(lengths: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], int]]:
    """Rows of each chunk and the length of its longest sequence."""
    by_length = np.argsort(lengths, kind="stable")
    parts = np.split(by_length, range(_CHUNK, len(by_length), _CHUNK))
    return [(rows, int(lengths[rows].max())) for rows in parts]
