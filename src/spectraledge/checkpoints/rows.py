"""From checkpoints to sums of inner products, by the same ring that live training uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from ..stream.parameters import real
from ..stream.ring import Row, UpdateRing
from .groups import Part, Tile
from .noise import block_rounding
from .opened import OpenedMembers
from .readers import CheckpointReader
from .scan import Member
from .structure import Entry

Tick = Callable[[Member], None]


@dataclass(frozen=True)
class Update:
    """One update between neighbouring checkpoints.

    Attributes:
        member: Place among the members of the checkpoint that ends it.
        step: Step that ends it.
        n_steps: Steps it took.
        seam: Whether it does not join to the update before it.
    """

    member: int
    step: int
    n_steps: int
    seam: bool


@dataclass
class Sums:
    """What some entries contribute to the rows of all updates; sums over disjoint entries add up to rows.

    U updates, B blocks, L lags.

    Attributes:
        products: (U, B, L+1) [parameter^2]; a product that does not exist is NaN, and stays so in any sum.
        theta_dot: (U, B) [parameter^2].
        theta_norm2: (U, B) [parameter^2].
        unchanged: (U, B) entries.
        nonfinite: (U, B) entries.
        error_norm2: (U, B) rounding of half-precision weights [parameter^2], 0 for others.
        seconds: (U) time spent.
    """

    products: np.ndarray
    theta_dot: np.ndarray
    theta_norm2: np.ndarray
    unchanged: np.ndarray
    nonfinite: np.ndarray
    error_norm2: np.ndarray
    seconds: np.ndarray = field(compare=False)

    @classmethod
    def zeros(cls, n_updates: int, n_blocks: int, lags: int) -> Sums:
        """Of no entries."""
        shape = (n_updates, n_blocks)
        return cls(
            products=np.zeros((*shape, lags + 1)),
            theta_dot=np.zeros(shape),
            theta_norm2=np.zeros(shape),
            unchanged=np.zeros(shape),
            nonfinite=np.zeros(shape),
            error_norm2=np.zeros(shape),
            seconds=np.zeros(n_updates),
        )

    def first(self, n_updates: int) -> Sums:
        """Of the first updates alone."""
        return Sums(*(getattr(self, each.name)[:n_updates] for each in fields(self)))

    def add_row(self, u: int, columns: Sequence[int], row: Row, error_norm2: np.ndarray, seconds: float) -> None:
        """Add the row of one tile's update ``u``, for the blocks at ``columns``."""
        at = list(columns)
        self.products[u, at] += row.products
        self.theta_dot[u, at] += row.theta_dot
        self.theta_norm2[u, at] += row.theta_norm2
        self.unchanged[u, at] += row.unchanged
        self.nonfinite[u, at] += row.nonfinite
        self.error_norm2[u, at] += error_norm2
        self.seconds[u] += seconds

    def add(self, columns: Sequence[int], part: Sums) -> None:
        """Add a part's sums, for the blocks at ``columns``."""
        at = list(columns)
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(part, each.name)
            if each.name == "seconds":
                mine += theirs
            else:
                mine[:, at] += theirs


@dataclass(frozen=True)
class Job:
    """What is the same for all parts of a stretch; goes to workers as it is.

    Attributes:
        members: Checkpoints of one structure.
        entries: Tensors of that structure.
        updates: Those between neighbouring members.
        lags: Stored updates L.
    """

    members: tuple[Member, ...]
    entries: Mapping[str, Entry]
    updates: tuple[Update, ...]
    lags: int


def find_updates(members: Sequence[Member]) -> tuple[Update, ...]:
    """All updates between neighbouring members; none crosses a checkpoint that is missing between two."""
    updates: list[Update] = []
    joined = True  # the first update has nothing to join to
    for i in range(1, len(members)):
        before, member = members[i - 1], members[i]
        if member.index == before.index + 1:
            updates.append(Update(i, member.step, member.step - before.step, not joined))
            joined = True
        else:
            joined = False
    return tuple(updates)


class TileRing:
    """A ring for one tile after another, and what is read into it.

    Buffers are made anew only where the layout of a tile differs from the last one's.
    """

    def __init__(self, lags: int) -> None:
        self._lags = lags
        self._ring: UpdateRing | None = None
        self._layout: object = None
        self._rounding = np.zeros(0)

    def start(self, tile: Tile, tensors: Mapping[str, torch.Tensor]) -> None:
        """Begin with a first snapshot."""
        layout = (tile.blocks, tile.dtypes)
        if self._ring is None or layout != self._layout:
            self._ring = None  # the old buffers go before the new ones come
            self._ring, self._layout = UpdateRing(tile.blocks, tensors, self._lags), layout
        else:
            self._ring.reset(tensors)
        self._rounding = _rounding(tile, tensors)

    def append(self, tile: Tile, tensors: Mapping[str, torch.Tensor]) -> tuple[Row, np.ndarray]:
        """The next snapshot's row, and the rounding (B) that its update carries: that of both its ends."""
        assert self._ring is not None
        row = self._ring.append(tensors)
        before, self._rounding = self._rounding, _rounding(tile, tensors)
        return row, before + self._rounding


def _rounding(tile: Tile, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
    if not any(dtype in ("float16", "bfloat16") for dtype in tile.dtypes):
        return np.zeros(len(tile.columns))
    return block_rounding(tile.blocks, tensors)


def part_sums(job: Job, part: Part, tick: Tick | None = None, *, share: float = 0.5) -> Sums:
    """What the entries of a part contribute to all rows: its bytes are read once, from every member.

    Args:
        job: The stretch.
        part: What to do.
        tick: Called after each member of each tile.
        share: Part of this process's descriptors that may be used.

    Raises:
        Unreadable: If a checkpoint cannot be read, or is not the one that was checked.
    """
    place = {column: i for i, column in enumerate(part.columns)}
    ends = {update.member: u for u, update in enumerate(job.updates)}
    sums = Sums.zeros(len(job.updates), len(place), job.lags)
    ring = TileRing(job.lags)
    with OpenedMembers(job.members, share) as opened:
        for tile in part.tiles:
            columns = [place[column] for column in tile.columns]
            for i, member in enumerate(job.members):
                began = time.perf_counter()
                with opened.reader(i) as reader:
                    tensors = read_tile(reader, job.entries, tile)
                if i in ends:
                    row, error_norm2 = ring.append(tile, tensors)
                    sums.add_row(ends[i], columns, row, error_norm2, time.perf_counter() - began)
                else:
                    ring.start(tile, tensors)
                del tensors  # before the next are read: the tile's memory counts them once
                if tick is not None:
                    tick(member)
    return sums


def read_tile(reader: CheckpointReader, entries: Mapping[str, Entry], tile: Tile) -> dict[str, torch.Tensor]:
    """A tile's pieces by their places."""
    return {
        str(place): real(reader.read(entries[piece.tensor].raw_name, piece.start, piece.stop))
        for place, piece in enumerate(tile.pieces)
    }
