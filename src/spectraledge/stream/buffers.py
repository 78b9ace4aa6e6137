"""Room for a ring: in memory, or in a file that is mapped."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from ..errors import OutputError, SettingError


def file_buffer(folder: str | os.PathLike[str], shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros in a file of ``folder``, mapped into memory.

    The file has no name: it is unlinked as soon as it is open, so that it goes when the tensor goes or the process
    ends, however it ends, and nobody can cut it short under the mapping. All its blocks are allotted here: a disk
    that is full is met now, as an error, and not later as a bus error.

    Args:
        folder: Where the file system has room; made where missing.
        shape: Of the tensor.
        dtype: Of the tensor.

    Raises:
        OutputError: If the folder cannot be written, or its disk has no room.
        SettingError: If the folder is kept in memory (tmpfs), where a file saves nothing.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes == 0:
        return torch.zeros(shape, dtype=dtype)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _in_memory(folder):
            raise SettingError(
                f'store="file" needs a folder on a disk; {folder} is kept in memory. Choose another folder, or '
                'store="host".'
            )
        descriptor, name = tempfile.mkstemp(prefix=".ring-", suffix=".bin", dir=folder)
        try:
            os.unlink(name)
            os.posix_fallocate(descriptor, 0, n_bytes)
            memory = mmap.mmap(descriptor, n_bytes, flags=mmap.MAP_SHARED)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutputError(
                f"the disk of {folder} must have room for the ring; it lacks some of {n_bytes / 1e9:.3g} GB. "
                "Free some, choose another folder, or use fewer lags."
            ) from error
        raise OutputError(
            f"{folder} must be writable for the ring's file; got {error.strerror or error}. Choose another folder."
        ) from error
    # The array keeps the mapping alive, the tensor the array
    bytes_there = torch.from_numpy(np.frombuffer(memory, dtype=np.uint8))
    return bytes_there.view(dtype).view(shape)


def _in_memory(folder: Path) -> bool:
    """Whether a folder lies on tmpfs or ramfs, as far as the system tells."""
    try:
        device = os.stat(folder).st_dev
        with open("/proc/self/mountinfo") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                if left.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    return right.split()[0] in ("tmpfs", "ramfs")
    except (OSError, IndexError):
        pass
    return False
