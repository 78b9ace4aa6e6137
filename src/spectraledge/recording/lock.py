"""One writer a recording: an advisory lock that dies with its process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError


def lock(descriptor: int, path: Path) -> bool:
    """Lock the file for this process; False where the file system has no locks.

    Raises:
        OutputError: If another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{path.parent} must have one writer; another process is recording into it. "
            "Wait for it to end, or choose another folder."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock of an existing recording file, so that no writer is at work on it.

    Raises:
        OutputError: If one is, or the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise OutputError(f"{path} must be writable; got {error.strerror}. Choose another folder.") from error
    try:
        lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def unlock(descriptor: int) -> None:
    """Let go of the lock, though copies of the descriptor may live on in child processes."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_UN)
