"""The compiled inner loops of the rings, where the installation has them."""

from __future__ import annotations

import ctypes
import functools
import logging
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

from ..errors import SettingError

logger = logging.getLogger("spectraledge")


class Kernel:
    """Thin handle on the shared library; arrays in, partial sums out.

    Attributes:
        chunk: Entries that one set of partial sums covers.
        complete: Whether the library knows bfloat16 and sketches; one built before them does not.
    """

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
        self.complete = hasattr(library, "spectraledge_sketch")
        if self.complete:
            self._sketch = library.spectraledge_sketch
            self._sketch.restype = ctypes.c_int
            self._sketch.argtypes = [size, *[pointer] * 9, size, pointer, pointer, size]

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
        half: bool = False,
    ) -> np.ndarray:
        """Partial sums, shape ``(n_chunks, n_sums)``: see append.c for their order.

        ``theta`` holds addresses (uint64), ``updates``, ``snapshot`` and ``decay`` are addresses; ``half`` says that
        updates are stored in bfloat16.
        """
        n_sums = (2 if decay else 1) * len(rows) + (6 if decay else 4) + (1 if half else 0)
        sums = np.zeros((len(theta), n_sums))
        self._append(
            int(is_double) + (2 if half else 0),
            len(theta), theta.ctypes.data, offset.ctypes.data, length.ctypes.data,
            len(rows), rows.ctypes.data, row_stride, slot, updates, snapshot, decay, sums.ctypes.data,
            n_sums, n_threads,
        )  # fmt: skip
        return sums

    def sketch(
        self,
        *,
        task: np.ndarray,
        theta: np.ndarray,
        dtype: np.ndarray,
        key: np.ndarray,
        piles: np.ndarray,
        log2_size: int,
        n_threads: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sketches of the tasks, shape ``(n_tasks, m)``, and their squared norms and non-finite entries.

        Args:
            task: (n_tasks + 1) first record of each task, and the number of records.
            theta: (R) addresses (uint64).
            dtype: (R) codes, see sketch.c.
            key: (R) keys of the tensors (uint64).
            piles: (5, R) first global index, runs, their distance in memory and in the whole tensor, their length.
            log2_size: Binary logarithm of m.
            n_threads: At most so many threads.
        """
        n_tasks = len(task) - 1
        tables, scalars = np.zeros((n_tasks, 1 << log2_size)), np.zeros((n_tasks, 2))
        self._sketch(
            n_tasks, task.ctypes.data, theta.ctypes.data, dtype.ctypes.data, key.ctypes.data,
            *(column.ctypes.data for column in piles), log2_size, tables.ctypes.data, scalars.ctypes.data, n_threads,
        )  # fmt: skip
        return tables, scalars


def kernel_for(backend: str, *, whole: bool = False) -> Kernel | None:
    """The kernel that a backend means, or None for torch.

    Args:
        backend: ``"auto"`` (the kernel where there is one), ``"torch"`` or ``"compiled"``.
        whole: Whether a kernel built before it could do everything is of no use.

    Raises:
        SettingError: For another backend, or if ``"compiled"`` is asked for and not there.
    """
    if backend not in ("auto", "torch", "compiled"):
        raise SettingError(f'backend must be "auto", "torch" or "compiled"; got {backend!r}.')
    kernel = None if backend == "torch" else load_kernel()
    if kernel is not None and whole and not kernel.complete:
        kernel = None
    if backend == "compiled" and kernel is None:
        raise SettingError(
            'backend="compiled" needs the kernel, which this installation was built without; '
            "install a C compiler and reinstall, or use backend='auto'."
        )
    return kernel


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
