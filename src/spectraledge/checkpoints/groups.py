"""Cut the work on a parameter vector into parts that are done one by one, and parts into tiles.

Inner products add over disjoint sets of parameters, so a ring over a tile gives a part of every block's row, and
the tiles add up. Owns that partition; knows nothing about files. The partition depends on the model, the lags and
the memory alone, never on how many parts are done at once: sums are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import SettingError
from ..stream.blocks import Atom, Blocks
from ..stream.cost import human_bytes
from ..stream.labels import Labels
from .structure import Entry

# Ring, snapshot and one checkpoint's entries of a tile: it stays in the last-level cache (32 MB, two workers) while
# the whole series passes. Per entry, 5 MB take 1.5 times as long, as calls are more; 64 MB, which stream from memory,
# 1.2 to 2 times (benchmarks/bench_analyze.py, lags=19).
TILE_BYTES = 14 * 2**20
TILES_IN_PART = 16  # files are opened once a part: by then that costs a few per cent
_ANY = Labels("", "other", False, None)


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

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Its shape, given the tensor's."""
        return whole if self.stop is None else (self.stop - self.start, *whole[1:])


@dataclass(frozen=True)
class Tile:
    """What one ring takes care of.

    Attributes:
        pieces: What is read from each checkpoint.
        columns: Blocks of the whole partition that they belong to.
        blocks: The part of these blocks that they make up. Names are those of places (pieces are "0", "1", ...), so
            that tiles of equal layout have equal blocks, and one ring serves them all.
        dtypes: Of the pieces.
        n_bytes: Memory needed: ring, snapshot and what is read at a time.
    """

    pieces: tuple[Piece, ...]
    columns: tuple[int, ...]
    blocks: Blocks
    dtypes: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True)
class Part:
    """What is read from all checkpoints in one go, and kept as one: some tiles."""

    tiles: tuple[Tile, ...]

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Blocks of the whole partition that it holds entries of, ascending."""
        return tuple(sorted({column for tile in self.tiles for column in tile.columns}))


def make_parts(blocks: Blocks, entries: Mapping[str, Entry], lags: int, memory_bytes: int) -> list[Part]:
    """Parts of tiles of pieces, in the order of the blocks.

    Args:
        blocks: The partition of the whole vector.
        entries: Its tensors.
        lags: Stored updates L.
        memory_bytes: Limit of a tile; those of more than ``TILE_BYTES`` are single rows.

    Raises:
        SettingError: If a single row of a tensor does not fit.
    """
    by_tensor: dict[str, list[tuple[int, Atom]]] = {}
    for column, block in enumerate(blocks.atoms):
        for atom in block:
            by_tensor.setdefault(atom.name, []).append((column, atom))
    tiles: list[Tile] = []
    pieces: list[Piece] = []
    used = 0
    for piece, n_bytes in _pieces(by_tensor, entries, lags, memory_bytes):
        if pieces and used + n_bytes > min(TILE_BYTES, memory_bytes):
            tiles.append(_tile(by_tensor, pieces, entries, used))
            pieces, used = [], 0
        pieces.append(piece)
        used += n_bytes
    tiles.append(_tile(by_tensor, pieces, entries, used))
    return [Part(tuple(tiles[i : i + TILES_IN_PART])) for i in range(0, len(tiles), TILES_IN_PART)]


def entry_bytes(entry: Entry, lags: int) -> int:
    """Memory an entry takes: L updates, the snapshot, the tensor read, and its copy where it is converted."""
    copies = lags + 2 + (entry.dtype in ("float16", "bfloat16"))
    return copies * entry.itemsize


def _pieces(
    names: Mapping[str, object], entries: Mapping[str, Entry], lags: int, memory_bytes: int
) -> Iterator[tuple[Piece, int]]:
    limit = min(TILE_BYTES, memory_bytes)
    for name in names:
        entry = entries[name]
        each = entry_bytes(entry, lags)
        if entry.numel * each <= limit:
            yield Piece(name), entry.numel * each
            continue
        n_rows = entry.shape[0] if len(entry.shape) > entry.is_complex else 1
        row_bytes = entry.numel // n_rows * each
        if row_bytes > memory_bytes:
            raise SettingError(
                f"memory_bytes must hold {lags + 1} copies of one row of a tensor; a row of {name} "
                f"{entry.shape} needs {human_bytes(row_bytes)} and memory_bytes is {human_bytes(memory_bytes)}. "
                "Raise it, or use fewer lags."
            )
        if n_rows == 1:
            yield Piece(name), row_bytes
            continue
        step = max(1, limit // row_bytes)
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            yield Piece(name, start, stop), (stop - start) * row_bytes


def _tile(
    by_tensor: Mapping[str, list[tuple[int, Atom]]],
    pieces: list[Piece],
    entries: Mapping[str, Entry],
    n_bytes: int,
) -> Tile:
    atoms: dict[int, list[Atom]] = {}
    for place, piece in enumerate(pieces):
        for column, atom in by_tensor[piece.tensor]:
            atoms.setdefault(column, []).extend(_intersection(atom, piece, str(place)))
    columns = tuple(sorted(column for column, parts in atoms.items() if parts))
    keys = tuple(str(place) for place in range(len(pieces)))
    blocks = Blocks(tuple(map(str, range(len(columns)))), tuple(tuple(atoms[c]) for c in columns), "tile", keys)
    dtypes = tuple(entries[piece.tensor].dtype for piece in pieces)
    return Tile(tuple(pieces), columns, blocks, dtypes, n_bytes)


def _intersection(atom: Atom, piece: Piece, key: str) -> list[Atom]:
    """The part of an atom that lies in a piece, as a slice of that piece; empty if there is none."""
    part = replace(atom, name=key, shape=piece.shape(atom.shape), labels=_ANY)
    if piece.stop is None or atom.dim is None or atom.dim > 0:
        return [part]
    start, stop = max(atom.start, piece.start), min(atom.stop, piece.stop)
    return [replace(part, start=start - piece.start, stop=stop - piece.start)] if start < stop else []
