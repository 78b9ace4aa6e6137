"""Parameters that walk at random, rows of rings that follow them, and recordings made of these rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from spectraledge.recording import Recording, RecordingWriter
from spectraledge.stream.row import Row
from spectraledge.stream.store import AnyRing

Tensors = dict[str, torch.Tensor]


def walk(
    shapes: dict[str, tuple[int, ...]],
    n: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    size: float = 0.01,
) -> list[Tensors]:
    """n + 1 snapshots of parameters of size 1."""
    generator = torch.Generator().manual_seed(seed)
    draw: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    out = [{k: torch.randn(s, **draw).to(dtype) for k, s in shapes.items()}]
    for _ in range(n):
        out.append({k: (v.double() + size * torch.randn(v.shape, **draw)).to(dtype) for k, v in out[-1].items()})
    return out


def rows_of(ring: AnyRing, snapshots: Sequence[Tensors], *, decay: float = 0.0) -> list[Row]:
    """Rows of all snapshots but the first, which the ring has seen."""
    rows = []
    for before, after in pairwise(snapshots):
        if decay:
            for name, tensor in before.items():
                ring.add_decay(name, tensor, -decay)
        rows.append(ring.append(after))
    return rows


def recorded(rows: Sequence[Row], blocks: Sequence[str], lags: int, **segment: Any) -> Recording:
    """The recording that a run would make of rows."""
    writer = RecordingWriter(None)
    writer.write("segment", segment=0, step=0, reason="start", blocks=list(blocks), lags=lags, **segment)
    for t, row in enumerate(rows):
        fields = {name: value for name, value in vars(row).items() if value is not None}
        writer.write("row", t=t, segment=0, step=t + 1, n_steps=1, lr_sum=[1.0], flags=[], **fields)
    return Recording.from_log(writer.log())


def private_bytes() -> int:
    """Anonymous memory of this process."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))
