"""Which box of a tensor a rank holds, from the shape of the mesh and the placements alone.

Pure functions: no process group is needed, so that whole meshes are tested in one process.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ..layout import Layout


@dataclass(frozen=True)
class Placement:
    """How a tensor lies along one dimension of a mesh.

    Attributes:
        kind: ``"replicate"``, ``"shard"``, ``"strided"`` (FSDP over tensor parallelism: this dimension cuts what the
            dimensions to its right have left) or ``"partial"``.
        dim: Dimension of the tensor that is cut.
        split: For ``"strided"``: number of pieces that the dimensions to the right make.
    """

    kind: str
    dim: int = 0
    split: int = 1


def chunk(indices: Sequence[int], n: int, i: int) -> Sequence[int]:
    """Piece ``i`` of ``n`` as ``torch.chunk`` cuts: pieces of equal size, the last ones smaller or empty.

    Example:
        >>> [list(chunk(range(5), 4, i)) for i in range(4)]
        [[0, 1], [2, 3], [4], []]
    """
    size = -(-len(indices) // n)
    return indices[i * size : (i + 1) * size]


def local_layout(
    shape: Sequence[int],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    placements: Sequence[Placement],
    local_shape: Sequence[int],
) -> Layout | None:
    """The box of a tensor that lies at one coordinate of a mesh.

    Strided placements are read in two ways: as DTensor defines them, and as FSDP makes them, which cuts the tensor
    parallel piece. The two differ for some uneven pieces (pytorch#168134); the shape of the local tensor decides.

    Args:
        shape: Of the whole tensor.
        mesh_shape: Sizes of the mesh's dimensions.
        coordinate: Of the rank in the mesh.
        placements: One for each dimension of the mesh.
        local_shape: Of the tensor that the rank really holds.

    Returns:
        The box; None where the rank's entries make up none, or it cannot be told which they are.

    Example:
        >>> local_layout((5, 3), (2,), (1,), (Placement("shard", 0),), (2, 3))
        Layout(global_shape=(5, 3), offset=(3, 0), shape=(2, 3))
    """
    found = set()
    for reading in (_as_defined, _as_fsdp_makes):
        lines = [
            reading(n, dim, tuple(mesh_shape), tuple(coordinate), tuple(placements)) for dim, n in enumerate(shape)
        ]
        if all(map(_consecutive, lines)):
            box = Layout(tuple(shape), tuple(line[0] if line else 0 for line in lines), tuple(map(len, lines)))
            if box.shape == tuple(local_shape) or (box.n_entries == 0 and 0 in local_shape):
                found.add(Layout(box.global_shape, box.offset, tuple(local_shape)))
    return found.pop() if len(found) == 1 else None


def _as_defined(
    n: int, dim: int, mesh_shape: tuple[int, ...], coordinate: tuple[int, ...], placements: tuple[Placement, ...]
) -> Sequence[int]:
    line: Sequence[int] = range(n)
    for size, i, placement in zip(mesh_shape, coordinate, placements, strict=True):
        if placement.dim != dim:
            continue
        if placement.kind == "shard":
            line = chunk(line, size, i)
        elif placement.kind == "strided":
            pieces = [chunk(line, placement.split, j) for j in range(placement.split)]
            line = [index for piece in pieces for index in chunk(piece, size, i)]
    return line


def _as_fsdp_makes(
    n: int, dim: int, mesh_shape: tuple[int, ...], coordinate: tuple[int, ...], placements: tuple[Placement, ...]
) -> Sequence[int]:
    cuts = list(zip(mesh_shape, coordinate, placements, strict=True))
    line: Sequence[int] = range(n)
    for kind in ("shard", "strided"):
        for size, i, placement in cuts if kind == "shard" else reversed(cuts):
            if placement.kind == kind and placement.dim == dim:
                line = chunk(line, size, i)
    return line


def _consecutive(line: Sequence[int]) -> bool:
    return isinstance(line, range) or all(b == a + 1 for a, b in itertools.pairwise(line))
