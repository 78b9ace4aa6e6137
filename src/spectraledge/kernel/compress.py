"""What a solution loses when its matrices are truncated, pruned or scaled, against random moves of equal length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from spectraledge.errors import SettingError
from spectraledge.kernel.probe import OutputProbe, ParameterChoice, Parameters

Kind = Literal["truncate", "prune", "scale"]


@dataclass(frozen=True)
class Compression:
    """One way to change the parameters.

    Attributes:
        kind: ``truncate`` keeps the leading share ``amount`` of every matrix's singular values, at least one; a
            tensor of more dimensions is flattened after the first, one of fewer is left alone. ``prune`` keeps
            the share ``amount`` of entries of every tensor that are largest in size. ``scale`` multiplies all by
            ``amount``.
        amount: Share in (0, 1], or factor.
    """

    kind: Kind
    amount: float


STANDARD = (
    *(Compression("truncate", a) for a in (0.75, 0.5, 0.25, 0.1)),
    *(Compression("prune", a) for a in (0.75, 0.5, 0.25, 0.1)),
    Compression("scale", 0.95),
    Compression("scale", 1.05),
)
"""Truncation and pruning to four sizes, and scaling by 5 % either way."""


@dataclass(frozen=True)
class Compressed:
    """A metric after one compression.

    Attributes:
        how: The compression.
        metric: Of the compressed model.
        before: Of the model as it is.
        distance: ||theta' - theta|| / ||theta||.
        control: The metric after random moves, as long as the compression's in every tensor; one per draw.
    """

    how: Compression
    metric: float
    before: float
    distance: float
    control: tuple[float, ...]


def compress(parameters: Parameters, how: Compression) -> Parameters:
    """New tensors; those given are not changed.

    Args:
        parameters: Tensors by name.
        how: What to do to each.

    Raises:
        SettingError: For an unknown kind or an amount out of range.

    >>> compress({"w": torch.tensor([1.0, -4.0, 2.0, 0.5])}, Compression("prune", 0.5))["w"]
    tensor([ 0., -4.,  2.,  0.])
    """
    if how.kind not in ("truncate", "prune", "scale"):
        raise SettingError(f"kind must be truncate, prune or scale; got {how.kind!r}.")
    if how.kind != "scale" and not 0.0 < how.amount <= 1.0:
        raise SettingError(f"amount must lie in (0, 1], the share that is kept; got {how.amount}.")
    return {name: _one(tensor.detach(), how) for name, tensor in parameters.items()}


def compressibility(
    model: torch.nn.Module,
    metric: Callable[[torch.nn.Module], float],
    *,
    ways: Sequence[Compression] = STANDARD,
    params: ParameterChoice = None,
    n_controls: int = 3,
    seed: int = 0,
) -> list[Compressed]:
    """Evaluate a metric with the parameters compressed in several ways; the model itself is never changed.

    A loss of the metric says little by itself: 5 % of scale is a longer move than most updates. ``control`` has the
    metric after random moves of the same length.

    Args:
        model: The module.
        metric: Function of the model that returns a number, for instance held-out accuracy. Evaluated in evaluation
            mode and without gradients.
        ways: Compressions.
        params: Which parameters, see ``OutputProbe``; the others stay.
        n_controls: Random moves per compression.
        seed: Of the random moves.

    Returns:
        One entry per way. Source: the author's companion report on multi-task grokking (truncation, pruning, scaling
        by 5 %); controls derived.
    """
    probe = OutputProbe(model, lambda _: torch.zeros(()), params=params)
    theta = probe.parameters
    before = float(probe.call_with(metric, theta))
    norm = _norm(theta)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for how in ways:
        after = compress(theta, how)
        moved = {name: after[name] - t for name, t in theta.items()}
        control = [float(probe.call_with(metric, _random_move(theta, moved, generator))) for _ in range(n_controls)]
        value = float(probe.call_with(metric, after))
        found.append(Compressed(how, value, before, _norm(moved) / norm, tuple(control)))
    return found


def _one(tensor: torch.Tensor, how: Compression) -> torch.Tensor:
    if how.kind == "scale":
        return tensor * how.amount
    if how.kind == "prune":
        keep = max(1, round(how.amount * tensor.numel()))
        largest = tensor.abs().flatten().topk(keep).indices
        pruned = torch.zeros_like(tensor).flatten()
        pruned[largest] = tensor.flatten()[largest]
        return pruned.reshape(tensor.shape)
    if tensor.ndim < 2:
        return tensor.clone()
    u, s, vh = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
    keep = max(1, round(how.amount * len(s)))
    return ((u[:, :keep] * s[:keep]) @ vh[:keep]).reshape(tensor.shape)


def _random_move(theta: Parameters, moved: Parameters, generator: torch.Generator) -> Parameters:
    """Theta plus, in every tensor, a random direction as long as the compression's move there."""
    out = {}
    for name, tensor in theta.items():
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        out[name] = tensor + noise * (moved[name].norm() / noise.norm())
    return out


def _norm(tensors: Parameters) -> float:
    return float(sum(float(t.double().square().sum()) for t in tensors.values()) ** 0.5)
