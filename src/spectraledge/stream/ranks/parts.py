"""The part of a partition into blocks that lies on one rank."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from ...errors import SettingError
from ..blocks import Atom, Blocks
from ..layout import Layout


def local_blocks(
    blocks: Blocks, layouts: Mapping[str, Layout | None], shapes: Mapping[str, tuple[int, ...]]
) -> Blocks:
    """Blocks with the entries that this rank counts; all blocks are there, some may be empty.

    Args:
        blocks: Of whole parameters.
        layouts: Where this rank's entries lie, for the parameters it counts; None where they make up no box.
        shapes: Of what it holds of them.

    Raises:
        SettingError: If a slice of a parameter, such as one head's, cannot be found in what this rank holds.

    Example:
        >>> from spectraledge.stream.blocks import make_blocks
        >>> blocks = make_blocks({"0.weight": (4, 3), "1.weight": (2, 4)})
        >>> half = local_blocks(blocks, {"0.weight": Layout((4, 3), (2, 0), (2, 3))}, {"0.weight": (2, 3)})
        >>> [[atom.n_parameters for atom in block] for block in half.atoms]
        [[6], []]
    """
    parts = []
    for block in blocks.atoms:
        pieces = [_part(atom, layouts[atom.name], shapes[atom.name]) for atom in block if atom.name in layouts]
        parts.append(tuple(piece for piece in pieces if piece is not None and piece.n_parameters))
    return Blocks(blocks.names, tuple(parts), blocks.scheme, blocks.tensors)


def offset_of(atom: Atom, layout: Layout) -> tuple[int, ...]:
    """First index of a local atom in the whole (or flattened) parameter."""
    return tuple(o + (atom.start if d == atom.dim else 0) for d, o in enumerate(layout.offset))


def size_of(atom: Atom) -> tuple[int, ...]:
    """Shape of a local atom."""
    return tuple(atom.stop - atom.start if d == atom.dim else n for d, n in enumerate(atom.shape))


def _part(atom: Atom, layout: Layout | None, shape: tuple[int, ...]) -> Atom | None:
    if layout is not None and layout.is_whole and layout.global_shape == atom.shape:
        return atom
    if atom.dim is None:
        return dataclasses.replace(atom, shape=shape)
    if layout is None:
        raise SettingError(
            f"a slice of a parameter needs pieces that are boxes; those of {atom.name} are strided over ranks. "
            'Use blocks="layer" or another scheme that keeps tensors whole.'
        )
    if layout.global_shape == atom.shape:
        dim, scale = atom.dim, 1
    elif atom.dim == 0:  # rows of a flattened parameter are a run of its entries
        dim, scale = 0, math.prod(atom.shape[1:])
    else:
        raise SettingError(
            f"FSDP1 keeps runs of flattened parameters, in which columns of {atom.name} cannot be told apart. "
            'Use blocks="layer" or another scheme that keeps tensors whole, or FSDP2 (fully_shard).'
        )
    start = max(atom.start * scale - layout.offset[dim], 0)
    stop = min(atom.stop * scale - layout.offset[dim], layout.shape[dim])
    return dataclasses.replace(atom, shape=shape, dim=dim, start=start, stop=stop) if stop > start else None
