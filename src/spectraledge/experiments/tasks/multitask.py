"""Several operations modulo p learned at once by one trunk.

Source: the dual and tri runs of arXiv:2602.18523 (pairs, order, split, batches and loss as described there).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...kernel import OutputLoss
from ...kernel import cross_entropy as kernel_cross_entropy
from ..models.multitask import MultiTaskTransformer
from ..settings.multitask import MultiTaskSettings
from .base import Experiment, Loss
from .modular import OPERATIONS, ModularData, ModularTask, modular_data

# Second word of the seed of the placebo's generators; the third is the head.
_PLACEBO_STREAM = 3


def multitask_data(settings: MultiTaskSettings) -> ModularData:
    """The pairs and the split of mul, with a column of targets ``(n, operations)`` for each operation.

    With ``labels="shuffled"`` every column is permuted over all pairs, train and test together, by a generator of
    its own: each class keeps its frequency under each head, and no head knows anything of another.

    Example:
        >>> data = multitask_data(MultiTaskSettings(tasks="tri"))
        >>> data.train_tokens.shape, data.train_targets.shape, data.test_targets.shape
        ((4608, 2), (4608, 3), (4608, 3))
    """
    pairs = modular_data(settings.pairs)
    a, b = np.concatenate([pairs.train_tokens, pairs.test_tokens]).T
    columns = [OPERATIONS[operation](a, b) % settings.p for operation in settings.operations]
    if settings.labels == "shuffled":
        seeds = [[settings.seed, _PLACEBO_STREAM, head] for head in range(len(columns))]
        columns = [np.random.default_rng(seed).permutation(y) for seed, y in zip(seeds, columns, strict=True)]
    targets: NDArray[np.int64] = np.stack(columns, axis=1)
    n = len(pairs.train_tokens)
    return ModularData(pairs.train_tokens, targets[:n], pairs.test_tokens, targets[n:])


class MultiTask(ModularTask):
    """Sum over operations of the mean cross-entropy, on batches drawn as for one operation.

    Args:
        settings: Operations, split and batch size.
    """

    def __init__(self, settings: MultiTaskSettings) -> None:
        # Batches are those of the one-operation task of the same seed; targets have a column for each operation.
        self._settings = settings.pairs
        self._operations = settings.operations
        data = multitask_data(settings)
        self._train = self._place(data.train_tokens), self._place(data.train_targets)
        self._test = self._place(data.test_tokens), self._place(data.test_targets)
        self._seed(0)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy in nats, a mean over pairs and a sum over operations."""
        tokens, targets = batch
        return _summed_cross_entropy(model(tokens), targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """``train_loss`` and ``test_loss``, the sums; ``train_loss_add``, ``train_accuracy_add`` and so on of each.

        Nats and fractions.
        """
        metrics: dict[str, float] = {}
        with torch.no_grad():
            for name, (tokens, targets) in (("train", self._train), ("test", self._test)):
                logits = model(tokens)
                metrics[f"{name}_loss"] = float(_summed_cross_entropy(logits, targets))
                right = (logits.argmax(-1) == targets).double().mean(0)
                for i, operation in enumerate(self._operations):
                    one = functional.cross_entropy(logits[:, i], targets[:, i])
                    metrics[f"{name}_loss_{operation}"] = float(one)
                    metrics[f"{name}_accuracy_{operation}"] = float(right[i])
        return metrics

    def probe_losses(self) -> tuple[Loss, Loss]:
        """Summed cross-entropy on the whole training and the whole test set."""
        return (lambda model: self.loss(model, self._train), lambda model: self.loss(model, self._test))

    def probe_outputs(self, n: int) -> tuple[Loss, OutputLoss]:
        """Logits ``(n, operations, p)`` of the first ``n`` training pairs, and the loss as a function of them."""
        tokens, targets = self._train[0][:n], self._train[1][:n]
        mean, operations = kernel_cross_entropy(targets), len(self._operations)
        summed = OutputLoss(lambda f: operations * mean.value(f), lambda f: operations * mean.blocks(f))
        return lambda model: model(tokens), summed


def multitask_experiment(settings: MultiTaskSettings) -> Experiment:
    """Network and task of one multi-task run; the initialisation is drawn from torch's default generator."""
    sizes = (settings.p, settings.d_model, settings.layers, settings.heads, settings.d_hidden)
    model = MultiTaskTransformer(settings.operations, *sizes)
    return Experiment(model, MultiTask(settings), MultiTaskTransformer.outer)


def _summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    # The mean over all rows of all heads, times the heads.
    return targets.shape[1] * functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
