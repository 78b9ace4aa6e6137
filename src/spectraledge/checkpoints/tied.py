"""Tied weights: one parameter that a file holds under several names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch

from ..stream.labels import label
from .readers import CheckpointReader
from .scan import Stretch
from .structure import Entry, Structure

_PART = 2**24  # entries read at a time: 64 MB of float32


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
    for member in (stretch.members[0], stretch.members[-1]):
        with member.open() as reader:
            groups = [part for names in groups for part in _equal(structure, reader, names)]
    return dict(_keep_one(structure, names) for names in groups)


def _equal(structure: Structure, reader: CheckpointReader, names: Iterable[str]) -> list[list[str]]:
    """Groups of at least two names whose data are equal and not constant."""
    found: dict[bytes, list[str]] = {}
    for name in names:
        digest = _digest(reader, structure.entries[name])
        if digest is not None:
            found.setdefault(digest, []).append(name)
    return [group for group in found.values() if len(group) > 1]


def _digest(reader: CheckpointReader, entry: Entry) -> bytes | None:
    """Checksum of a tensor's bytes, read in parts; None if all entries are one value."""
    checksum = hashlib.sha256()
    first, constant = None, True
    for part in _parts(reader, entry):
        flat = part.contiguous().reshape(-1)
        first = flat[0] if first is None else first
        constant = constant and bool((flat == first).all())
        checksum.update(flat.view(torch.uint8).numpy().data)
    return None if constant else checksum.digest()


def _parts(reader: CheckpointReader, entry: Entry) -> Iterator[torch.Tensor]:
    if entry.numel <= _PART:
        yield reader.read(entry.raw_name)
        return
    n_rows = entry.shape[0]
    step = max(1, _PART // (entry.numel // n_rows))
    for start in range(0, n_rows, step):
        yield reader.read(entry.raw_name, start, min(start + step, n_rows))


def _keep_one(structure: Structure, names: list[str]) -> tuple[str, list[str]]:
    def is_embedding(name: str) -> bool:
        return label(name, structure.entries[name].shape).kind == "embedding"

    kept = next(filter(is_embedding, names), names[0])
    return kept, [name for name in names if name != kept]
