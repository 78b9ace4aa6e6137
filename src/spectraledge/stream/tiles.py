"""One append in torch, tile by tile: the inner loop where there is no compiled kernel, and on accelerators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .shard import Shard, runs

# Float64 numbers handled at a time: on a CPU the tile stays in the last-level cache (14 MB), on an accelerator, where
# launches cost more than traffic, it stays under 64 MB.
_TILE_HOST = 1_800_000
_TILE_ACCELERATOR = 6_000_000


def append_tiles(
    shard: Shard, tensors: Mapping[str, torch.Tensor], n_appended: int, *, staged: bool = False
) -> tuple[torch.Tensor, np.ndarray]:
    """Form the newest update, multiply it with the stored ones, store it.

    Nothing here waits for an accelerator: no number is fetched, and nothing is copied to it.

    Args:
        shard: Its buffers.
        tensors: Parameters by name.
        n_appended: Updates before this one.
        staged: Whether to read the parameters from the staging room.

    Returns:
        (R, C) float64 sums of R runs of entries, on the shard's device, in the kernel's order of columns; and the
        block of each run.
    """
    lags = len(shard.updates)
    n_old, slot = min(n_appended, lags), n_appended % lags
    tile_size = _TILE_HOST if shard.device.type == "cpu" else _TILE_ACCELERATOR
    limit = min(shard.size, max(1024, tile_size // (lags + 2)))
    f64: dict[str, Any] = {"dtype": torch.float64, "device": shard.device}
    tile = torch.empty((n_old, limit), **f64)
    delta64, theta64 = torch.empty(limit, **f64), torch.empty(limit, **f64)
    rounded = torch.empty(limit, **f64) if shard.half else None
    formed = torch.empty(limit, dtype=shard.dtype, device=shard.device) if shard.half else None
    by_delta, by_decay, scalars, owner = [], [], [], []
    for start, stop, block, pieces in runs(shard, tensors, limit, staged=staged):
        n = stop - start
        old, newest = shard.snapshot[start:stop], shard.updates[slot, start:stop]
        part, d64, t64 = tile[:, :n], delta64[:n], theta64[:n]
        theta = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        part.copy_(shard.updates[:n_old, start:stop])  # before its oldest row is overwritten
        exact = newest if formed is None else formed[:n]
        torch.sub(theta, old, out=exact)
        d64.copy_(exact)
        t64.copy_(theta)
        dot, unchanged = torch.dot(t64, d64), n - torch.count_nonzero(exact)
        error = []
        if rounded is not None:
            newest.copy_(exact)
            d64, exact64 = rounded[:n].copy_(newest), d64
            error = [exact64.sub_(d64).square_().sum()]
        own = [torch.dot(d64, d64), dot, torch.dot(t64, t64), unchanged]
        if shard.decay is not None:
            w64 = shard.decay[start:stop].double()
            by_decay.append((part * w64).sum(dim=1))
            own += [torch.dot(d64, w64), torch.dot(w64, w64)]
        # multiply and add rather than a matrix product: the sum is pairwise, where a BLAS runs along the
        # row with few accumulators and loses two digits on nearly parallel updates
        by_delta.append(part.mul_(d64).sum(dim=1))
        scalars.append(torch.stack(own + error))
        owner.append(block)
        old.copy_(theta)
    # the kernel's order of sums: slots as lags
    own_sums = torch.stack(scalars)
    columns = [_newest_first(torch.stack(by_delta), slot), own_sums[:, :4]]
    if shard.decay is not None:
        columns += [_newest_first(torch.stack(by_decay), slot), own_sums[:, 4:6]]
        shard.decay.zero_()
    if shard.half:
        columns.append(own_sums[:, -1:])
    return torch.cat(columns, dim=1), np.array(owner, dtype=np.int64)


def _newest_first(by_slot: torch.Tensor, slot: int) -> torch.Tensor:
    """Columns of slots 0..n-1 as those of lags 1..n; ``slot`` is where the newest update goes."""
    return by_slot.roll(-slot, dims=1).flip(1) if by_slot.shape[1] else by_slot
