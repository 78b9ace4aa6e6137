"""A product of matrices."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class DeepLinear(nn.Module):
    """f(x) = W_L ... W_1 x, no biases.

    Args:
        weights: W_1, ..., W_L, each ``(out, in)``.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(weight.clone()) for weight in weights)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(n, d_out)`` of inputs ``(n, d_in)``."""
        for weight in self.weights:
            x = x @ weight.T
        return x

    def product(self) -> Tensor:
        """W_L ... W_1, shape ``(d_out, d_in)``."""
        first, *others = self.weights
        for weight in others:
            first = weight @ first
        return first
