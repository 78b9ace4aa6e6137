"""The ring of the last L updates: P-dimensional vectors are touched here, once a snapshot, and nowhere else.

``append`` subtracts the last snapshot, multiplies the new update with the stored ones, stores it and returns
one row of inner products a block. Live training and folders of checkpoints go through the same function.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ..errors import SettingError
from .blocks import Blocks
from .buffers import file_buffer
from .kernel import kernel_for
from .pending import Fetched, Pending
from .row import Row, n_columns, row_of_sums
from .shard import ChunkTable, Shard
from .span import Vector, combine, products_with, span_gram
from .tiles import append_tiles

__all__ = ["Pending", "Row", "UpdateRing"]

_Partial = Callable[[], tuple[np.ndarray, np.ndarray]]  # waits; (R, C) sums over runs, and (R) the blocks of these


class UpdateRing:
    """The last ``lags`` updates and the last snapshot of a partitioned parameter vector.

    Memory is ``(lags + 1) P`` entries, ``(lags + 2) P`` with ``decay``. Differences are taken in float32
    (float64 where the parameters are float64); products are accumulated in float64.

    With ``precision="bfloat16"`` every update is rounded once, when it is formed, and all products, its own norm
    included, are those of the rounded updates: the Gram is exactly that of rows ``delta - e``, and Weyl's theorem
    bounds what e does to any singular value by the ``||e||`` that is measured as it is stored (``Row.error_norm2``).
    Were the newest update kept in float32 for its own products, the Gram would be that of no rows at all, and only
    the far weaker ``|<delta, e>| <= ||delta|| ||e||`` would hold. No scale is needed: bfloat16 has float32's
    exponents, so nothing overflows and nothing above 1e-38 is flushed. ``theta_dot`` is that of the unrounded update.

    Args:
        blocks: The partition.
        tensors: Parameters by name, giving devices, dtypes and the first snapshot.
        lags: Number L of stored updates, at least 1.
        decay: Whether to keep room for the part of the update that decoupled weight decay makes.
        store: ``"device"`` keeps the ring where the parameters are, ``"host"`` in main memory, ``"file"`` the updates
            in a file of ``folder`` and the snapshot in main memory.
        backend: ``"auto"`` (compiled kernel where there is one and the ring is in main memory), ``"torch"``
            or ``"compiled"``.
        precision: ``"full"``, or ``"bfloat16"`` for updates in half the memory.
        folder: For ``"file"``.

    Raises:
        SettingError: If an argument is out of range, or ``"compiled"`` is asked for and not there.
        OutputError: If the file's folder cannot be written or has no room.
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
        precision: str = "full",
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if lags < 1:
            raise SettingError(f"lags must be at least 1; got {lags}. Use lags=2*window - 1.")
        if store not in ("device", "host", "file"):
            raise SettingError(f'store must be "device", "host" or "file"; got {store!r}.')
        if precision not in ("full", "bfloat16"):
            raise SettingError(f'precision must be "full" or "bfloat16"; got {precision!r}.')
        if store == "file" and folder is None:
            raise SettingError('store="file" needs a folder for its file; got none. Give out=, the run folder.')
        self.blocks, self.lags, self.decay, self.store, self.precision = blocks, lags, decay, store, precision
        self._kernel = kernel_for(backend, whole=precision == "bfloat16")
        self._shards = self._lay_out(tensors)
        for shard in self._shards:
            self._allot(shard, tensors, folder)
        self._tables: dict[int, ChunkTable] = {}
        for shard in self._shards:
            if self._kernel is not None and shard.device.type == "cpu":
                self._tables[id(shard)] = ChunkTable(shard, self._kernel.chunk)
        self.n_appended = 0  # updates since the last reset
        self._errors = torch.zeros((lags, len(blocks.names)), dtype=torch.float64)  # (slot, block) ||e||^2
        self._waiting: Pending | None = None
        self._thread: ThreadPoolExecutor | None = None
        self.reset(tensors)

    def _lay_out(self, tensors: Mapping[str, torch.Tensor]) -> list[Shard]:
        shards: dict[tuple[torch.device, torch.dtype], Shard] = {}
        for b, block in enumerate(self.blocks.atoms):
            for atom in block:
                tensor = tensors[atom.name]
                # MPS has no float64, in which products are accumulated
                host = self.store != "device" or tensor.device.type == "mps"
                device = torch.device("cpu") if host else tensor.device
                double = tensor.dtype in (torch.float64, torch.complex128)
                dtype = torch.float64 if double else torch.float32
                stored = torch.bfloat16 if self.precision == "bfloat16" else dtype
                shards.setdefault((device, dtype), Shard(device, dtype, stored)).add(atom, b)
        return list(shards.values())

    def _allot(
        self, shard: Shard, tensors: Mapping[str, torch.Tensor], folder: str | os.PathLike[str] | None
    ) -> None:
        shape = (self.lags, shard.size)
        if self.store == "file" and folder is not None:
            shard.updates = file_buffer(folder, shape, shard.stored)
        else:
            shard.updates = torch.zeros(shape, dtype=shard.stored, device=shard.device)
        shard.snapshot = torch.empty(shard.size, dtype=shard.dtype, device=shard.device)
        if self.decay:
            shard.decay = torch.zeros(shard.size, dtype=shard.dtype, device=shard.device)
        if shard.device.type == "cpu" and any(tensors[atom.name].device.type == "cuda" for atom in shard.atoms):
            shard.staging = torch.empty(shard.size, dtype=shard.dtype, pin_memory=True)

    def _uses_kernel(self, shard: Shard) -> bool:
        return id(shard) in self._tables

    @property
    def shards(self) -> list[Shard]:
        """The buffers, one for each device and dtype; nothing is under way in them."""
        self.settle()
        return self._shards

    @property
    def n_entries(self) -> int:
        """Numbers held: ``(lags + 1) P``, one vector more with decay."""
        return sum(s.size for s in self._shards) * (self.lags + (2 if self.decay else 1))

    @property
    def nbytes(self) -> int:
        """Bytes held by the ring, snapshot, decay and staging buffers, in a file or not."""
        return sum(x.numel() * x.dtype.itemsize for s in self._shards for x in s.buffers)

    @property
    def half(self) -> bool:
        """Whether updates are stored in bfloat16."""
        return self.precision == "bfloat16"

    @property
    def sketch_size(self) -> int | None:
        """None: the updates themselves are kept."""
        return None

    @property
    def backend(self) -> str:
        """``"compiled"`` or ``"torch"`` (also where only some shards use the kernel)."""
        return "compiled" if self._shards and all(self._uses_kernel(s) for s in self._shards) else "torch"

    @property
    def update_dtype(self) -> str:
        """Coarsest arithmetic in which updates are formed: ``"float32"`` or ``"float64"``.

        What ``precision="bfloat16"`` takes off an update afterwards is told row by row.
        """
        return "float64" if all(s.dtype == torch.float64 for s in self._shards) else "float32"

    @torch.no_grad()
    def reset(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Forget all updates and take a new first snapshot."""
        self.settle()
        for shard in self._shards:
            for i, start in enumerate(shard.starts):
                shard.snapshot[start : start + shard.atoms[i].n_parameters] = shard.gather(i, tensors)
            if shard.decay is not None:
                shard.decay.zero_()
        self.n_appended = 0

    @torch.no_grad()
    def add_decay(self, name: str, tensor: torch.Tensor, factor: float) -> None:
        """Add ``factor * tensor`` to the decay part of the current update; called before every optimizer step."""
        self.settle()
        for shard in self._shards:
            if shard.decay is None:
                continue
            for i in shard.pieces.get(name, ()):
                part, start = shard.gather(i, {name: tensor}), shard.starts[i]
                shard.decay[start : start + part.numel()].add_(part, alpha=factor)

    def append(self, tensors: Mapping[str, torch.Tensor]) -> Row:
        """Form the newest update, return its products, store it.

        Args:
            tensors: Parameters by name, shapes and dtypes as at construction.
        """
        return self.row(self.sums(tensors))

    def sums(self, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Form the newest update, store it, and return the sums over entries that make up its row.

        Sums over disjoint sets of entries, as on the ranks of a sharded run, add up to those of their union.

        Args:
            tensors: Parameters by name, shapes and dtypes as at construction.

        Returns:
            (B, C) float64, in the order of ``row.row_of_sums``.
        """
        return self.start(tensors).result()

    @torch.no_grad()
    def start(self, tensors: Mapping[str, torch.Tensor]) -> Pending:
        """``sums``, without waiting for an accelerator: the result is fetched when it is asked for.

        On a CPU all is done on return. On CUDA the kernels are queued (``store="device"``), or a copy into pinned
        memory, whose products a thread of this ring computes once it has arrived (``"host"`` and ``"file"``). The
        parameters may change on their stream at once: what is queued there later finds them read. The next call of
        any method waits for what is under way.

        Args:
            tensors: Parameters by name, shapes and dtypes as at construction.
        """
        self.settle()
        n = self.n_appended
        partials: list[_Partial] = []
        waits = False
        for shard in self._shards:
            if shard.staging is not None:
                partials.append(self._start_staged(shard, tensors, n))
                waits = True
                continue
            if self._uses_kernel(shard):
                partial, owner = self._append_compiled(shard, tensors, n)
            else:
                partial, owner = append_tiles(shard, tensors, n)
            fetched = Fetched(partial, owner)
            partials.append(fetched)
            waits |= fetched.waits
        self.n_appended += 1
        self._waiting = pending = Pending(lambda: self._collect(partials, n))
        if not waits:
            pending.result()
        return pending

    def settle(self) -> None:
        """Wait for what ``start`` left under way."""
        if self._waiting is not None:
            self._waiting.result()

    def row(self, sums: np.ndarray) -> Row:
        """The row that sums over all entries make up.

        Args:
            sums: As ``sums`` gives, or several of them added.
        """
        row = row_of_sums(np.asarray(sums), self.lags, decay=self.decay, half=self.half)
        if row.error_norm2 is not None:
            self._errors[(self.n_appended - 1) % self.lags] = torch.from_numpy(row.error_norm2)
        return row

    def error_norm2(self, window: int) -> float:
        """``||E||_F^2`` of the newest ``window`` updates: what rounding took off them [parameter^2].

        For updates restored from a saved ring, an upper bound.
        """
        slots = [(self.n_appended - 1 - lag) % self.lags for lag in range(window)]
        return float(np.nan_to_num(self._errors[slots].numpy()).sum())

    def span_gram(self, window: int) -> np.ndarray:
        """(W, W) products of the newest ``window`` updates, the newest first [parameter^2]."""
        return span_gram(self, window)

    def combine(self, coefficients: np.ndarray) -> dict[str, torch.Tensor]:
        """``sum_l coefficients[l] delta_{t-l}``, newest update first; tensors shaped like the parameters."""
        return combine(self, coefficients)

    def products_with(self, vector: Vector, *, lags: int | None = None) -> np.ndarray:
        """(B, L+1) ``<x, delta_{t-l}>`` of a P-vector by name; NaN where no update is stored."""
        return products_with(self, vector, lags=lags)

    def take_notes(self) -> list[dict[str, object]]:
        """Nothing: see the sketch's."""
        return []

    def _start_staged(self, shard: Shard, tensors: Mapping[str, torch.Tensor], n_appended: int) -> _Partial:
        """Queue the copy of the parameters; a thread does the rest when it has arrived."""
        shard.stage(tensors)
        copied = []
        for device in {tensors[atom.name].device for atom in shard.atoms if tensors[atom.name].is_cuda}:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            copied.append(event)

        @torch.no_grad()  # which is a thread's own
        def work() -> tuple[np.ndarray, np.ndarray]:
            for event in copied:
                event.synchronize()  # lets other threads run
            if self._uses_kernel(shard):
                partial, owner = self._append_compiled(shard, tensors, n_appended)
            else:
                partial, owner = append_tiles(shard, tensors, n_appended, staged=True)
            return partial.numpy(), owner

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="spectraledge")
        return self._thread.submit(work).result

    def _append_compiled(
        self, shard: Shard, tensors: Mapping[str, torch.Tensor], n_appended: int
    ) -> tuple[torch.Tensor, np.ndarray]:
        assert self._kernel is not None
        table = self._tables[id(shard)]
        n_old = min(n_appended, self.lags)
        # keeps converted copies alive
        flat = [shard.flat(i, tensors, staged=True) for i in range(len(shard.atoms))]
        base = np.array([t.data_ptr() for t in flat], dtype=np.uint64)
        partial = self._kernel.append(
            is_double=shard.dtype == torch.float64,
            theta=base[table.atom] + table.within_bytes,
            offset=table.offset,
            length=table.length,
            # slot of the update l snapshots back, l = 1 .. n_old; the last may be the slot about to be overwritten
            rows=np.array([(n_appended - lag) % self.lags for lag in range(1, n_old + 1)], dtype=np.int64),
            row_stride=shard.size,
            slot=n_appended % self.lags,
            updates=shard.updates.data_ptr(),
            snapshot=shard.snapshot.data_ptr(),
            decay=shard.decay.data_ptr() if shard.decay is not None else None,
            n_threads=torch.get_num_threads(),
            half=shard.half,
        )
        return torch.from_numpy(partial), table.owner

    def _collect(self, partials: list[_Partial], n_appended: int) -> np.ndarray:
        """Sums over runs of entries as sums over blocks."""
        self._waiting = None
        n_old = min(n_appended, self.lags)
        sums = np.zeros((len(self.blocks.names), n_columns(n_old, decay=self.decay, half=self.half)))
        for fetch in partials:
            partial, owner = fetch()
            np.add.at(sums[:, :-1], owner, partial)  # in chunk order, whatever the number of threads
        sums[:, -1] = self._count_nonfinite(sums[:, n_old + 2])
        return sums

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
        self.settle()
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
            SettingError: If the state was saved by a ring of another layout or precision.
        """
        mine = self.state_tensors()
        saved = {name: (tuple(t.shape), str(t.dtype)) for name, t in state.items()}
        wanted = {name: (tuple(t.shape), str(t.dtype)) for name, t in mine.items()}
        if saved != wanted:
            raise SettingError(
                f"the saved ring must have this ring's layout {wanted}; got {saved}. "
                "Attach with the blocks, lags and options it was saved with."
            )
        for name, tensor in mine.items():
            tensor.copy_(state[name])
        self.n_appended = n_appended
        self._errors.zero_()
        for shard in self._shards if self.half else ():
            for i, start in enumerate(shard.starts):  # not saved: at most half a spacing, 2^-8 of each stored entry
                part = shard.updates[:, start : start + shard.atoms[i].n_parameters]
                self._errors[:, shard.owner[i]] += (
                    torch.stack([x.double().square().sum() for x in part]).cpu() / 2**16
                )
