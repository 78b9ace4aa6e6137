"""Muon with the arithmetic of its parameters' own type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon

from .own_step import OwnStep


class FullPrecisionMuon(OwnStep, Muon):
    """``torch.optim.Muon``, orthogonalising in the parameters' type instead of bfloat16.

    The rule, the arguments and the state are those of ``torch.optim.Muon`` with its original learning-rate
    factor. bfloat16 is meant for tensor cores: on a CPU without it a product of a 128 x 384 matrix takes
    some 10 times as long as in float32, and its rounding of 2^-9 would be part of every recorded update.

    Args:
        *args: As ``torch.optim.Muon``.
        **kwargs: As ``torch.optim.Muon``.
    """

    def _update(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        lr, beta = group["lr"], group["momentum"]
        buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        buffer.lerp_(gradient, 1 - beta)
        direction = gradient.lerp(buffer, beta) if group["nesterov"] else buffer
        update = orthogonalise(direction, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = parameter.shape
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(update, alpha=-lr * math.sqrt(max(1.0, rows / columns)))


def orthogonalise(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float = 1e-7) -> Tensor:
    """Newton-Schulz iteration towards the orthogonal factor of the polar decomposition.

    X <- a X + (b X X^T + c (X X^T)^2) X acts on singular values only, s <- a s + b s^3 + c s^5; Muon's
    coefficients bring those above 0.005 of the norm to between 0.68 and 1.16 in five steps and never
    settle at 1.

    Args:
        matrix: Shape ``(m, n)``.
        coefficients: (a, b, c).
        steps: Iterations.
        eps: Smallest norm that is divided by.

    Returns:
        Shape ``(m, n)``, the type of ``matrix``.

    Source: the iteration of ``torch.optim.Muon``.
    """
    a, b, c = coefficients
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
