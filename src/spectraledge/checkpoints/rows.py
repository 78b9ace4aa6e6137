"""From a stretch of checkpoints to rows of inner products, by the same ring that live training uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..stream.blocks import Blocks
from ..stream.parameters import real
from ..stream.ring import Row, UpdateRing
from .groups import Group
from .scan import Member
from .structure import Entry


@dataclass
class Sum:
    """One update's row, added up over groups.

    Attributes:
        step: Step that ends the update.
        n_steps: Steps it took.
        seam: Whether it does not join to the update before it.
        products: (B, L+1).
        theta_dot, theta_norm2, unchanged, nonfinite: (B).
        seconds: Time spent on it.
    """

    step: int
    n_steps: int
    seam: bool
    products: np.ndarray
    theta_dot: np.ndarray
    theta_norm2: np.ndarray
    unchanged: np.ndarray
    nonfinite: np.ndarray
    seconds: float = field(default=0.0)

    @classmethod
    def empty(cls, step: int, n_steps: int, seam: bool, n_blocks: int, lags: int) -> Sum:
        """A row of zeros."""
        dot, norm2, unchanged, nonfinite = np.zeros((4, n_blocks))
        return cls(step, n_steps, seam, np.zeros((n_blocks, lags + 1)), dot, norm2, unchanged, nonfinite)

    def add(self, columns: Sequence[int], row: Row, seconds: float) -> None:
        """Add one group's part, for the blocks at ``columns``. A missing product stays missing: NaN adds up."""
        self.products[columns] += row.products
        self.theta_dot[columns] += row.theta_dot
        self.theta_norm2[columns] += row.theta_norm2
        self.unchanged[columns] += row.unchanged
        self.nonfinite[columns] += row.nonfinite
        self.seconds += seconds


def stretch_rows(
    members: Sequence[Member],
    entries: Mapping[str, Entry],
    blocks: Blocks,
    groups: Sequence[Group],
    lags: int,
    tick: Callable[[Member], None],
) -> list[Sum]:
    """Rows of all updates between neighbouring members; none crosses a checkpoint that is missing between two.

    Args:
        members: Of one structure.
        entries: Tensors of that structure.
        blocks: The whole partition.
        groups: Its parts, one pass over the members each.
        lags: Stored updates L.
        tick: Called after each checkpoint of each pass.

    Raises:
        Unreadable: If a checkpoint cannot be read, or is not the one that was checked.
    """
    sums = _empty_rows(members, len(blocks.names), lags)
    for group in groups:
        columns = [blocks.names.index(name) for name in group.blocks.names]
        ring: UpdateRing | None = None
        for i, member in enumerate(members):
            began = time.perf_counter()
            tensors = _read(member, entries, group)
            if ring is None:
                ring = UpdateRing(group.blocks, tensors, lags)
            elif i in sums:
                row = ring.append(tensors)
                sums[i].add(columns, row, time.perf_counter() - began)
            else:
                ring.reset(tensors)
            del tensors  # before the next are read: the group's memory counts them once
            tick(member)
        del ring
    return list(sums.values())


def _empty_rows(members: Sequence[Member], n_blocks: int, lags: int) -> dict[int, Sum]:
    """Rows by the place in ``members`` of the checkpoint that ends them."""
    sums: dict[int, Sum] = {}
    joined = True  # the first update has nothing to join to
    for i in range(1, len(members)):
        before, member = members[i - 1], members[i]
        if member.index == before.index + 1:
            n_steps = member.step - before.step
            sums[i] = Sum.empty(member.step, n_steps, not joined, n_blocks, lags)
            joined = True
        else:
            joined = False
    return sums


def _read(member: Member, entries: Mapping[str, Entry], group: Group) -> dict[str, torch.Tensor]:
    with member.open() as reader:
        return {
            piece.key: real(reader.read(entries[piece.tensor].raw_name, piece.start, piece.stop))
            for piece in group.pieces
        }
