"""The compiled inner loop of the ring, where the installation has one."""

from __future__ import annotations

import ctypes
import functools
import logging
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

logger = logging.getLogger("spectraledge")


class Kernel:
    """Thin handle on the shared library; arrays in, partial sums out."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._append = library.spectraledge_append
        self._append.restype = ctypes.c_int
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._append.argtypes = [
            ctypes.c_int, size, pointer, pointer, pointer, size, pointer, size, size,
            pointer, pointer, pointer, pointer, size, size,
        ]  # fmt: skip
        library.spectraledge_chunk.restype = ctypes.c_int64
        self.chunk = int(library.spectraledge_chunk())

    def append(
        self,
        *,
        is_double: bool,
        theta: np.ndarray,
        offset: np.ndarray,
        length: np.ndarray,
        rows: np.ndarray,
        row_stride: int,
        slot: int,
        updates: int,
        snapshot: int,
        decay: int | None,
        n_threads: int,
    ) -> np.ndarray:
        """Partial sums, shape ``(n_chunks, n_sums)``: see append.c for their order.

        ``theta`` holds addresses (uint64), ``updates``, ``snapshot`` and ``decay`` are addresses.
        """
        n_sums = (2 if decay else 1) * len(rows) + (6 if decay else 4)
        sums = np.zeros((len(theta), n_sums))
        self._append(
            int(is_double), len(theta), theta.ctypes.data, offset.ctypes.data, length.ctypes.data,
            len(rows), rows.ctypes.data, row_stride, slot, updates, snapshot, decay, sums.ctypes.data,
            n_sums, n_threads,
        )  # fmt: skip
        return sums


@functools.cache
def load_kernel() -> Kernel | None:
    """The kernel built with this installation, or None."""
    folder = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        path = folder / f"_append{suffix}"
        if path.is_file():
            try:
                return Kernel(ctypes.CDLL(str(path)))
            except (OSError, AttributeError) as error:
                logger.warning("the compiled kernel %s cannot be loaded (%s); torch is used instead", path, error)
    return None
