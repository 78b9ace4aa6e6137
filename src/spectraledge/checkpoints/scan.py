"""What a series consists of before any weight is read: which checkpoints can be used, and where structure changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import DataError
from ..stream.parameters import ParameterFilter
from .readers import CheckpointReader, Mark
from .series import Checkpoint, Series
from .structure import Structure, describe_change, structure_of


def checkpoint_name(checkpoint: Checkpoint) -> str:
    """What to call a checkpoint: the revision of a repository, or the name of its file or folder."""
    return getattr(checkpoint, "revision", "") or checkpoint.path.name


class Unreadable(Exception):
    """A checkpoint that passed its check and yet cannot be read."""

    def __init__(self, index: int, reason: DataError) -> None:
        super().__init__(str(reason))
        self.index, self.reason = index, reason

    def __reduce__(self) -> tuple[type[Unreadable], tuple[int, DataError]]:
        """It may happen in another process."""
        return Unreadable, (self.index, self.reason)


@dataclass(frozen=True)
class Member:
    """A checkpoint that can be used.

    Attributes:
        index: Its place in the series.
        checkpoint: Where it is.
        mark: What identifies the files that were checked.
    """

    index: int
    checkpoint: Checkpoint
    mark: Mark

    @property
    def step(self) -> int:
        """Training step."""
        return self.checkpoint.step

    @property
    def name(self) -> str:
        """What to call it."""
        return checkpoint_name(self.checkpoint)

    def opened(self) -> CheckpointReader:
        """The checkpoint that was checked, open for reading.

        Raises:
            DataError: If it cannot be read, or is another one by now.
        """
        reader = self.checkpoint.open()
        if reader.mark != self.mark:
            reader.close()
            raise DataError(
                f"{self.checkpoint.path} must stay as it is while it is analyzed; it was changed. Analyze it again."
            )
        return reader

    @contextmanager
    def open(self) -> Iterator[CheckpointReader]:
        """The same, its errors turned into ``Unreadable``.

        Raises:
            Unreadable: If it is another one by now, or it or a tensor of it cannot be read.
        """
        try:
            with self.opened() as reader:
                yield reader
        except DataError as error:
            raise Unreadable(self.index, error) from error


@dataclass(frozen=True)
class Stretch:
    """Neighbouring members of equal structure: what becomes one segment of a recording."""

    structure: Structure
    members: tuple[Member, ...]
    reason: str


@dataclass
class Scan:
    """The series as it was found.

    Attributes:
        stretches: Usable members by structure, in order.
        skipped: Why each unusable checkpoint is skipped, by its place in the series.
    """

    stretches: list[Stretch] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)


def scan(series: Series, params: ParameterFilter | None, bad: dict[int, str], *, strict: bool) -> Scan:
    """Check every checkpoint's header and cut the series where its structure changes.

    Args:
        series: Checkpoints in order.
        params: Filter of tensors.
        bad: Checkpoints already known to be unusable, by place, with the reason.
        strict: Whether to raise on the first that cannot be used.

    Raises:
        DataError: If fewer than two can be used, or one cannot and ``strict``.
        SettingError: If ``params`` leaves nothing.
    """
    skipped = dict(bad)
    stretches: list[tuple[Structure, list[Member], str]] = []
    for index, checkpoint in enumerate(series.checkpoints):
        if index in skipped:
            continue
        try:
            with checkpoint.open() as reader:
                member = Member(index, checkpoint, reader.mark)
                structure = structure_of(reader.tensors, params)
        except DataError as error:
            if strict:
                raise
            skipped[index] = str(error)
            continue
        if stretches and stretches[-1][0] == structure:
            stretches[-1][1].append(member)
        else:
            reason = describe_change(stretches[-1][0], structure) if stretches else "start"
            stretches.append((structure, [member], reason))
    n_usable = sum(len(members) for _, members, _ in stretches)
    if n_usable < 2:
        raise _too_few(series, n_usable, skipped)
    return Scan([Stretch(s, tuple(members), reason) for s, members, reason in stretches], skipped)


def _too_few(series: Series, n_usable: int, skipped: dict[int, str]) -> DataError:
    reasons: Sequence[str] = [skipped[index] for index in sorted(skipped)]
    return DataError(
        f"at least 2 checkpoints are needed to form an update; {series.source} holds {len(series.checkpoints)}, of "
        f"which {n_usable} can be read. The first problem: {reasons[0]}"
    )
