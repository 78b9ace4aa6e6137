"""This rank's share of the parameter vector: which entries it counts, and in which block they lie."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ...errors import SettingError
from ..blocks import Blocks, BlockScheme, make_blocks
from ..layout import Layout
from .group import Alone
from .ownership import Held, divide
from .parts import local_blocks
from .tensors import describe, local

if TYPE_CHECKING:
    from ..parameters import Structure

logger = logging.getLogger("spectraledge")


class Share:
    """Made together by all ranks, once a structure.

    Args:
        ranks: Of this run.
        tables: What each rank holds, by rank; see ``table``.
        structure: Of this rank's model.
        scheme: How the vector is cut into blocks.
        heads: Number of attention heads, or by layer.

    Attributes:
        blocks: All blocks, of whole parameters; the same on every rank, and the same as in one process.
        local: The blocks with the entries that this rank counts.
        shapes: Of whole parameters.
        layouts: Where those lie in their parameters; None where they make up no box.
        dtypes: Dtypes of all parameters.
        groups: Parameter group of every parameter, where the ranks agree on it.

    Raises:
        SettingError: If the ranks contradict each other (on all of them), or this rank's pieces cannot be cut into
            the blocks (here).
    """

    def __init__(
        self,
        ranks: Alone,
        tables: Sequence[Sequence[Held]],
        structure: Structure,
        scheme: BlockScheme,
        heads: int | Mapping[str, int] | None,
    ) -> None:
        partition = divide(tables)
        if not partition.shapes:
            raise SettingError(
                "some rank must have a trainable parameter; none of them has one. "
                "Pass the module that is being trained."
            )
        if ranks.rank == 0:
            for a, b in partition.twins:
                logger.warning(
                    "%s and %s hold the same values on different ranks and count as two; if they are tied, leave one "
                    "out with params=",
                    a,
                    b,
                )
        self.blocks: Blocks = make_blocks(partition.shapes, scheme, heads)
        self.shapes, self.dtypes, self.groups = partition.shapes, partition.dtypes, partition.groups
        mine = {h.name: h for h in tables[ranks.rank] if ranks.rank in partition.owners[h.name] and h.n_local}
        self.layouts: dict[str, Layout | None] = {name: held.layout for name, held in mine.items()}
        self.local = local_blocks(self.blocks, self.layouts, {name: held.local_shape for name, held in mine.items()})
        self._entries = {name: structure.tensors[name] for name in mine}

    @property
    def update_dtype(self) -> str:
        """Coarsest arithmetic in which updates are formed, over all ranks."""
        return "float64" if set(self.dtypes) <= {"float64", "complex128"} else "float32"

    @property
    def itemsize(self) -> int:
        """Largest size of an entry of this rank's ring [bytes]."""
        double = (torch.float64, torch.complex128)
        return 8 if any(entry.dtype in double for entry in self._entries.values()) else 4

    def tensors(self) -> dict[str, torch.Tensor]:
        """The entries that this rank counts, as they are now: plain tensors by parameter name."""
        return {name: local(entry) for name, entry in self._entries.items()}

    def tensor(self, name: str) -> torch.Tensor | None:
        """One of them; None where another rank counts it."""
        entry = self._entries.get(name)
        return None if entry is None else local(entry)


def table(structure: Structure, optimizers: Sequence[torch.optim.Optimizer], *, several: bool) -> list[Held]:
    """What this rank holds.

    Args:
        structure: Of its model.
        optimizers: That train it.
        several: Whether there are other ranks to compare values with.
    """
    names = structure.names_of()
    group_of: dict[str, int] = {}
    index = 0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group_of |= {name: index for p in group["params"] for name in names.get(id(p), ())}
            index += 1
    return [describe(name, entry, group_of.get(name), compare=several) for name, entry in structure.tensors.items()]
