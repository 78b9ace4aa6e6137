"""Tied weights: one parameter that a file holds under several names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch

from ..stream.labels import label
from .readers import CheckpointReader
from .scan import Stretch
from .structure import Entry, Structure

_PART = 2**22  # entries read at a time: 16 MB of float32
_SAMPLE = 2**14  # entries that are compared first: tensors of equal shapes are many, tied ones few


def tied_names(stretch: Stretch) -> dict[str, list[str]]:
    """Tensors that are equal to the bit at both ends of a stretch of checkpoints, and are not constant.

    Copies that merely begin equal (a deep copy of a layer) have parted by the end, and tensors of one single
    value (gains of ones, biases of zeros) are equal without being tied.

    Args:
        stretch: Checkpoints of one structure; the first and the last are read.

    Returns:
        The name that is kept, an embedding's where there is one, to the others that are it again.

    Raises:
        Unreadable: If one of the two cannot be read.
    """
    structure = stretch.structure
    alike: dict[object, list[str]] = {}
    for name, entry in structure.entries.items():
        alike.setdefault((entry.shape, entry.dtype), []).append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    ends = (stretch.members[0], stretch.members[-1])
    for limit in (_SAMPLE, None):
        for member in ends:
            if groups:
                with member.open() as reader:
                    groups = [part for names in groups for part in _equal(structure, reader, names, limit)]
    return dict(_keep_one(structure, names) for names in groups)


def _equal(
    structure: Structure, reader: CheckpointReader, names: Iterable[str], limit: int | None
) -> list[list[str]]:
    """Groups of at least two names whose first entries, or all, are equal and (where all are read) not constant."""
    found: dict[bytes, list[str]] = {}
    for name in names:
        digest = _digest(reader, structure.entries[name], limit)
        if digest is not None:
            found.setdefault(digest, []).append(name)
    return [group for group in found.values() if len(group) > 1]


def _digest(reader: CheckpointReader, entry: Entry, limit: int | None) -> bytes | None:
    """Checksum of a tensor's bytes, read in parts; None if all entries are one value.

    Args:
        reader: Of the checkpoint.
        entry: The tensor.
        limit: Read whole rows of about that many entries only, whatever they hold; None reads all.
    """
    checksum = hashlib.sha256()
    first, constant = None, limit is None or entry.numel <= limit
    for part in _parts(reader, entry, limit):
        flat = part.contiguous().reshape(-1)
        first = flat[0] if first is None else first
        constant = constant and bool((flat == first).all())
        checksum.update(flat.view(torch.uint8).numpy().data)
    return None if constant else checksum.digest()


def _parts(reader: CheckpointReader, entry: Entry, limit: int | None) -> Iterator[torch.Tensor]:
    n_rows = entry.shape[0] if len(entry.shape) > entry.is_complex else 1
    if entry.numel <= min(_PART, limit or _PART) or n_rows == 1:
        yield reader.read(entry.raw_name)
        return
    step = max(1, (limit or _PART) // (entry.numel // n_rows))
    for start in range(0, n_rows if limit is None else step, step):
        yield reader.read(entry.raw_name, start, min(start + step, n_rows))


def _keep_one(structure: Structure, names: list[str]) -> tuple[str, list[str]]:
    def is_embedding(name: str) -> bool:
        return label(name, structure.entries[name].shape).kind == "embedding"

    kept = next(filter(is_embedding, names), names[0])
    return kept, [name for name in names if name != kept]
