"""Where the entries that this process holds lie in a tensor that several processes share."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A box of a tensor: ``tensor[offset[0]:offset[0] + shape[0], ...]``.

    A run of consecutive entries of a flattened tensor is a box too, of a tensor of one dimension.

    Attributes:
        global_shape: Shape of the whole tensor.
        offset: First index of the box along each dimension.
        shape: Shape of the box, that of the local tensor.
    """

    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Layout:
        """A tensor that one process holds alone.

        Example:
            >>> Layout.whole((4, 3)).offset
            (0, 0)
        """
        return cls(tuple(shape), (0,) * len(shape), tuple(shape))

    @property
    def n_entries(self) -> int:
        """Entries in the box.

        Example:
            >>> Layout((4, 3), (2, 0), (2, 3)).n_entries
            6
        """
        return math.prod(self.shape)

    @property
    def is_whole(self) -> bool:
        """Whether the box is the tensor."""
        return self.shape == self.global_shape
