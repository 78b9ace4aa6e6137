"""One pass over a series whose checkpoints are dropped as it goes: all rings at once, in memory or in a file.

The sums are those of ``rows.part_sums`` to the bit: the same tiles, appended in the same order.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError, OutputError
from ..stream.cost import human_bytes
from .downloads import Fetched, HubCheckpoint, Ledger, Progress, fetch
from .groups import Tile
from .hub import HubSeries
from .plan import Choices, Plan, make_plan
from .resume import Say
from .rows import Sums, TileRing, find_updates, read_tile
from .scan import Member, Scan, Stretch, Unreadable
from .series import Series
from .structure import Structure, describe_change, structure_of
from .write import Segment


def one_pass(
    source: HubSeries, choices: Choices, folder: Path | None, say: Say, progress: Progress | None
) -> tuple[Series, Scan, list[Segment]]:
    """Fetch, use and drop one revision after another; the last one is fetched first, as tied weights show there.

    Args:
        source: The revisions.
        choices: As for any analysis; the workers are not used.
        folder: Where a ring that does not fit into the memory is kept; None takes the system's folder for
            temporary files.
        say: Told what will be downloaded and kept.
        progress: Called after each revision.

    Raises:
        DataError: If a revision cannot be had, fewer than two can be read, or one cannot and ``choices.strict``.
        OutputError: If there is no room for the ring.
    """
    bad: dict[int, str] = {}
    while True:
        try:
            return _Pass(source, choices, folder, say, progress, bad).run()
        except Unreadable as error:  # some of its products have been added already
            if choices.strict:
                raise error.reason from error
            bad[error.index] = str(error)


@dataclass
class _Stretch:
    """What is under way: a stretch of revisions of one structure."""

    plan: Plan
    reason: str
    rings: list[TileRing]
    sums: list[Sums]  # of each part
    members: list[Member] = field(default_factory=list)


class _Pass:
    def __init__(
        self,
        source: HubSeries,
        choices: Choices,
        folder: Path | None,
        say: Say,
        progress: Progress | None,
        bad: dict[int, str],
    ) -> None:
        self._source, self._choices, self._folder = source, choices, folder
        self._say, self._progress = say, progress
        self._skipped = dict(bad)
        self._ledger = Ledger(folder)
        self._last: Fetched | None = None
        self._checkpoints: list[HubCheckpoint] = []
        self._done: list[tuple[Stretch, _Stretch]] = []
        self._open: _Stretch | None = None
        self._buffers = ExitStack()

    def run(self) -> tuple[Series, Scan, list[Segment]]:
        revisions = self._source.revisions
        largest = sorted((revision.n_bytes for revision in revisions), reverse=True)[:3]
        self._say(
            f"{human_bytes(self._source.n_bytes)} of weights in {len(revisions)} revisions of {self._source.repo} "
            f"are downloaded one at a time, unless the cache has them, and dropped: at most "
            f"{human_bytes(sum(largest))} of them lie on the disk at once"
        )
        with self._buffers:
            try:
                self._last = fetch(self._source, revisions[-1], self._ledger)
                for index, revision in enumerate(revisions):
                    last = index == len(revisions) - 1
                    fetched = self._last if last else fetch(self._source, revision, self._ledger)
                    self._checkpoints.append(fetched.checkpoint)
                    try:
                        self._take(index, fetched.checkpoint)
                    finally:
                        if not last:
                            fetched.drop()
                    if self._progress is not None:
                        self._progress(index + 1, len(revisions), revision.name)
            finally:
                if self._last is not None:
                    self._last.drop()
            self._finish()
        series = Series(self._source.source, tuple(self._checkpoints), self._source.ignored)
        return series, Scan([stretch for stretch, _ in self._done], self._skipped), self._segments()

    def _take(self, index: int, checkpoint: HubCheckpoint) -> None:
        if index in self._skipped:
            return
        try:
            with checkpoint.open() as reader:
                member = Member(index, checkpoint, reader.mark)
                structure = structure_of(reader.tensors, self._choices.params)
        except DataError as error:
            if self._choices.strict:
                raise
            self._skipped[index] = str(error)
            return
        if self._open is None or self._open.plan.stretch.structure != structure:
            self._begin(member, structure)
        assert self._open is not None
        self._append(self._open, member)

    def _begin(self, member: Member, structure: Structure) -> None:
        before = self._open
        reason = "start" if before is None else describe_change(before.plan.stretch.structure, structure)
        self._finish()
        ends = (member, self._last_member(structure) or member)
        plan = make_plan(Stretch(structure, ends, reason), self._choices)
        tiles = [tile for part in plan.parts for tile in part.tiles]
        lags, longest = self._choices.lags, len(self._source.revisions) - 1
        n_bytes = sum(tile.n_bytes for tile in tiles)
        if n_bytes <= self._choices.memory_bytes:
            self._say(f"the ring of {human_bytes(n_bytes)} is kept in memory")
            rings = [TileRing(lags) for _ in tiles]
        else:
            path = self._buffers.enter_context(_scratch(self._folder))
            self._say(f"the ring of {human_bytes(n_bytes)} is kept in {path}, as memory_bytes is less")
            rings = [_FileRing(lags, path / f"{i}") for i in range(len(tiles))]
        sums = [Sums.zeros(longest, len(part.columns), lags) for part in plan.parts]
        self._open = _Stretch(plan, reason, rings, sums)

    def _last_member(self, structure: Structure) -> Member | None:
        """The last revision, where it is of this structure."""
        assert self._last is not None
        index = len(self._source.revisions) - 1
        if index in self._skipped:
            return None
        try:
            with self._last.checkpoint.open() as reader:
                same = structure_of(reader.tensors, self._choices.params) == structure
                return Member(index, self._last.checkpoint, reader.mark) if same else None
        except DataError:
            return None  # it is told when its turn comes

    def _append(self, stretch: _Stretch, member: Member) -> None:
        stretch.members.append(member)
        updates = find_updates(stretch.members)
        u = len(updates) - 1
        joins = bool(updates) and updates[-1].member == len(stretch.members) - 1
        rings = iter(stretch.rings)
        entries = stretch.plan.structure.entries
        with member.open() as reader:
            for part, sums in zip(stretch.plan.parts, stretch.sums, strict=True):
                place = {column: i for i, column in enumerate(part.columns)}
                for tile in part.tiles:
                    ring, began = next(rings), time.perf_counter()
                    tensors = read_tile(reader, entries, tile)
                    if joins:
                        row, error_norm2 = ring.append(tile, tensors)
                        columns = [place[column] for column in tile.columns]
                        sums.add_row(u, columns, row, error_norm2, time.perf_counter() - began)
                    else:
                        ring.start(tile, tensors)

    def _finish(self) -> None:
        stretch, self._open = self._open, None
        if stretch is not None:
            members = tuple(stretch.members)
            self._done.append((Stretch(stretch.plan.stretch.structure, members, stretch.reason), stretch))
            stretch.rings = []
        n_usable = sum(len(done.members) for done, _ in self._done)
        if len(self._checkpoints) == len(self._source.revisions) and n_usable < 2:
            raise DataError(
                f"at least 2 checkpoints are needed to form an update; {self._source.source} holds "
                f"{len(self._checkpoints)}, of which {n_usable} can be read. The first problem: "
                f"{self._skipped[min(self._skipped)]}"
            )

    def _segments(self) -> list[Segment]:
        segments = []
        for done, stretch in self._done:
            plan, updates = stretch.plan, find_updates(done.members)
            total = Sums.zeros(len(updates), len(plan.blocks.names), plan.job.lags)
            for part, sums in zip(plan.parts, stretch.sums, strict=True):
                total.add(part.columns, sums.first(len(updates)))
            segments.append(Segment(done, plan.structure, plan.blocks, plan.tied, updates, total))
        return segments


class _FileRing(TileRing):
    """A ring whose buffers are mapped from a file. The file's room is taken first: a full disk is then an error with
    a sentence, and not a signal."""

    def __init__(self, lags: int, path: Path) -> None:
        super().__init__(lags)
        self._path = path

    def start(self, tile: Tile, tensors: dict[str, torch.Tensor]) -> None:  # type: ignore[override]
        fresh = self._ring is None
        super().start(tile, tensors)
        if fresh:
            assert self._ring is not None
            for k, shard in enumerate(self._ring.shards):
                updates = _mapped(f"{self._path}.{k}.updates", shard.updates)
                snapshot = _mapped(f"{self._path}.{k}.snapshot", shard.snapshot)
                shard.updates, shard.snapshot = updates, snapshot


def _mapped(path: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's contents in a file of its own."""
    n_bytes = tensor.numel() * tensor.element_size()
    try:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
    except OSError as error:
        raise OutputError(
            f"the ring must have room on the disk of {os.path.dirname(path)}; got {error.strerror}. Free some, raise "
            "memory_bytes, or use fewer lags."
        ) from error
    array = np.memmap(path, dtype=tensor.numpy().dtype, mode="r+", shape=tuple(tensor.shape))
    mapped = torch.from_numpy(array)
    mapped.copy_(tensor)
    return mapped


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for the ring, gone when it is done."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix="ring-", dir=folder))
    except OSError as error:
        raise OutputError(f"{folder} must be writable; got {error.strerror}. Choose another folder.") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
