"""A tensor as a place in a file: where its bytes begin, their type, and the strides by which it runs through them.

Owns reading such a place in bounded memory; knows no file format.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .files import File
from .header import BadFile

# Names of torch's types that are read, and what `TensorInfo.dtype` calls them.
CODES = {
    "float64": "float64", "float32": "float32", "float16": "float16", "bfloat16": "bfloat16",
    "complex64": "complex64", "complex128": "complex128", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip
_TORCH = {code: getattr(torch, name) for name, code in CODES.items()}
_BLOCK = 2**24  # bytes read at a time where much of what lies between is not wanted


def torch_dtype(code: str) -> torch.dtype:
    """torch's type of a `TensorInfo.dtype`."""
    return _TORCH[code]


@dataclass(frozen=True)
class View:
    """Entries of a file.

    Attributes:
        file: The file.
        start: Byte of it at which entry 0 lies.
        dtype: As in `TensorInfo`.
        shape: Its shape.
        strides: Distance of neighbours along each dimension, in entries.
        swapped: Whether the bytes of each number stand in the other order than this machine's.
    """

    file: File
    start: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    swapped: bool = False

    @classmethod
    def packed(cls, file: File, start: int, dtype: str, shape: Sequence[int], *, little: bool = True) -> View:
        """A tensor whose entries follow each other."""
        return cls(file, start, dtype, tuple(shape), packed_strides(shape), little != (sys.byteorder == "little"))

    @property
    def extent(self) -> int:
        """Entries from its first to behind its last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))

    @property
    def overlaps(self) -> bool:
        """Whether two of its entries may be one number in the file."""
        inside = 1
        for stride, n in sorted((s, n) for n, s in zip(self.shape, self.strides, strict=True) if n > 1):
            if stride < inside:
                return True
            inside += (n - 1) * stride
        return False

    def rows(self, start: int, stop: int) -> View:
        """A range along the first dimension."""
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise BadFile(f"rows {start} to {stop} are not in a tensor of shape {self.shape}")
        return self._part(0, start, stop)

    def read(self) -> torch.Tensor:
        """The entries, in a tensor of their own.

        Raises:
            BadFile: If the file is shorter than that.
        """
        dtype = torch_dtype(self.dtype)
        numel, extent = math.prod(self.shape), self.extent
        if numel == extent and self.strides == packed_strides(self.shape):
            return self._entries(extent, dtype).reshape(self.shape)
        # A transposed matrix is read whole and turned; of a column, only blocks of what it runs through are held.
        if extent <= 2 * numel or extent * dtype.itemsize <= _BLOCK:
            return self._entries(extent, dtype).as_strided(self.shape, self.strides).contiguous()
        whole = torch.empty(self.shape, dtype=dtype)
        dim = max(range(len(self.shape)), key=lambda d: (self.shape[d] - 1) * self.strides[d])
        half = self.shape[dim] // 2
        whole.narrow(dim, 0, half).copy_(self._part(dim, 0, half).read())
        whole.narrow(dim, half, self.shape[dim] - half).copy_(self._part(dim, half, self.shape[dim]).read())
        return whole

    def _part(self, dim: int, start: int, stop: int) -> View:
        shape = (*self.shape[:dim], stop - start, *self.shape[dim + 1 :])
        first = self.start + start * self.strides[dim] * torch_dtype(self.dtype).itemsize
        return replace(self, start=first, shape=shape)

    def _entries(self, n: int, dtype: torch.dtype) -> torch.Tensor:
        if n == 0:
            return torch.empty(0, dtype=dtype)
        data = self.file.bytes(n * dtype.itemsize, self.start)
        if self.swapped:
            unit = dtype.itemsize // (2 if dtype.is_complex else 1)
            data = data.reshape(-1, unit).flip(1).reshape(-1)
        return data.view(dtype)


def packed_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor whose entries follow each other.

    Example:
        >>> packed_strides((2, 3, 4))
        (12, 4, 1)
    """
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))
