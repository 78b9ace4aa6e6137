"""The ring of the last L updates: P-dimensional vectors are touched here, once a snapshot, and nowhere else.

``append`` subtracts the last snapshot, multiplies the new update with the stored ones, stores it and returns
one row of inner products a block. Live training and folders of checkpoints go through the same function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import SettingError
from .blocks import Atom, Blocks
from .kernel import Kernel, load_kernel
from .parameters import real
from .span import Vector, combine, products_with

# Float64 numbers handled at a time in torch: on a CPU the tile stays in the last-level cache (14 MB), on an
# accelerator, where launches cost more than traffic, it stays under 64 MB.
_TILE_HOST = 1_800_000
_TILE_ACCELERATOR = 6_000_000


@dataclass(frozen=True)
class Row:
    """What one snapshot leaves behind. B blocks, L lags; NaN where a lag is not available.

    Attributes:
        products: ``<delta_t, delta_{t-l}>``, shape ``(B, L + 1)``, parameter units squared.
        theta_dot: ``<theta_t, delta_t>``, shape ``(B,)``.
        theta_norm2: ``||theta_t||^2``, shape ``(B,)``.
        unchanged: Entries of the update that are exactly zero, shape ``(B,)``.
        nonfinite: Entries of the snapshot that are NaN or infinite, shape ``(B,)``.
        decay_products: ``<delta_wd_t, delta_{t-l}>``, shape ``(B, L + 1)``, or None.
        decay_norm2: ``||delta_wd_t||^2``, shape ``(B,)``, or None.
    """

    products: np.ndarray
    theta_dot: np.ndarray
    theta_norm2: np.ndarray
    unchanged: np.ndarray
    nonfinite: np.ndarray
    decay_products: np.ndarray | None = None
    decay_norm2: np.ndarray | None = None


@dataclass
class _Shard:
    """All atoms of one device and one dtype of arithmetic, laid out block by block in flat buffers."""

    device: torch.device
    dtype: torch.dtype
    atoms: list[Atom] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)  # block index of each atom
    pieces: dict[str, list[int]] = field(default_factory=dict)  # indices of the atoms of each tensor
    size: int = 0
    updates: torch.Tensor = field(init=False)
    snapshot: torch.Tensor = field(init=False)
    decay: torch.Tensor | None = None

    def add(self, atom: Atom, block: int) -> None:
        self.pieces.setdefault(atom.name, []).append(len(self.atoms))
        self.atoms.append(atom)
        self.starts.append(self.size)
        self.owner.append(block)
        self.size += atom.n_parameters

    def flat(self, i: int, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """A tensor whose memory holds atom ``i``: the parameter itself where it can be read in place."""
        atom = self.atoms[i]
        tensor = tensors[atom.name]
        if (
            atom.dim is None
            and tensor.dtype == self.dtype
            and tensor.device == self.device
            and tensor.is_contiguous()
        ):
            return tensor
        return self.gather(i, tensors)

    def gather(self, i: int, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Atom ``i`` as a flat tensor of this shard's dtype and device; a view where possible."""
        atom = self.atoms[i]
        part = atom.of(real(tensors[atom.name]))
        return part.reshape(-1).to(device=self.device, dtype=self.dtype)


