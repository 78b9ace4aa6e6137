"""How large a checkpoint's parameter vector is, from its header alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..stream.blocks import BlockScheme, make_blocks
from .folders import named_layout
from .readers import open_checkpoint
from .series import find_series
from .structure import structure_of


@dataclass(frozen=True)
class Size:
    """What a plan needs to know.

    Attributes:
        n_parameters: Entries; tied weights that the file holds twice count twice, as no data are read.
        n_blocks: Blocks of the scheme.
        itemsize: Bytes an entry of the ring.
    """

    n_parameters: int
    n_blocks: int
    itemsize: int


def checkpoint_size(
    path: str | os.PathLike[str], blocks: BlockScheme = "layer", heads: int | Mapping[str, int] | None = None
) -> Size:
    """Size of a checkpoint, or of the last one of a series.

    Args:
        path: A checkpoint, or a folder of several.
        blocks: As in ``attach``.
        heads: As in ``attach``.

    Raises:
        DataError: If there is no readable checkpoint.
        SettingError: If the blocks cannot be.
    """
    path = Path(path)
    is_one = not path.is_dir() or named_layout(path) is not None
    with open_checkpoint(path) if is_one else find_series(path).checkpoints[-1].open() as reader:
        entries = structure_of(reader.tensors).entries
    partition = make_blocks({name: entry.shape for name, entry in entries.items()}, blocks, heads)
    itemsize = 8 if any(entry.itemsize == 8 for entry in entries.values()) else 4
    return Size(partition.n_parameters, len(partition.names), itemsize)
