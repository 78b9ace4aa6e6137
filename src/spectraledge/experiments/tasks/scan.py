"""Commands to action sequences: some two thousand commands trained on, five hundred others tested on.

Source: the SCAN runs of arXiv:2603.28964. Commands are distinct in the simple split, so that unlike Dyck's no test
command is a training command.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...kernel import OutputLoss
from ...kernel import cross_entropy as kernel_cross_entropy
from ..models.scan import ScanTransformer
from ..settings.scan import ScanSettings
from .base import Experiment, Loss
from .scan_data import ACTION_COLUMNS, COMMAND_COLUMNS, IGNORED, ScanLines, scan_data
from .scan_grammar import ACTION_WORDS, COMMAND_WORDS
from .streams import OwnBatches

# Training commands that are evaluated: all 2,048 would take four times the time of the test set.
_EVALUATED = 512

# Commands of either probe loss, a batch of the published size.
_PROBED = 256

# Commands evaluated at once, sorted by length: each chunk is cut to its longest.
_CHUNK = 64

# PAD, SOS and EOS come before the words.
_SPECIAL = 3

# Commands, decoder inputs and targets, cut to the longest of them.
Batch = tuple[Tensor, Tensor, Tensor]


class ScanTask(OwnBatches):
    """Mean cross-entropy over actions and EOS of batches drawn with replacement, the true actions fed in.

    Args:
        settings: Split, sizes and batch size.
        stream: Which of the independent batch generators; 0 is the run's own.
    """

    def __init__(self, settings: ScanSettings, stream: int = 0) -> None:
        self._settings = settings
        self.train, self.test = (_Placed.on(settings.device, lines) for lines in scan_data(settings))
        self._start_batches(settings.seed, stream)

    def draw(self) -> Batch:
        """Commands ``(batch, 11)``, inputs and targets, both ``(batch, longest)``."""
        return self.train.rows(self._rng.integers(len(self.train.lengths), size=self._settings.batch_size))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of actions and EOS, in nats."""
        return _cross_entropy(model, batch)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Losses in nats per action and accuracies as fractions.

        An accuracy of sequences counts a command where the likeliest action is right at every step, EOS included,
        after the true actions. **That is also the accuracy of greedy decoding**: as long as every action has been
        right, the network has read nothing but true actions, and after the first wrong one the sequence is lost
        either way. Teacher forcing flatters the accuracy of actions, not that of sequences.

        Returns:
            ``train_loss``, ``train_accuracy``, ``test_loss`` and ``test_accuracy`` (sequences); of the test set
            also ``token_accuracy``, actions and EOS after the true ones, and ``prefix_accuracy``, the share of a
            command's actions and EOS that greedy decoding gives before its first mistake. Training set: its first
            512 commands.
        """
        metrics: dict[str, float] = {}
        for name, lines, n in (("train", self.train, _EVALUATED), ("test", self.test, None)):
            loss, right, scored = _at_each_action(model, lines, n)
            metrics[f"{name}_loss"] = float(loss.sum() / scored.sum())
            metrics[f"{name}_accuracy"] = float((right | ~scored).all(axis=1).mean())
        metrics["token_accuracy"] = float(right.sum() / scored.sum())
        # True up to the first mistake; False at padding, where nothing is right.
        before = np.logical_and.accumulate(right, axis=1)
        metrics["prefix_accuracy"] = float((before.sum(axis=1) / scored.sum(axis=1)).mean())
        return metrics

    def probe_losses(self) -> tuple[Loss, Loss]:
        """Mean cross-entropy on the first 256 training and the first 256 test commands."""

        def on(lines: _Placed) -> Loss:
            batch = lines.rows(np.arange(min(_PROBED, len(lines.lengths))))
            return lambda model: _cross_entropy(model, batch)

        return on(self.train), on(self.test)

    def probe_outputs(self, n: int) -> tuple[Loss, OutputLoss]:
        """Logits at the first ``n`` actions of the training set, ``(n, 9)``, and their mean cross-entropy.

        Commands in their order, EOS one of their actions.
        """
        lengths = self.train.lengths
        # Commands that begin before action n.
        several = int(np.searchsorted(np.cumsum(lengths) - lengths, n))
        commands, inputs, targets = self.train.rows(np.arange(several))
        command, action = (where[:n] for where in torch.nonzero(targets != IGNORED, as_tuple=True))
        return (
            lambda model: model(commands, inputs)[command, action],
            kernel_cross_entropy(targets[command, action]),
        )


def scan_experiment(settings: ScanSettings) -> Experiment:
    """Network and task of one SCAN run; the initialisation is drawn from torch's default generator."""
    model = ScanTransformer(
        _SPECIAL + len(COMMAND_WORDS),
        _SPECIAL + len(ACTION_WORDS),
        COMMAND_COLUMNS,
        ACTION_COLUMNS,
        settings.d_model,
        settings.layers,
        settings.heads,
        settings.d_hidden,
    )
    return Experiment(model, ScanTask(settings), ScanTransformer.outer)


@dataclass(frozen=True)
class _Placed:
    """Lines on the device; lengths stay on the CPU, where batches are drawn."""

    commands: Tensor
    inputs: Tensor
    targets: Tensor
    lengths: NDArray[np.int64]

    @classmethod
    def on(cls, device: str, lines: ScanLines) -> _Placed:
        commands, inputs, targets = (
            torch.from_numpy(values).to(device) for values in (lines.commands, lines.inputs, lines.targets)
        )
        return cls(commands, inputs, targets, lines.lengths)

    def rows(self, chosen: NDArray[np.int64]) -> Batch:
        index = torch.from_numpy(chosen).to(self.commands.device)
        longest = int(self.lengths[chosen].max())
        return self.commands[index], self.inputs[index, :longest], self.targets[index, :longest]


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    commands, inputs, targets = batch
    logits = model(commands, inputs)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _at_each_action(
    model: nn.Module, lines: _Placed, n: int | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Cross-entropy, whether the likeliest action is right, and whether there is one: ``(n, 50)`` each.

    0 and False at padding.
    """
    lengths = lines.lengths[:n]
    shape = len(lengths), lines.targets.shape[1]
    loss, right = np.zeros(shape), np.zeros(shape, dtype=bool)
    by_length = np.argsort(lengths, kind="stable")
    with torch.no_grad():
        for rows in np.split(by_length, range(_CHUNK, len(by_length), _CHUNK)):
            commands, inputs, targets = lines.rows(rows)
            longest = targets.shape[1]
            logits = model(commands, inputs)
            each = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
            loss[rows, :longest] = each.cpu().numpy()
            right[rows, :longest] = (logits.argmax(-1) == targets).cpu().numpy()
    return loss, right, np.arange(shape[1]) < lengths[:, None]
