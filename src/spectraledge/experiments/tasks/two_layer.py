"""Addition modulo p as regression on centred one-hot targets.

Source: arXiv:2509.21519 and the author's published eigengap runs of it (pairs, split, loss and batches as there).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...kernel import OutputLoss, from_function
from ..models.two_layer import TwoLayer
from ..settings.two_layer import TwoLayerSettings
from .base import Experiment, Loss
from .streams import OwnBatches

_PLACEBO_STREAM = 6
Data = tuple[Tensor, Tensor]


def two_layer_data(settings: TwoLayerSettings) -> tuple[Data, Data]:
    """Tokens ``(n, 2)`` and targets ``(n,)`` of the training and the test set, int64, on the CPU.

    Pairs (a, b) are listed with a outermost and permuted by a torch generator of the run's seed; the first
    ``train_fraction`` of them, rounded down, is the training set. With ``labels="shuffled"`` the targets of all
    pairs are permuted first, by a generator of their own.

    Example:
        >>> train, test = two_layer_data(TwoLayerSettings())
        >>> len(train[1]), len(test[1])
        (2016, 3025)
    """
    residues = torch.arange(settings.p)
    tokens = torch.cartesian_prod(residues, residues)
    targets = tokens.sum(dim=1) % settings.p
    if settings.labels == "shuffled":
        rng = np.random.default_rng([settings.seed, _PLACEBO_STREAM])
        targets = targets[torch.from_numpy(rng.permutation(len(targets)))]
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(settings.seed))
    tokens, targets = tokens[order], targets[order]
    n = settings.n_train
    return (tokens[:n], targets[:n]), (tokens[n:], targets[n:])


class TwoLayerTask(OwnBatches):
    """Squared distance between centred outputs and centred one-hot targets, a mean over pairs.

    Args:
        settings: Split, labels and batches.
    """

    def __init__(self, settings: TwoLayerSettings) -> None:
        self._settings = settings
        train, test = two_layer_data(settings)
        self._train, self._test = ((x.to(settings.device), y.to(settings.device)) for x, y in (train, test))
        self._start_batches(settings.seed, 0)

    def draw(self) -> Data:
        """Tokens ``(batch, 2)`` and targets ``(batch,)``; the training set, with nothing drawn, for full batches."""
        tokens, targets = self._train
        if self._settings.batches == "full":
            return tokens, targets
        indices = self._rng.integers(len(targets), size=self._settings.batch_size)
        chosen = torch.from_numpy(indices).to(self._settings.device)
        return tokens[chosen], targets[chosen]

    def loss(self, model: nn.Module, batch: Data) -> Tensor:
        """Sum over the p outputs, mean over pairs."""
        tokens, targets = batch
        return centred_square(model(tokens), targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``; the largest output is the answer."""
        metrics: dict[str, float] = {}
        with torch.no_grad():
            for name, (tokens, targets) in (("train", self._train), ("test", self._test)):
                outputs = model(tokens)
                metrics[f"{name}_loss"] = float(centred_square(outputs, targets))
                metrics[f"{name}_accuracy"] = float((outputs.argmax(-1) == targets).double().mean())
        return metrics

    def probe_losses(self) -> tuple[Loss, Loss]:
        """The loss of the whole training and the whole test set."""
        return (lambda model: self.loss(model, self._train), lambda model: self.loss(model, self._test))

    def probe_outputs(self, n: int) -> tuple[Loss, OutputLoss]:
        """Outputs ``(n, p)`` of the first ``n`` training pairs, and their loss as a function of them."""
        tokens, targets = self._train[0][:n], self._train[1][:n]
        return lambda model: model(tokens), from_function(lambda outputs: centred_square(outputs, targets))


def two_layer_experiment(settings: TwoLayerSettings) -> Experiment:
    """Network and task of one run; the initialisation is drawn from torch's default generator."""
    return Experiment(
        TwoLayer(settings.p, settings.d_hidden, settings.activation), TwoLayerTask(settings), TwoLayer.outer
    )


def centred_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over pairs of |f - mean f - (e_y - 1/p)|^2; 1 - 1/p where f is constant.

    Args:
        outputs: ``(n, p)`` f.
        targets: ``(n,)`` y.

    Example:
        >>> float(centred_square(torch.tensor([[5.0, 3.0]]), torch.tensor([0])))
        0.5
    """
    centred = outputs - outputs.mean(dim=1, keepdim=True)
    wanted = torch.full_like(centred, -1.0 / outputs.shape[1])
    wanted = wanted.scatter(1, targets[:, None], 1.0 - 1.0 / outputs.shape[1])
    return (centred - wanted).square().sum(dim=1).mean()
