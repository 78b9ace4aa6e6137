"""Where the entries that this process holds lie in a tensor that several processes share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A box of a tensor: ``tensor[offset[0]:offset[0] + shape[0], ...]``.

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
