"""Exact Jacobians of a probe, by rows in chunks, and products with them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from spectraledge.errors import SettingError
from spectraledge.kernel.probe import OutputProbe, Parameters, require_finite

# Columns converted to float64 at a time: bounds the copy while a kernel is summed.
_COLUMNS = 65536


def jacobian_rows(probe: OutputProbe, *, chunk_size: int = 32) -> Parameters:
    """J = df/dtheta by parameter: a tensor (N, p) for each, p its number of entries, in the model's dtype.

    Args:
        probe: The outputs f.
        chunk_size: Rows that one batched backward pass computes; 1 uses no batching, for models with
            operations that cannot be batched.

    Returns:
        Units of f over theta. Source: standard result.

    Raises:
        SettingError: If chunk_size is not positive.
        DataError: If the outputs are not finite.
    """
    with probe.quiet():
        out, pullback = vjp(probe, probe.parameters)
        require_finite(out, "outputs")
        return rows_of(pullback, out, probe.parameters, chunk_size)


def jacobian(probe: OutputProbe, *, chunk_size: int = 32) -> torch.Tensor:
    """J = df/dtheta, (N, P), parameters in model order and each flattened.

    Args:
        probe: The outputs f.
        chunk_size: As in :func:`jacobian_rows`.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> jacobian(OutputProbe(layer, lambda model: model(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))))
    tensor([[1., 2.],
            [0., 1.]])
    """
    return torch.cat(list(jacobian_rows(probe, chunk_size=chunk_size).values()), dim=1)


def rows_of(
    pullback: Callable[[torch.Tensor], tuple[Parameters]], out: torch.Tensor, theta: Parameters, chunk_size: int
) -> Parameters:
    """Every row of the Jacobian whose transpose product is ``pullback``: (N, p) by parameter."""
    if chunk_size < 1:
        raise SettingError(f"chunk_size must be at least 1; got {chunk_size}. Use 32, or 1 to save memory.")
    n = out.numel()
    rows = {name: t.new_empty((n, t.numel())) for name, t in theta.items()}
    for start in range(0, n, chunk_size):
        size = min(chunk_size, n - start)
        basis = out.new_zeros((size, n))
        basis[torch.arange(size), start + torch.arange(size)] = 1.0
        part = batched(lambda e: pullback(e)[0], basis)
        for name, gradient in part.items():
            rows[name][start : start + size] = gradient.detach().reshape(size, -1)
    return rows


def batched(function: Callable[[torch.Tensor], Parameters], chunk: torch.Tensor) -> Parameters:
    """``function`` of each row of ``chunk``, stacked; a single row is not batched."""
    if len(chunk) > 1:
        # "same": one draw of dropout for the whole batch, as in an evaluation on its own.
        return dict(torch.func.vmap(function, randomness="same")(chunk))
    return {name: t[None] for name, t in function(chunk[0]).items()}


def gram_of_rows(
    left: Parameters, right: Parameters, preconditioner: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """``A P^-1 B^T`` in float64 for two Jacobians by parameter; (N, N')."""
    total: torch.Tensor | None = None
    for name, a in left.items():
        b = right[name]
        scale = None if preconditioner is None else preconditioner[name].reshape(-1)
        for start in range(0, a.shape[1], _COLUMNS):
            part = slice(start, start + _COLUMNS)
            x, y = _double(a[:, part]), _double(b[:, part])
            if scale is not None:
                y = y / _double(scale[part])
            product = (x @ y.T).cpu()
            total = product if total is None else total + product
    assert total is not None
    return total


def pushforward(probe: OutputProbe, direction: Parameters) -> torch.Tensor:
    """J times a direction in parameter space, (N,). To be called within the probe's ``quiet``."""
    return jvp(probe, probe.parameters, direction)[1]


def vjp(function: Callable[..., Any], at: Any) -> tuple[Any, Callable[..., Any]]:
    """Value, and the transposed derivative as a function of cotangents."""
    found = torch.func.vjp(function, at)
    return found[0], found[1]


def jvp(function: Callable[..., Any], at: Any, direction: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Value, and derivative along a direction."""
    load_forward_mode()
    found = torch.func.jvp(function, (at,), (direction,))
    return found[0], found[1]


@functools.cache
def load_forward_mode() -> None:
    """Let torch load its forward-mode rules, which warns once of its own use of ``torch.jit.script``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
        torch.func.jvp(torch.square, (torch.zeros(()),), (torch.ones(()),))


def _double(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type not in ("cpu", "cuda"):
        tensor = tensor.cpu()
    return tensor.to(torch.float64)
