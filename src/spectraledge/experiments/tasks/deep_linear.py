"""A deep linear network that learns a linear map from whitened inputs.

Source: the setting of Saxe, McClelland, Ganguli 2014, whose two-layer solution is in ``theory.deep_linear``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.deep_linear import DeepLinear
from ..settings import DeepLinearSettings
from .base import Experiment
from .streams import OwnBatches

Array = NDArray[np.float64]
LossFunction = Callable[[nn.Module], Tensor]

_MAP_STREAM, _INPUT_STREAM, _INIT_STREAM = 2, 3, 4


@dataclass(frozen=True)
class LinearData:
    """Inputs (n, d) and the map y = U diag(s) V^T x.

    Attributes:
        left: (d, d) U.
        targets: (d) s.
        right: (d, d) V.
        train: (n, d) inputs with mean square exactly the identity.
        test: (n, d) standard normal inputs.
    """

    left: Array
    targets: Array
    right: Array
    train: Array
    test: Array

    @property
    def map(self) -> Array:
        """(d, d) U diag(s) V^T."""
        return (self.left * self.targets) @ self.right.T


def linear_data(settings: DeepLinearSettings) -> LinearData:
    """Map and inputs by the run's seed.

    Example:
        >>> data = linear_data(DeepLinearSettings())
        >>> np.allclose(data.train.T @ data.train / len(data.train), np.eye(4), atol=1e-12)
        True
    """
    s = np.array(settings.singular_values)
    d = len(s)
    maps = np.random.default_rng([settings.seed, _MAP_STREAM])
    inputs = np.random.default_rng([settings.seed, _INPUT_STREAM])
    white = np.linalg.qr(inputs.standard_normal((settings.n_train, d)))[0] * np.sqrt(settings.n_train)
    test = inputs.standard_normal((settings.n_test, d))
    return LinearData(_orthonormal(d, d, maps), s, _orthonormal(d, d, maps), white, test)


def linear_init(settings: DeepLinearSettings, data: LinearData) -> list[Array]:
    """W_1, ..., W_L: balanced and aligned with the map, or small and random."""
    rng, widths = np.random.default_rng([settings.seed, _INIT_STREAM]), settings.widths
    if settings.init == "small":
        return [settings.initial * rng.standard_normal((b, a)) for a, b in pairwise(widths)]
    factor = settings.initial ** (1.0 / settings.layers)
    hidden = [_orthonormal(width, widths[0], rng) for width in widths[1:-1]]
    ends = [data.right, *hidden, data.left]
    return [factor * after @ before.T for before, after in pairwise(ends)]


class DeepLinearTask(OwnBatches):
    """Half the squared error, summed over outputs and averaged over inputs.

    Args:
        settings: Map, inputs and batches.
        stream: Which of the run's independent batch sequences; 0 is the run's own.
    """

    def __init__(self, settings: DeepLinearSettings, stream: int = 0) -> None:
        self._settings = settings
        self.data = linear_data(settings)
        dtype = getattr(torch, settings.dtype)
        linear = torch.from_numpy(self.data.map)
        inputs = (torch.from_numpy(values) for values in (self.data.train, self.data.test))
        self._train, self._test = ((x.to(dtype), (x @ linear.T).to(dtype)) for x in inputs)
        self._start_batches(settings.seed, stream)

    def draw(self) -> Tensor | None:
        """Indices (batch) of training inputs; None, with nothing drawn, for the full batch."""
        if self._settings.batches == "full":
            return None
        return torch.from_numpy(self._rng.integers(len(self._train[0]), size=self._settings.batch_size))

    def loss(self, model: nn.Module, batch: Tensor | None) -> Tensor:
        """Loss of a batch."""
        x, y = self._train if batch is None else (self._train[0][batch], self._train[1][batch])
        return _half_square(model, x, y)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """``train_loss``, ``test_loss`` and ``strength_1``, ...: u_j^T W_L ... W_1 v_j of every mode."""
        train, val = self.probe_losses()
        with torch.no_grad():
            metrics = {"train_loss": float(train(model)), "test_loss": float(val(model))}
            # The output for input v_j, against u_j.
            right = torch.from_numpy(self.data.right).to(self._train[0])
            along = (model(right.T).double().numpy() * self.data.left.T).sum(axis=1)
        return metrics | {f"strength_{j}": float(value) for j, value in enumerate(along, 1)}

    def probe_losses(self) -> tuple[LossFunction, LossFunction]:
        """Training and test loss of all inputs, as functions of the model; they draw nothing."""
        return (lambda model: _half_square(model, *self._train), lambda model: _half_square(model, *self._test))


def deep_linear_experiment(settings: DeepLinearSettings) -> Experiment:
    """Network and task of one deep linear run; everything is drawn by generators of its own."""
    task = DeepLinearTask(settings)
    weights = [torch.from_numpy(weight) for weight in linear_init(settings, task.data)]
    # The first matrix faces the inputs and the last the outputs.
    outer = ("weights.0", f"weights.{len(weights) - 1}")
    return Experiment(DeepLinear(weights), task, outer)


def _half_square(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * ((model(x) - y) ** 2).sum(dim=1).mean()


def _orthonormal(rows: int, columns: int, rng: np.random.Generator) -> Array:
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]
