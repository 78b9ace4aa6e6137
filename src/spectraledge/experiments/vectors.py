"""Arithmetic on parameter vectors kept as tensors by name: products, norms, sums, in float64.

Knows nothing about windows, optimizers or interventions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingError

Vector = Mapping[str, Tensor]


def dot(x: Vector, y: Vector) -> float:
    """Inner product over all tensors, accumulated in float64.

    Raises:
        SettingError: If the two do not hold the same names.

    Example:
        >>> dot({"a": torch.ones(2), "b": torch.ones(1)}, {"a": torch.ones(2), "b": 3 * torch.ones(1)})
        5.0
    """
    if x.keys() != y.keys():
        raise SettingError(
            f"two parameter vectors must hold the same tensors; got {sorted(x)[:3]} and {sorted(y)[:3]}. "
            "Take both from one model."
        )
    return math.fsum(float(torch.dot(x[name].double().flatten(), y[name].double().flatten())) for name in x)


def norm(x: Vector) -> float:
    """Euclidean norm over all tensors."""
    return math.sqrt(dot(x, x))


def combination(coefficients: Sequence[float] | np.ndarray, vectors: Sequence[Vector]) -> dict[str, Tensor]:
    """Sum of ``coefficients[i] * vectors[i]`` in the tensors' own type; at least one vector."""
    return {
        name: torch.stack([float(c) * v[name] for c, v in zip(coefficients, vectors, strict=True)]).sum(dim=0)
        for name in vectors[0]
    }


def random_vector(like: Vector, rng: np.random.Generator) -> dict[str, Tensor]:
    """A direction drawn evenly from the sphere of all parameters: standard normal entries, unit norm.

    Args:
        like: Gives names, shapes, types and devices.
        rng: Seeds a generator of torch; torch's own generators do not move.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    drawn = {
        name: torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device, tensor.dtype)
        for name, tensor in like.items()
    }
    return combination([1.0 / norm(drawn)], [drawn])


@torch.no_grad()
def add_to(target: Vector, x: Vector) -> None:
    """Add ``x`` to ``target`` in place."""
    for name, tensor in target.items():
        tensor.add_(x[name].to(tensor.dtype).reshape(tensor.shape))
