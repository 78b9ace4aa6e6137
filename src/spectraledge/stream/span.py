"""The stored updates as a basis: products with any vector, and vectors made of them.

Works on the ring's buffers piece by piece in float64, so that no second copy of the ring is ever made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import SettingError
from ..theory.spectrum import UPDATE_EPS_FLOAT32, UPDATE_EPS_FLOAT64, gram_spectrum

if TYPE_CHECKING:
    from .ring import UpdateRing
    from .sketch import SketchRing

Vector = Mapping[str, torch.Tensor]
"""A P-vector as tensors shaped like the parameters, by name; a missing name stands for zeros."""

_PIECE = 200_000  # entries handled at a time: with 20 lags 32 MB of float64


@torch.no_grad()
def span_gram(ring: UpdateRing, window: int) -> np.ndarray:
    """(W, W) products of the newest ``window`` updates, the newest first [parameter^2]."""
    slots = _slots(ring, window)
    total = np.zeros((len(slots), len(slots)))
    for shard in ring.shards:
        for start in range(0, shard.size, _PIECE):
            part = shard.updates[slots, start : start + _PIECE].double()
            total += (part @ part.T).cpu().numpy()
    return total


def directions(ring: UpdateRing | SketchRing, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and coefficients of the newest window's modes; see ``Monitor.directions``."""
    stored = min(ring.n_appended, ring.lags)
    if not 2 <= window <= stored:
        raise SettingError(
            f"window must lie in 2..{stored}, the number of stored updates; got {window}. "
            f"Wait for {window} snapshots, and attach with lags >= {window}."
        )
    eps = UPDATE_EPS_FLOAT64 if ring.update_dtype == "float64" else UPDATE_EPS_FLOAT32
    gram = ring.span_gram(window)[::-1, ::-1]  # oldest first, as everywhere in theory
    spectrum = gram_spectrum(gram, update_eps=eps, error_norm2=ring.error_norm2(window))
    sigma = np.where(spectrum.resolved, spectrum.singular_values, np.nan)
    return spectrum.singular_values, (spectrum.time_profiles / sigma)[::-1]


@torch.no_grad()
def combine(ring: UpdateRing, coefficients: np.ndarray) -> dict[str, torch.Tensor]:
    """``sum_l coefficients[l] delta_{t-l}`` as tensors shaped like the parameters, in the ring's dtype."""
    slots = _slots(ring, len(coefficients))
    out: dict[str, torch.Tensor] = {}
    for shard in ring.shards:
        weights = torch.from_numpy(np.array(coefficients, dtype=np.float64)).to(shard.device)
        flat = torch.empty(shard.size, dtype=shard.dtype, device=shard.device)
        for start in range(0, shard.size, _PIECE):
            # summed in float64: the coefficients of a weak mode are large and cancel
            flat[start : start + _PIECE] = weights @ shard.updates[slots, start : start + _PIECE].double()
        for atom, start in zip(shard.atoms, shard.starts, strict=True):
            whole = out.get(atom.name)
            if whole is None:
                whole = out[atom.name] = torch.zeros(atom.shape, dtype=shard.dtype, device=shard.device)
            part = atom.of(whole)
            part.copy_(flat[start : start + atom.n_parameters].view(part.shape))
    return out


@torch.no_grad()
def products_with(ring: UpdateRing, vector: Vector, *, lags: int | None = None) -> np.ndarray:
    """``<x, delta_{t-l}>`` of a P-vector x, block by block.

    Args:
        ring: The stored updates.
        vector: x, shaped like the parameters.
        lags: Only the newest ``lags`` updates; all where None.

    Returns:
        (B, L+1) float64 [unit of x times parameter], l = 0 the newest update; NaN where none is stored.
    """
    slots = _slots(ring, ring.lags if lags is None else lags)
    sums = np.full((len(ring.blocks.names), ring.lags + 1), np.nan)
    sums[:, : len(slots)] = 0.0
    for shard in ring.shards:
        for i, start in enumerate(shard.starts):
            if shard.atoms[i].name not in vector:
                continue
            x = shard.gather(i, vector)
            for lo in range(0, x.numel(), _PIECE):
                piece = x[lo : lo + _PIECE].double()
                updates = shard.updates[slots, start + lo : start + lo + len(piece)].double()
                # elementwise, for a pairwise sum: see the ring's own products
                sums[shard.owner[i], : len(slots)] += updates.mul_(piece).sum(dim=1).cpu().numpy()
    return sums


@torch.no_grad()
def block_dots(ring: UpdateRing, x: Vector, y: Vector) -> np.ndarray:
    """(B,) ``<x, y>`` of two P-vectors, block by block, in float64."""
    sums = np.zeros(len(ring.blocks.names))
    for shard in ring.shards:
        for i in range(len(shard.atoms)):
            name = shard.atoms[i].name
            if name in x and name in y:
                sums[shard.owner[i]] += float((shard.gather(i, x).double() * shard.gather(i, y).double()).sum())
    return sums


def _slots(ring: UpdateRing, n: int) -> list[int]:
    stored = min(n, ring.n_appended, ring.lags)
    return [(ring.n_appended - 1 - lag) % ring.lags for lag in range(stored)]
