"""The sketch of a parameter vector: (B, m) sums of signed entries, computed tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..errors import SettingError
from .blocks import Blocks
from .hashing import Pile, hashed, key_of, piles_of
from .kernel import Kernel
from .layout import Layout
from .parameters import real

_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_TASK, _MOST_TASKS = 1 << 22, 8  # entries of a task of the kernel; tasks of a block, each with a table of its own


class Sketcher:
    """A linear map from the parameters to ``m`` numbers a block, of which nothing is stored an entry.

    Entry g of the whole tensor goes, with a random sign, to one of m sums (a CountSketch); bucket and sign are a hash
    of the tensor's name and of g. Pieces of a tensor, as ranks hold them, sketched apart add up to the sketch of the
    whole.

    Args:
        blocks: The partition of the local tensors.
        tensors: Local parameters by name.
        log2_size: Binary logarithm of m.
        kernel: The compiled loop, or None for torch.
        layouts: Where local tensors lie in whole ones; a missing one is whole.
        seed: Another seed is another, independent sketch.

    Raises:
        SettingError: If a layout is None: those entries cannot be told apart.
    """

    def __init__(
        self,
        blocks: Blocks,
        tensors: Mapping[str, torch.Tensor],
        log2_size: int,
        kernel: Kernel | None,
        layouts: Mapping[str, Layout | None] | None,
        seed: int,
    ) -> None:
        self.n_blocks, self.size, self._log2 = len(blocks.names), 1 << log2_size, log2_size
        self._kernel = kernel if kernel is not None and kernel.complete else None
        self._keys: dict[str, int] = {}
        records: list[tuple[int, str, Pile]] = []  # (block, tensor, pile)
        for b, atoms in enumerate(blocks.atoms):
            for atom in atoms:
                layout = _layout(atom.name, tensors[atom.name], layouts)
                self._keys[atom.name] = key_of(atom.name, seed)
                records += [(b, atom.name, pile) for pile in piles_of(atom, layout)]
        self._records = records
        self._of: dict[str, list[tuple[int, str, Pile]]] = {}
        for record in records:
            self._of.setdefault(record[1], []).append(record)

    @property
    def backend(self) -> str:
        """``"compiled"`` or ``"torch"``."""
        return "torch" if self._kernel is None else "compiled"

    @torch.no_grad()
    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Sketch some or all of the tensors.

        Args:
            tensors: By name; names that are not monitored are left out.

        Returns:
            (B, m) sketches, and (B, 2): sums of squares, and entries that are not finite.
        """
        tables, scalars = np.zeros((self.n_blocks, self.size)), np.zeros((self.n_blocks, 2))
        whole = len(tensors) >= len(self._of)
        names = [name for name in self._of if name in tensors]
        local = {name: real(tensors[name].detach()) for name in names}
        direct = {name for name, t in local.items() if self._reads(t)}
        if direct:
            records = self._records if whole else [record for name in names for record in self._of[name]]
            self._compiled([r for r in records if r[1] in direct], local, tables, scalars)
        for name in names:  # one after the other: no second copy of the whole vector is made
            if name in direct:
                continue
            flat = local[name].reshape(-1).contiguous()
            if self._kernel is not None and flat.device.type == "cpu":
                flat = flat.double() if flat.dtype not in _CODES else flat
                self._compiled(self._of[name], {name: flat}, tables, scalars)
            else:
                self._in_torch(self._of[name], flat, tables, scalars)
        return tables, scalars

    def _reads(self, tensor: torch.Tensor) -> bool:
        in_place = tensor.device.type == "cpu" and tensor.dtype in _CODES and tensor.is_contiguous()
        return self._kernel is not None and in_place

    def _compiled(
        self,
        records: Sequence[tuple[int, str, Pile]],
        local: Mapping[str, torch.Tensor],
        tables: np.ndarray,
        scalars: np.ndarray,
    ) -> None:
        """Add the sketch of some records, in an order that no number of threads changes."""
        assert self._kernel is not None
        task, owner = _share_out(records)
        base = {name: tensor.data_ptr() for name, tensor in local.items()}
        found, found_scalars = self._kernel.sketch(
            task=task,
            theta=np.array([base[n] + p.at * local[n].dtype.itemsize for _, n, p in records], dtype=np.uint64),
            dtype=np.array([_CODES[local[n].dtype] for _, n, _ in records], dtype=np.int64),
            key=np.array([self._keys[n] for _, n, _ in records], dtype=np.uint64),
            piles=np.array(
                [(p.first, p.n_outer, p.local_stride, p.global_stride, p.inner) for _, _, p in records],
                dtype=np.int64,
            ).T.copy(),
            log2_size=self._log2,
            n_threads=torch.get_num_threads(),
        )
        for i, b in enumerate(owner):
            tables[b] += found[i]
            scalars[b] += found_scalars[i]

    def _in_torch(
        self,
        records: Sequence[tuple[int, str, Pile]],
        flat: torch.Tensor,
        tables: np.ndarray,
        scalars: np.ndarray,
    ) -> None:
        f64 = flat.device if flat.device.type != "mps" else torch.device("cpu")  # which has no float64
        own: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for b, name, pile in records:
            table, sums = own.setdefault(
                b,
                (
                    torch.zeros(self.size, dtype=torch.float64, device=f64),
                    torch.zeros(2, dtype=torch.float64, device=f64),
                ),
            )
            runs = flat.as_strided(
                (pile.n_outer, pile.inner), (pile.local_stride, 1), flat.storage_offset() + pile.at
            )
            x = runs.reshape(-1).to(f64).double()
            buckets, signs = hashed(self._keys[name], pile, self._log2, f64)
            table.index_add_(0, buckets, signs.mul_(x))
            sums += torch.stack([x.square().sum(), (~torch.isfinite(x)).sum()])
        for b, (table, sums) in own.items():
            tables[b] += table.cpu().numpy()
            scalars[b] += sums.cpu().numpy()


def _layout(name: str, tensor: torch.Tensor, layouts: Mapping[str, Layout | None] | None) -> Layout:
    shape = tuple(real(tensor).shape)
    layout = layouts.get(name, Layout.whole(shape)) if layouts is not None else Layout.whole(shape)
    if layout is None:
        raise SettingError(
            f"a sketch must know which entries of {name} this process holds; its sharding does not say. "
            'Use store="host" or store="file".'
        )
    return layout


def _share_out(records: Sequence[tuple[int, str, Pile]]) -> tuple[np.ndarray, list[int]]:
    """Cut records, which come block by block, into tasks: (n_tasks + 1) first records, and the tasks' blocks."""
    task, owner = [], []
    lo = 0
    while lo < len(records):
        block = records[lo][0]
        hi = lo
        while hi < len(records) and records[hi][0] == block:
            hi += 1
        sizes = np.cumsum([pile.size for _, _, pile in records[lo:hi]])
        n = int(np.clip(sizes[-1] // _TASK, 1, _MOST_TASKS))
        cuts = np.unique(np.searchsorted(sizes, sizes[-1] * np.arange(n) / n, side="right"))
        task += [lo + int(cut) for cut in cuts if cut < hi - lo]
        owner += [block] * sum(1 for cut in cuts if cut < hi - lo)
        lo = hi
    return np.array([*task, len(records)], dtype=np.int64), owner
