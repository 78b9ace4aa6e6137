"""Atoms of one device and one dtype laid out in flat buffers, and the cuts in which they are worked through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from .blocks import Atom
from .parameters import real


@dataclass
class Shard:
    """All atoms of one device and one dtype of arithmetic, laid out block by block in flat buffers.

    Attributes:
        device: Where the buffers are.
        dtype: In which updates are formed, and that of the snapshot.
        stored: Dtype of the stored updates.
        staging: Pinned room for a copy of the parameters, where these are on an accelerator and the buffers are not.
    """

    device: torch.device
    dtype: torch.dtype
    stored: torch.dtype
    atoms: list[Atom] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)  # block index of each atom
    pieces: dict[str, list[int]] = field(default_factory=dict)  # indices of the atoms of each tensor
    size: int = 0
    updates: torch.Tensor = field(init=False)
    snapshot: torch.Tensor = field(init=False)
    decay: torch.Tensor | None = None
    staging: torch.Tensor | None = None

    @property
    def half(self) -> bool:
        """Whether updates are stored in bfloat16."""
        return self.stored == torch.bfloat16

    @property
    def buffers(self) -> list[torch.Tensor]:
        """All that is kept from one snapshot to the next, and the staging room."""
        return [x for x in (self.updates, self.snapshot, self.decay, self.staging) if x is not None]

    def add(self, atom: Atom, block: int) -> None:
        """Take up another atom behind the others."""
        self.pieces.setdefault(atom.name, []).append(len(self.atoms))
        self.atoms.append(atom)
        self.starts.append(self.size)
        self.owner.append(block)
        self.size += atom.n_parameters

    def flat(self, i: int, tensors: Mapping[str, torch.Tensor], *, staged: bool = False) -> torch.Tensor:
        """A tensor whose memory holds atom ``i``: the parameter itself where it can be read in place."""
        atom = self.atoms[i]
        if staged and self.staging is not None:
            return self.staging[self.starts[i] : self.starts[i] + atom.n_parameters]
        tensor = tensors[atom.name]
        if (
            atom.dim is None
            and tensor.dtype == self.dtype
            and tensor.device == self.device
            and tensor.is_contiguous()
        ):
            return tensor
        return self.gather(i, tensors)

    def gather(self, i: int, tensors: Mapping[str, torch.Tensor], *, staged: bool = False) -> torch.Tensor:
        """Atom ``i`` as a flat, contiguous tensor of this shard's dtype and device; a view where possible."""
        atom = self.atoms[i]
        if staged and self.staging is not None:
            return self.staging[self.starts[i] : self.starts[i] + atom.n_parameters]
        part = atom.of(real(tensors[atom.name]))
        # reshape keeps a single stride, as of every second entry or of one column: the kernel reads addresses
        return part.reshape(-1).to(device=self.device, dtype=self.dtype).contiguous()

    def stage(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Queue the copy of all parameters into pinned memory, behind the work that their stream has queued.

        The host does not wait, and what the stream does next finds the parameters read.
        """
        assert self.staging is not None
        for i, atom in enumerate(self.atoms):
            part = atom.of(real(tensors[atom.name]))
            room = self.staging[self.starts[i] : self.starts[i] + atom.n_parameters]
            room.view(part.shape).copy_(part, non_blocking=True)


class ChunkTable:
    """Where every chunk of the kernel begins; fixed for the life of a shard."""

    def __init__(self, shard: Shard, chunk: int) -> None:
        atom, within, offset, length = [], [], [], []
        for i, start in enumerate(shard.starts):
            n = shard.atoms[i].n_parameters
            for lo in range(0, n, chunk):
                atom.append(i)
                within.append(lo * shard.dtype.itemsize)
                offset.append(start + lo)
                length.append(min(chunk, n - lo))
        self.atom = np.array(atom, dtype=np.int64)
        self.within_bytes = np.array(within, dtype=np.uint64)
        self.offset = np.array(offset, dtype=np.int64)
        self.length = np.array(length, dtype=np.int64)
        self.owner = np.array(shard.owner, dtype=np.int64)[self.atom]


def runs(
    shard: Shard, tensors: Mapping[str, torch.Tensor], limit: int, *, staged: bool = False
) -> Iterator[tuple[int, int, int, list[torch.Tensor]]]:
    """Runs of at most ``limit`` entries of one block: (start, stop, block, pieces of the parameters)."""
    pieces: list[torch.Tensor] = []
    start, filled, owner = 0, 0, -1
    for i, position in enumerate(shard.starts):
        flat = shard.gather(i, tensors, staged=staged)
        if pieces and shard.owner[i] != owner:
            yield start, start + filled, owner, pieces
            start, pieces, filled = position, [], 0
        owner = shard.owner[i]
        lo = 0
        while lo < flat.numel():
            if filled == 0:
                start = position + lo
            hi = min(flat.numel(), lo + limit - filled)
            pieces.append(flat[lo:hi])
            filled += hi - lo
            lo = hi
            if filled == limit:
                yield start, start + filled, owner, pieces
                pieces, filled = [], 0
    if pieces:
        yield start, start + filled, owner, pieces
