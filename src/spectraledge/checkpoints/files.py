"""Opening and reading the bytes of checkpoint files: regular files inside one folder, by read calls, never mapped.

A memory map of a file that becomes shorter kills the process by a signal that no ``except`` catches; a read call
merely comes back short. Every file of a checkpoint goes through here, whatever its format.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from .header import BadFile, read_into

MAX_OPEN = 64  # descriptors a checkpoint may hold; more files than that take turns

FileMark = tuple[int, int, int, int]


class Files:
    """The files of one checkpoint.

    Args:
        root: Folder, with links resolved, that every file must lie in once links are followed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[Path, File] = {}
        self._open: OrderedDict[File, int] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, path: Path) -> File:
        """A file, opened and checked; the same one if it is asked for again.

        Raises:
            BadFile: If it is missing, no regular file, or lies outside.
        """
        if path not in self._files:
            descriptor, mark = self._descriptor(path)
            file = File(self, path, mark)
            self._keep(file, descriptor)
            self._files[path] = file
        return self._files[path]

    @property
    def marks(self) -> tuple[FileMark, ...]:
        """Device, inode, size and time of change of each file."""
        return tuple(file.mark for file in self._files.values())

    @property
    def n_bytes(self) -> int:
        """Size of all files but indexes."""
        return sum(file.size for file in self._files.values() if file.path.suffix != ".json")

    @contextmanager
    def borrowed(self, file: File) -> Iterator[int]:
        """The descriptor of a file, which may have been closed to make room.

        Where files take turns, only one thread reads at a time, as another would close what this one reads.

        Raises:
            BadFile: If the file is another one by now.
        """
        with ExitStack() as stack:
            with self._lock:
                descriptor = self._reopened(file)
                if len(self._files) > MAX_OPEN:
                    stack.enter_context(self._lock)
            yield descriptor

    def check(self) -> None:
        """Ask each file that is open whether it is still what it was.

        Raises:
            BadFile: If one is not.
        """
        with self._lock:
            for file, descriptor in self._open.items():
                if _mark(os.fstat(descriptor)) != file.mark:
                    raise BadFile(f"{file.path.name} changed while it was read")

    def close(self) -> None:
        """Close all descriptors."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _reopened(self, file: File) -> int:
        if file in self._open:
            self._open.move_to_end(file)
        else:
            descriptor, mark = self._descriptor(file.path)
            if mark != file.mark:
                os.close(descriptor)
                raise BadFile(f"{file.path.name} changed while it was read")
            self._keep(file, descriptor)
        return self._open[file]

    def _keep(self, file: File, descriptor: int) -> None:
        self._open[file] = descriptor
        if len(self._open) > MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])

    def _descriptor(self, path: Path) -> tuple[int, FileMark]:
        """Open a regular file inside the root, without hanging on a pipe or touching a device."""
        try:
            real = os.path.realpath(path)
            if os.path.commonpath([real, self._root]) != str(self._root):
                raise BadFile(f"{path.name} is a link that leads out of {self._root}, to {real}")
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(real, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise BadFile(f"{path.name} is missing") from None
        except ValueError as error:  # a NUL character in the name
            raise BadFile(f"{path.name!r} is no file name ({error})") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise BadFile(f"{path.name} is no regular file (a pipe, device or socket is never read)")
        return descriptor, _mark(status)


class File:
    """One open file.

    Attributes:
        path: Where it was found.
        mark: Device, inode, size and time of change when it was opened.
    """

    def __init__(self, files: Files, path: Path, mark: FileMark) -> None:
        self._files = files
        self.path, self.mark = path, mark

    @property
    def size(self) -> int:
        """Bytes when it was opened."""
        return self.mark[2]

    def pread(self, length: int, offset: int) -> bytes:
        """Up to so many bytes in one call."""
        with self._files.borrowed(self) as descriptor:
            return os.pread(descriptor, length, offset)

    def read(self, length: int, offset: int) -> bytes:
        """Some bytes.

        Raises:
            BadFile: If the file ends before.
        """
        return bytes(self.bytes(length, offset).numpy())

    def bytes(self, length: int, offset: int) -> torch.Tensor:
        """Some bytes as a tensor of uint8, read in place.

        Raises:
            BadFile: If the file ends before.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise BadFile(f"it is truncated: {offset + length} bytes are needed and the file has {self.size}")
        data = torch.empty(length, dtype=torch.uint8)
        with self._files.borrowed(self) as descriptor:
            read_into(descriptor, memoryview(data.numpy()), offset)  # type: ignore[arg-type]
        return data


class Window(io.RawIOBase):
    """Part of a file as a stream that can be read forwards.

    Args:
        file: The file.
        start: First byte.
        stop: Behind the last byte.
    """

    def __init__(self, file: File, start: int, stop: int) -> None:
        super().__init__()
        self._file, self._at, self._stop = file, start, stop

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As many bytes as there are and fit."""
        part = self._file.pread(min(len(buffer), self._stop - self._at), self._at)
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _mark(status: os.stat_result) -> FileMark:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
