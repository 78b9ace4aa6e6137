"""Checkpoints kept open while a part of each is read: opening one means checking its header again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from ..errors import DataError
from .files import MAX_OPEN
from .readers import CheckpointReader
from .scan import Member, Unreadable


class OpenedMembers:
    """Readers of the members of a series, opened at first use. A context manager.

    As many stay open as there are descriptors for; others are opened anew for each read. Every reader is checked
    against what was scanned, and tells by itself when its file changes under it.

    Args:
        members: In order.
        share: Part of the process's descriptors that may be used.
    """

    def __init__(self, members: Sequence[Member], share: float) -> None:
        self._members = members
        self._readers: dict[int, CheckpointReader] = {}
        self._left = int(descriptor_limit() * share)
        self._stack = ExitStack()

    @contextmanager
    def reader(self, i: int) -> Iterator[CheckpointReader]:
        """The reader of member ``i``.

        Raises:
            Unreadable: If it is another checkpoint by now, or it or a tensor of it cannot be read.
        """
        member = self._members[i]
        needed = min(len(member.mark), MAX_OPEN)
        if i not in self._readers and needed > self._left:
            with member.open() as reader:
                yield reader
            return
        try:
            if i not in self._readers:
                self._readers[i] = self._stack.enter_context(member.opened())
                self._left -= needed
            yield self._readers[i]
        except DataError as error:
            raise Unreadable(member.index, error) from error

    def __enter__(self) -> OpenedMembers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.clear()
        self._stack.close()


def descriptor_limit() -> int:
    """Descriptors that this process may hold."""
    try:
        import resource
    except ImportError:  # not on Windows, where a process may hold 512 by default
        return 512
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4096 if soft == resource.RLIM_INFINITY else min(soft, 4096)
