"""What a checkpoint holds at the ends of its tree: tensors, as places in files, or the reason why they are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch

from .header import FLOATING, BadFile, TensorInfo
from .views import View, torch_dtype

_MAX_DIMS = 64


@dataclass(frozen=True)
class Piece:
    """A box of a tensor that lies in one place.

    Attributes:
        corner: Index of its first entry in the tensor.
        shape: Its shape.
        view: Finds the place; may have to read a small header first.
    """

    corner: tuple[int, ...]
    shape: tuple[int, ...]
    view: Callable[[], View]


@dataclass(frozen=True)
class Leaf:
    """A tensor of a checkpoint.

    Attributes:
        dtype: As in `TensorInfo`.
        shape: Its shape.
        pieces: Boxes that fill it; empty where it cannot be read.
        problem: Why it cannot be read: "a sparse tensor" and so on.
        offset: Of a safetensors file's tensor, for `TensorInfo`.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    pieces: tuple[Piece, ...] = ()
    problem: str | None = None
    offset: int = 0

    @classmethod
    def at(cls, view: View, offset: int = 0) -> Leaf:
        """A tensor in one piece."""
        return cls(view.dtype, view.shape, (Piece((0,) * len(view.shape), view.shape, lambda: view),), None, offset)

    @property
    def floating(self) -> bool:
        """Whether it can be a trained parameter."""
        return self.dtype in FLOATING

    def info(self, name: str) -> TensorInfo:
        """Its entry in a reader's table."""
        return TensorInfo(name, self.shape, self.dtype, self.offset)

    def read(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """The tensor, or its rows ``start:stop``; only pieces that hold some of them are read.

        Raises:
            BadFile: If it cannot be read.
        """
        if self.problem is not None:
            raise BadFile(f"it is {self.problem}")
        if stop is None:
            return self._read_rows(None)
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise BadFile(f"it has no rows {start} to {stop}; its shape is {self.shape}")
        return self._read_rows((start, stop))

    def _read_rows(self, rows: tuple[int, int] | None) -> torch.Tensor:
        if len(self.pieces) == 1:
            view = self.pieces[0].view()
            return view.read() if rows is None else view.rows(*rows).read()
        first, last = rows or (0, self.shape[0])
        whole = torch.empty((last - first, *self.shape[1:]), dtype=torch_dtype(self.dtype))
        for piece in self.pieces:
            low, high = max(first, piece.corner[0]), min(last, piece.corner[0] + piece.shape[0])
            if low < high:
                part = piece.view().rows(low - piece.corner[0], high - piece.corner[0]).read()
                box = [slice(low - first, high - first)]
                box += [slice(c, c + n) for c, n in zip(piece.corner[1:], piece.shape[1:], strict=True)]
                whole[tuple(box)] = part
        return whole


def is_shape(value: object) -> TypeGuard[Sequence[int]]:
    """Whether something out of a file can be a shape: few natural numbers, of a product that fits 63 bits."""
    if not isinstance(value, (tuple, list)) or len(value) > _MAX_DIMS:
        return False
    product = 1
    for n in value:
        if type(n) is not int or n < 0:
            return False
        product *= max(n, 1)
        if product >= 2**63:
            return False
    return True


def fill(shape: Sequence[int], boxes: Sequence[tuple[Sequence[int], Sequence[int]]]) -> str | None:
    """Why boxes (corner, shape) do not fill a tensor exactly; None if they do.

    Shards form a grid: the intervals along each dimension follow each other and every combination of them is there.

    Example:
        >>> fill((4,), [((0,), (2,)), ((2,), (2,))]), fill((4,), [((0,), (2,)), ((3,), (1,))])
        (None, 'they leave a gap or overlap along dimension 0')
    """
    boxes = [box for box in boxes if math.prod(box[1]) > 0]
    if math.prod(shape) and not boxes:
        return "none is there"
    n_cells = 1
    for dim, size in enumerate(shape):
        end = 0
        intervals = sorted({(corner[dim], n[dim]) for corner, n in boxes})
        for begin, n in intervals:
            if begin != end:
                return f"they leave a gap or overlap along dimension {dim}"
            end += n
        if end != size and boxes:
            return f"they end at {end} of {size} along dimension {dim}"
        n_cells *= len(intervals)
    if math.prod(shape) and (n_cells != len(boxes) or len({tuple(corner) for corner, _ in boxes}) != n_cells):
        return "some are missing or twice there"
    return None
