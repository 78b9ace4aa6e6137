"""Losses as functions of a probe's outputs: their gradient r, curvature B and the root of B.

B = d2L/df2 turns the kernel into one whose eigenvalues are relaxation rates over the learning rate. It is
block diagonal for a mean over inputs, so it is kept as blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spectraledge.errors import SettingError
from spectraledge.kernel.jacobian import jvp, load_forward_mode
from spectraledge.kernel.probe import as_array

Array = NDArray[np.float64]
# Relative size of a negative eigenvalue of B that rounding in float32 can produce; below it the loss is not convex.
_NEGATIVE = 1e-5


@dataclass(frozen=True)
class OutputLoss:
    """A loss L(f) of outputs f, given as value and as blocks of its second derivative.

    Attributes:
        value: f of shape ``probe.shape`` to a scalar.
        blocks: f to (n, C, C): block i is d2L/df_i df_i; (1, N, N) where L does not split over inputs.
    """

    value: Callable[[torch.Tensor], torch.Tensor]
    blocks: Callable[[torch.Tensor], torch.Tensor]

    def gradient(self, outputs: torch.Tensor) -> torch.Tensor:
        """r = dL/df, shape of ``outputs``."""
        return torch.func.grad(self.value)(outputs)

    def root(self, outputs: torch.Tensor) -> Array:
        """B^(1/2), the positive semidefinite root of every block; (n, C, C) float64.

        Raises:
            SettingError: If a block has a negative eigenvalue, that is if L is not convex in f.
        """
        values, vectors = _eigen(as_array(self.blocks(outputs)))
        return np.asarray((vectors * np.sqrt(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2))

    def root_rate(self, outputs: torch.Tensor, outputs_rate: torch.Tensor) -> Array:
        """d(B^(1/2))/dt when the outputs move at ``outputs_rate``; (n, C, C) float64.

        In the eigenbasis of B the entry is ``B'_ij / (s_i + s_j)``, s the roots of its eigenvalues; 0 where both
        vanish, for B' has no entry between two null directions that stay null. Source: derived.
        """
        blocks, rate = jvp(self.blocks, outputs, outputs_rate)
        values, vectors = _eigen(as_array(blocks))
        s = np.sqrt(values)
        sums = s[..., :, None] + s[..., None, :]
        alive = sums > 0.0
        inner = np.swapaxes(vectors, -1, -2) @ as_array(rate) @ vectors
        inner = np.where(alive, inner / np.where(alive, sums, 1.0), 0.0)
        return np.asarray(vectors @ inner @ np.swapaxes(vectors, -1, -2))


def squared_error(targets: torch.Tensor) -> OutputLoss:
    """L = sum (f - y)^2 / (2 n) with n the first dimension of f, so that B = I / n and r = (f - y) / n.

    Note the half and the n: ``torch.nn.functional.mse_loss`` is 2 / C times this, C outputs per input.

    Args:
        targets: y, of the outputs' shape.
    """

    def blocks(outputs: torch.Tensor) -> torch.Tensor:
        n, width = outputs.shape[0], outputs[0].numel()
        eye = torch.eye(width, dtype=outputs.dtype, device=outputs.device) / n
        return eye.expand(n, width, width).clone()

    def value(outputs: torch.Tensor) -> torch.Tensor:
        if outputs.shape != targets.shape:
            raise SettingError(
                f"targets must have the outputs' shape {tuple(outputs.shape)}; got {tuple(targets.shape)}."
            )
        return (outputs - targets.to(outputs)).square().sum() / (2 * outputs.shape[0])

    return OutputLoss(value, blocks)


def cross_entropy(targets: torch.Tensor) -> OutputLoss:
    """Mean cross-entropy of logits f (..., C): B = (diag p - p p^T) / n, n the number of rows of C logits.

    Args:
        targets: Class indices (...).
    """

    def value(outputs: torch.Tensor) -> torch.Tensor:
        if outputs.shape[:-1] != targets.shape:
            raise SettingError(
                f"targets must have shape {tuple(outputs.shape[:-1])}, one class per row of logits; "
                f"got {tuple(targets.shape)}. Use from_function for other forms."
            )
        return torch.nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())

    def blocks(outputs: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(outputs.flatten(0, -2), dim=-1)
        return (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / len(p)

    return OutputLoss(value, blocks)


def from_function(loss: Callable[[torch.Tensor], torch.Tensor]) -> OutputLoss:
    """Any convex loss of the outputs; B by differentiating it twice, one dense (N, N) block.

    Args:
        loss: Outputs of shape ``probe.shape`` to a scalar.
    """

    def blocks(outputs: torch.Tensor) -> torch.Tensor:
        load_forward_mode()
        shape, flat = outputs.shape, outputs.reshape(-1)
        return torch.func.hessian(lambda f: loss(f.reshape(shape)))(flat)[None]

    return OutputLoss(loss, blocks)


def apply_blocks(blocks: Array, vectors: Array) -> Array:
    """A block-diagonal matrix times columns: (n, C, C) and (n C, m) give (n C, m)."""
    n, width = blocks.shape[:2]
    return np.asarray((blocks @ vectors.reshape(n, width, -1)).reshape(vectors.shape))


def root_residual(loss: OutputLoss, outputs: torch.Tensor) -> Array:
    """z = B^(-1/2) r, (N,): the residual in whose square the loss is L = |z|^2 / 2 to second order.

    For :func:`squared_error` it is (f - y) / sqrt(n). Null directions of B (the common shift of logits) carry no
    gradient and are left out. Source: derived.
    """
    r = as_array(loss.gradient(outputs)).reshape(-1)
    values, vectors = _eigen(as_array(loss.blocks(outputs)))
    s = np.sqrt(values)
    alive = s > 0.0
    inverse = (vectors * np.where(alive, 1.0 / np.where(alive, s, 1.0), 0.0)[..., None, :]) @ np.swapaxes(
        vectors, -1, -2
    )
    return apply_blocks(inverse, r[:, None])[:, 0]


def _eigen(blocks: Array) -> tuple[Array, Array]:
    """Eigenvalues and vectors of every block; eigenvalues that cannot be told from 0 are 0.

    The root of a rounding error of 1e-16 would be 1e-8.
    """
    values, vectors = np.linalg.eigh(blocks)
    lowest, largest = float(values.min()), float(np.abs(values).max())
    if lowest < -_NEGATIVE * largest:
        raise SettingError(
            f"the loss must be convex in the outputs; B has an eigenvalue of {lowest:.3g} beside {largest:.3g}. "
            "Take outputs before the non-convex part, for instance logits."
        )
    floor = 4.0 * blocks.shape[-1] * np.finfo(np.float64).eps * values[:, -1:]
    return np.where(values > floor, values, 0.0), vectors
