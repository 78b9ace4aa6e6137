"""Arithmetic modulo p: all pairs of residues, half of them trained on.

Source: the single-task modular runs of arXiv:2603.28964 (pairs, order, split and batches as described there).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SettingError
from ...kernel import OutputLoss
from ...kernel import cross_entropy as kernel_cross_entropy
from ..models.modular import ModularTransformer
from ..settings import ModularSettings
from .base import Experiment, Loss

OPERATIONS: dict[str, Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "x2_y2": lambda a, b: a**2 + b**2,
    "x2_xy_y2": lambda a, b: a**2 + a * b + b**2,
    "x3_xy": lambda a, b: a**3 + a * b,
}

# Second word of the seed of the placebo's and the replicas' generators: streams that no other use of the run's
# seed shares.
_PLACEBO_STREAM = 1
_REPLICA_STREAM = 2


@dataclass(frozen=True)
class ModularData:
    """Tokens ``(n, 2)`` and targets ``(n,)``, int64, train and test."""

    train_tokens: NDArray[np.int64]
    train_targets: NDArray[np.int64]
    test_tokens: NDArray[np.int64]
    test_targets: NDArray[np.int64]


def modular_data(settings: ModularSettings) -> ModularData:
    """All pairs with their targets, split by the run's seed.

    Pairs (a, b) are listed with a outermost, over 0..p-1 (1..p-1 for mul), shuffled by Python's
    ``random.Random(seed)``; the first ``train_fraction`` of them, rounded down, is the training set.
    With ``labels="shuffled"`` the targets of all pairs, train and test together, are permuted first by a
    generator of their own: every class keeps its frequency, the split stays that of the true labels, and
    what is left to learn is the training set by heart.

    Example:
        >>> data = modular_data(ModularSettings(p=97))
        >>> data.train_tokens.shape, data.test_tokens.shape
        ((4704, 2), (4705, 2))
    """
    low = 1 if settings.operation == "mul" else 0
    residues = np.arange(low, settings.p, dtype=np.int64)
    a, b = (grid.ravel() for grid in np.meshgrid(residues, residues, indexing="ij"))
    targets = OPERATIONS[settings.operation](a, b) % settings.p
    if settings.labels == "shuffled":
        targets = np.random.default_rng([settings.seed, _PLACEBO_STREAM]).permutation(targets)
    order = list(range(len(targets)))
    random.Random(settings.seed).shuffle(order)
    tokens, targets = np.stack([a, b], axis=1)[order], targets[order]
    n = settings.n_train
    return ModularData(tokens[:n], targets[:n], tokens[n:], targets[n:])


class ModularTask:
    """Mean cross-entropy on batches drawn with replacement; loss and accuracy on the whole of either set.

    Args:
        settings: Operation, split and batch size.
        stream: Which of the independent batch generators; 0 is the run's own.
    """

    def __init__(self, settings: ModularSettings, stream: int = 0) -> None:
        self._settings = settings
        data = modular_data(settings)
        self._train = self._place(data.train_tokens), self._place(data.train_targets)
        self._test = self._place(data.test_tokens), self._place(data.test_targets)
        self._seed(stream)

    def _place(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._settings.device)

    def _seed(self, stream: int) -> None:
        # The legacy generator, because the published runs draw from it; an object, so that nothing global
        # moves.
        words = [self._settings.seed, _REPLICA_STREAM, stream]
        self._rng = np.random.RandomState(words if stream else self._settings.seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Tokens ``(batch, 2)`` and targets ``(batch,)``."""
        tokens, targets = self._train
        chosen = self._place(self._rng.randint(0, len(targets), size=self._settings.batch_size).astype(np.int64))
        return tokens[chosen], targets[chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy in nats."""
        tokens, targets = batch
        return functional.cross_entropy(model(tokens), targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``: nats and fractions."""
        metrics: dict[str, float] = {}
        with torch.no_grad():
            for name, (tokens, targets) in (("train", self._train), ("test", self._test)):
                logits = model(tokens)
                metrics[f"{name}_loss"] = float(functional.cross_entropy(logits, targets))
                metrics[f"{name}_accuracy"] = float((logits.argmax(-1) == targets).double().mean())
        return metrics

    def probe_losses(self) -> tuple[Loss, Loss]:
        """Mean cross-entropy on the whole training and the whole test set."""

        def on(data: tuple[Tensor, Tensor]) -> Loss:
            return lambda model: functional.cross_entropy(model(data[0]), data[1])

        return on(self._train), on(self._test)

    def probe_outputs(self, n: int) -> tuple[Loss, OutputLoss]:
        """Logits of the first ``n`` training pairs, ``(n, p)``, and the mean cross-entropy as a function of them."""
        tokens, targets = self._train[0][:n], self._train[1][:n]
        return lambda model: model(tokens), kernel_cross_entropy(targets)

    def replica(self, stream: int) -> ModularTask:
        """The same data, shared, with batches of its own.

        Raises:
            SettingError: If stream is below 1.
        """
        if stream < 1:
            raise SettingError(f"stream must be at least 1; got {stream}. Stream 0 is the run's own.")
        twin = copy.copy(self)
        twin._seed(stream)
        return twin

    def state(self) -> dict[str, Any]:
        """The Mersenne Twister's 624 words and position."""
        inner = self._rng.get_state(legacy=False)["state"]
        return {"key": inner["key"].tolist(), "pos": int(inner["pos"])}

    def load_state(self, state: dict[str, Any]) -> None:
        """Put the batch generator back."""
        key = np.asarray(state["key"], dtype=np.uint32)
        # The last two: no half of a pair of normal variates is pending, since none is ever drawn.
        self._rng.set_state(("MT19937", key, int(state["pos"]), 0, 0.0))


def modular_experiment(settings: ModularSettings) -> Experiment:
    """Network and task of one modular run; the initialisation is drawn from torch's default generator."""
    model = ModularTransformer(settings.p, settings.d_model, settings.layers, settings.heads, settings.d_hidden)
    return Experiment(model, ModularTask(settings), ModularTransformer.outer)