class UpdateRing:
    """The last ``lags`` updates and the last snapshot of a partitioned parameter vector.

    Memory is ``(lags + 1) P`` entries, ``(lags + 2) P`` with ``decay``. Differences are taken in float32
    (float64 where the parameters are float64); products are accumulated in float64.

    Args:
        blocks: The partition.
        tensors: Parameters by name, giving devices, dtypes and the first snapshot.
        lags: Number L of stored updates, at least 1.
        decay: Whether to keep room for the part of the update that decoupled weight decay makes.
        store: ``"device"`` keeps the ring where the parameters are, ``"host"`` in main memory.
        backend: ``"auto"`` (compiled kernel where there is one and the ring is in main memory), ``"torch"``
            or ``"compiled"``.

    Raises:
        SettingError: If an argument is out of range, or ``"compiled"`` is asked for and not there.
    """

    def __init__(
        self,
        blocks: Blocks,
        tensors: Mapping[str, torch.Tensor],
        lags: int,
        *,
        decay: bool = False,
        store: str = "device",
        backend: str = "auto",
    ) -> None:
        if lags < 1:
            raise SettingError(f"lags must be at least 1; got {lags}. Use lags=2*window - 1.")
        if store not in ("device", "host"):
            raise SettingError(f'store must be "device" or "host"; got {store!r}.')
        if backend not in ("auto", "torch", "compiled"):
            raise SettingError(f'backend must be "auto", "torch" or "compiled"; got {backend!r}.')
        self.blocks, self.lags, self.decay, self.store = blocks, lags, decay, store
        self._kernel: Kernel | None = None if backend == "torch" else load_kernel()
        if backend == "compiled" and self._kernel is None:
            raise SettingError(
                'backend="compiled" needs the kernel, which this installation was built without; '
                "install a C compiler and reinstall, or use backend='auto'."
            )
        self._shards = self._lay_out(tensors)
        for shard in self._shards:
            shard.updates = torch.zeros((lags, shard.size), dtype=shard.dtype, device=shard.device)
            shard.snapshot = torch.empty(shard.size, dtype=shard.dtype, device=shard.device)
            if decay:
                shard.decay = torch.zeros(shard.size, dtype=shard.dtype, device=shard.device)
        self._tables: dict[int, _ChunkTable] = {}
        for shard in self._shards:
            if self._kernel is not None and shard.device.type == "cpu":
                self._tables[id(shard)] = _ChunkTable(shard, self._kernel.chunk)
        self.n_appended = 0  # updates since the last reset
        self.reset(tensors)

    def _lay_out(self, tensors: Mapping[str, torch.Tensor]) -> list[_Shard]:
        shards: dict[tuple[torch.device, torch.dtype], _Shard] = {}
        for b, block in enumerate(self.blocks.atoms):
            for atom in block:
                tensor = tensors[atom.name]
                # MPS has no float64, in which products are accumulated
                host = self.store == "host" or tensor.device.type == "mps"
                device = torch.device("cpu") if host else tensor.device
                double = tensor.dtype in (torch.float64, torch.complex128)
                dtype = torch.float64 if double else torch.float32
                shards.setdefault((device, dtype), _Shard(device, dtype)).add(atom, b)
        return list(shards.values())

    def _uses_kernel(self, shard: _Shard) -> bool:
        return id(shard) in self._tables

    @property
    def shards(self) -> list[_Shard]:
        """The buffers, one for each device and dtype."""
        return self._shards

    @property
    def n_entries(self) -> int:
        """Numbers held: ``(lags + 1) P``, one vector more with decay."""
        return sum(s.size for s in self._shards) * (self.lags + (2 if self.decay else 1))

    @property
    def nbytes(self) -> int:
        """Bytes held by the ring, snapshot and decay buffers."""
        return sum(s.size * s.dtype.itemsize * (self.lags + (2 if self.decay else 1)) for s in self._shards)

    @property
    def backend(self) -> str:
        """``"compiled"`` or ``"torch"`` (also where only some shards use the kernel)."""
        return "compiled" if self._shards and all(self._uses_kernel(s) for s in self._shards) else "torch"

    @property
    def update_dtype(self) -> str:
        """Coarsest arithmetic in which updates are formed: ``"float32"`` or ``"float64"``."""
        return "float64" if all(s.dtype == torch.float64 for s in self._shards) else "float32"

    @torch.no_grad()
    def reset(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Forget all updates and take a new first snapshot."""
        for shard in self._shards:
            for i, start in enumerate(shard.starts):
                shard.snapshot[start : start + shard.atoms[i].n_parameters] = shard.gather(i, tensors)
            if shard.decay is not None:
                shard.decay.zero_()
        self.n_appended = 0

    @torch.no_grad()
    def add_decay(self, name: str, tensor: torch.Tensor, factor: float) -> None:
        """Add ``factor * tensor`` to the decay part of the current update; called before every optimizer step."""
        for shard in self._shards:
            if shard.decay is None:
                continue
            for i in shard.pieces.get(name, ()):
                part, start = shard.gather(i, {name: tensor}), shard.starts[i]
                shard.decay[start : start + part.numel()].add_(part, alpha=factor)

    @torch.no_grad()
    def append(self, tensors: Mapping[str, torch.Tensor]) -> Row:
        """Form the newest update, return its products, store it.

        Args:
            tensors: Parameters by name, shapes and dtypes as at construction.
        """
        return self.row(self.sums(tensors))

    @torch.no_grad()
    def sums(self, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Form the newest update, store it, and return the sums over entries that make up its row.

        Sums over disjoint sets of entries, as on the ranks of a sharded run, add up to those of their union.

        Args:
            tensors: Parameters by name, shapes and dtypes as at construction.

        Returns:
            (B, C) float64: products with the n stored updates, newest first; ``||delta||^2``, ``<theta, delta>``,
            ``||theta||^2``, unchanged entries; with decay as many products of the decay part, its product with the
            newest update and its own norm squared; at last the number of entries that are not finite.
        """
        n_blocks, n_old = len(self.blocks.names), min(self.n_appended, self.lags)
        slot = self.n_appended % self.lags
        # slot of the update l snapshots back, l = 1 .. n_old; the last may be the slot about to be overwritten
        rows = np.array([(self.n_appended - lag) % self.lags for lag in range(1, n_old + 1)], dtype=np.int64)
        sums = np.zeros((n_blocks, (2 if self.decay else 1) * n_old + (7 if self.decay else 5)))
        for shard in self._shards:
            if self._uses_kernel(shard):
                partial, owner = self._append_compiled(shard, tensors, rows, slot)
            else:
                partial, owner = self._append_torch(shard, tensors, rows, slot)
            np.add.at(sums[:, :-1], owner, partial)  # in chunk order, whatever the number of threads
        sums[:, -1] = self._count_nonfinite(sums[:, n_old + 2])
        self.n_appended += 1
        return sums

    def row(self, sums: np.ndarray) -> Row:
        """The row that sums over all entries make up.

        Args:
            sums: As ``sums`` gives, or several of them added.
        """
        n_old = (sums.shape[1] - 7) // 2 if self.decay else sums.shape[1] - 5
        n_blocks = len(sums)
        products = np.full((n_blocks, self.lags + 1), np.nan)
        products[:, 0] = sums[:, n_old]
        products[:, 1 : n_old + 1] = sums[:, :n_old]
        decay_products = decay_norm2 = None
        if self.decay:
            decay_products = np.full((n_blocks, self.lags + 1), np.nan)
            decay_products[:, 0] = sums[:, 2 * n_old + 4]
            decay_products[:, 1 : n_old + 1] = sums[:, n_old + 4 : 2 * n_old + 4]
            decay_norm2 = _finite(sums[:, 2 * n_old + 5])
            decay_products = _finite(decay_products)
        return Row(
            products=_finite(products),
            theta_dot=_finite(sums[:, n_old + 1]),
            theta_norm2=_finite(sums[:, n_old + 2]),
            unchanged=sums[:, n_old + 3].copy(),
            nonfinite=sums[:, -1].copy(),
            decay_products=decay_products,
            decay_norm2=decay_norm2,
        )

    def combine(self, coefficients: np.ndarray) -> dict[str, torch.Tensor]:
        """``sum_l coefficients[l] delta_{t-l}``, newest update first; tensors shaped like the parameters."""
        return combine(self, coefficients)

    def products_with(self, vector: Vector, *, lags: int | None = None) -> np.ndarray:
        """(B, L+1) ``<x, delta_{t-l}>`` of a P-vector by name; NaN where no update is stored."""
        return products_with(self, vector, lags=lags)

    def _append_compiled(
        self, shard: _Shard, tensors: Mapping[str, torch.Tensor], rows: np.ndarray, slot: int
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self._kernel is not None
        table = self._tables[id(shard)]
        flat = [shard.flat(i, tensors) for i in range(len(shard.atoms))]  # keeps converted copies alive
        base = np.array([t.data_ptr() for t in flat], dtype=np.uint64)
        partial = self._kernel.append(
            is_double=shard.dtype == torch.float64,
            theta=base[table.atom] + table.within_bytes,
            offset=table.offset,
            length=table.length,
            rows=rows,
            row_stride=shard.size,
            slot=slot,
            updates=shard.updates.data_ptr(),
            snapshot=shard.snapshot.data_ptr(),
            decay=shard.decay.data_ptr() if shard.decay is not None else None,
            n_threads=torch.get_num_threads(),
        )
        return partial, table.owner

    def _append_torch(
        self, shard: _Shard, tensors: Mapping[str, torch.Tensor], rows: np.ndarray, slot: int
    ) -> tuple[np.ndarray, np.ndarray]:
        n_old = len(rows)
        tile_size = _TILE_HOST if shard.device.type == "cpu" else _TILE_ACCELERATOR
        limit = min(shard.size, max(1024, tile_size // (self.lags + 2)))
        f64: dict[str, Any] = {"dtype": torch.float64, "device": shard.device}
        tile = torch.empty((n_old, limit), **f64)
        delta64, theta64 = torch.empty(limit, **f64), torch.empty(limit, **f64)
        by_delta, by_decay, scalars, owner = [], [], [], []
        for start, stop, block, pieces in _runs(shard, tensors, limit):
            n = stop - start
            old, newest = shard.snapshot[start:stop], shard.updates[slot, start:stop]
            part, d64, t64 = tile[:, :n], delta64[:n], theta64[:n]
            theta = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
            part.copy_(shard.updates[:n_old, start:stop])  # before its oldest row is overwritten
            torch.sub(theta, old, out=newest)
            d64.copy_(newest)
            t64.copy_(theta)
            own = [torch.dot(d64, d64), torch.dot(t64, d64), torch.dot(t64, t64), n - torch.count_nonzero(newest)]
            if shard.decay is not None:
                w64 = shard.decay[start:stop].double()
                by_decay.append((part * w64).sum(dim=1))
                own += [torch.dot(d64, w64), torch.dot(w64, w64)]
            # multiply and add rather than a matrix product: the sum is pairwise, where a BLAS runs along the
            # row with few accumulators and loses two digits on nearly parallel updates
            by_delta.append(part.mul_(d64).sum(dim=1))
            scalars.append(torch.stack(own))
            owner.append(block)
            old.copy_(theta)
        # the kernel's order of sums; `rows` turns slots into lags
        order = torch.as_tensor(rows, device=shard.device)
        own_sums = torch.stack(scalars)
        columns = [torch.stack(by_delta)[:, order], own_sums[:, :4]]
        if shard.decay is not None:
            columns += [torch.stack(by_decay)[:, order], own_sums[:, 4:]]
            shard.decay.zero_()
        return torch.cat(columns, dim=1).cpu().numpy(), np.array(owner)

    def _count_nonfinite(self, theta_norm2: np.ndarray) -> np.ndarray:
        counts = np.zeros(len(theta_norm2))
        bad = set(np.flatnonzero(~np.isfinite(theta_norm2)))
        if bad:  # only then is another pass over the snapshot worth its time
            for shard in self._shards:
                for i, start in enumerate(shard.starts):
                    if shard.owner[i] in bad:
                        part = shard.snapshot[start : start + shard.atoms[i].n_parameters]
                        counts[shard.owner[i]] += float((~torch.isfinite(part)).sum())
        return counts

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The buffers themselves (not copies), by a stable name."""
        out: dict[str, torch.Tensor] = {}
        for k, shard in enumerate(self._shards):
            out[f"ring.{k}.updates"] = shard.updates
            out[f"ring.{k}.snapshot"] = shard.snapshot
            if shard.decay is not None:
                out[f"ring.{k}.decay"] = shard.decay
        return out

    def load_state_tensors(self, state: Mapping[str, torch.Tensor], n_appended: int) -> None:
        """Restore the buffers that ``state_tensors`` gave.

        Raises:
            SettingError: If the state was saved by a ring of another layout.
        """
        mine = self.state_tensors()
        saved = {name: tuple(t.shape) for name, t in state.items()}
        wanted = {name: tuple(t.shape) for name, t in mine.items()}
        if saved != wanted:
            raise SettingError(
                f"the saved ring must have this ring's layout {wanted}; got {saved}. "
                "Attach with the blocks, lags and options it was saved with."
            )
        for name, tensor in mine.items():
            tensor.copy_(state[name])
        self.n_appended = n_appended


class _ChunkTable:
    """Where every chunk of the kernel begins; fixed for the life of a shard."""

    def __init__(self, shard: _Shard, chunk: int) -> None:
        atom, within, offset, length = [], [], [], []
        for i, start in enumerate(shard.starts):
            n = shard.atoms[i].n_parameters
            for lo in range(0, n, chunk):
                atom.append(i)
                within.append(lo * shard.dtype.itemsize)
                offset.append(start + lo)
                length.append(min(chunk, n - lo))
        self.atom = np.array(atom)
        self.within_bytes = np.array(within, dtype=np.uint64)
        self.offset = np.array(offset, dtype=np.int64)
        self.length = np.array(length, dtype=np.int64)
        self.owner = np.array(shard.owner)[self.atom]


def _runs(
    shard: _Shard, tensors: Mapping[str, torch.Tensor], limit: int
) -> Iterator[tuple[int, int, int, list[torch.Tensor]]]:
    """Runs of at most ``limit`` entries of one block: (start, stop, block, pieces of the parameters)."""
    pieces: list[torch.Tensor] = []
    start, filled, owner = 0, 0, -1
    for i, position in enumerate(shard.starts):
        flat = shard.gather(i, tensors)
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


def _finite(values: np.ndarray) -> np.ndarray:
    """Infinities as NaN: a product with a non-finite update is not a number anybody can use."""
    return np.where(np.isfinite(values), values, np.nan)
