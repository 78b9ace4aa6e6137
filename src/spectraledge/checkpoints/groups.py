"""Cut the work on a parameter vector into parts whose rings fit into the memory that may be used.

Inner products add over disjoint sets of parameters, so a ring over a part gives a part of every block's row, and
the parts add up. Owns that partition; knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import SettingError
from ..stream.blocks import Atom, Blocks
from ..stream.cost import human_bytes
from .structure import Entry


@dataclass(frozen=True)
class Piece:
    """A tensor, or some of its rows along the first dimension.

    Attributes:
        tensor: Canonical name.
        start: First row.
        stop: Behind the last row; None for the whole tensor.
    """

    tensor: str
    start: int = 0
    stop: int | None = None

    @property
    def key(self) -> str:
        """A name of its own."""
        return self.tensor if self.stop is None else f"{self.tensor}[{self.start}:{self.stop}]"

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Its shape, given the tensor's."""
        return whole if self.stop is None else (self.stop - self.start, *whole[1:])


@dataclass(frozen=True)
class Group:
    """What one pass over the series takes care of.

    Attributes:
        pieces: What is read from each checkpoint.
        blocks: The part of the partition that they make up; atoms are named by the pieces' keys.
        n_bytes: Memory needed: ring, snapshot and what is read at a time.
    """

    pieces: tuple[Piece, ...]
    blocks: Blocks
    n_bytes: int


def make_groups(blocks: Blocks, entries: Mapping[str, Entry], lags: int, memory_bytes: int) -> list[Group]:
    """Groups of pieces, block by block, each within ``memory_bytes``.

    Args:
        blocks: The partition of the whole vector.
        entries: Its tensors.
        lags: Stored updates L.
        memory_bytes: Limit.

    Raises:
        SettingError: If a single row of a tensor does not fit.
    """
    groups: list[Group] = []
    pieces: list[Piece] = []
    used = 0
    for piece, n_bytes in _pieces(blocks, entries, lags, memory_bytes):
        if pieces and used + n_bytes > memory_bytes:
            groups.append(_group(blocks, pieces, entries, used))
            pieces, used = [], 0
        pieces.append(piece)
        used += n_bytes
    return [*groups, _group(blocks, pieces, entries, used)]


def entry_bytes(entry: Entry, lags: int) -> int:
    """Memory an entry takes: L updates, the snapshot, the tensor read, and its copy where it is converted."""
    copies = lags + 2 + (entry.dtype in ("float16", "bfloat16"))
    return copies * entry.itemsize


def _pieces(
    blocks: Blocks, entries: Mapping[str, Entry], lags: int, memory_bytes: int
) -> Iterator[tuple[Piece, int]]:
    names = dict.fromkeys(atom.name for block in blocks.atoms for atom in block)
    for name in names:
        entry = entries[name]
        each = entry_bytes(entry, lags)
        if entry.numel * each <= memory_bytes:
            yield Piece(name), entry.numel * each
            continue
        n_rows = entry.shape[0] if len(entry.shape) > entry.is_complex else 1
        row_bytes = entry.numel // n_rows * each
        step = memory_bytes // row_bytes
        if step < 1:
            raise SettingError(
                f"memory_bytes must hold {lags + 1} copies of one row of a tensor; a row of {name} "
                f"{entry.shape} needs {human_bytes(row_bytes)} and memory_bytes is {human_bytes(memory_bytes)}. "
                "Raise it, or use fewer lags."
            )
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            yield Piece(name, start, stop), (stop - start) * row_bytes


def _group(blocks: Blocks, pieces: list[Piece], entries: Mapping[str, Entry], n_bytes: int) -> Group:
    by_tensor: dict[str, list[Piece]] = {}
    for piece in pieces:
        by_tensor.setdefault(piece.tensor, []).append(piece)
    names, atoms = [], []
    for name, block in zip(blocks.names, blocks.atoms, strict=True):
        parts = [
            part for atom in block for piece in by_tensor.get(atom.name, []) for part in _intersection(atom, piece)
        ]
        if parts:
            names.append(name)
            atoms.append(tuple(parts))
    keys = tuple(piece.key for piece in pieces)
    return Group(tuple(pieces), Blocks(tuple(names), tuple(atoms), blocks.scheme, keys), n_bytes)


def _intersection(atom: Atom, piece: Piece) -> list[Atom]:
    """The part of an atom that lies in a piece, as a slice of that piece; empty if there is none."""
    if piece.stop is None:
        return [atom]
    shape = piece.shape(atom.shape)
    if atom.dim is None:
        return [Atom(piece.key, shape, atom.labels)]
    if atom.dim > 0:
        return [Atom(piece.key, shape, atom.labels, atom.dim, atom.start, atom.stop)]
    start, stop = max(atom.start, piece.start), min(atom.stop, piece.stop)
    if start >= stop:
        return []
    return [Atom(piece.key, shape, atom.labels, 0, start - piece.start, stop - piece.start)]
