"""The header of a safetensors file, read from an open descriptor and checked before anything trusts it.

Owns the format's arithmetic: lengths, offsets, the size cap, duplicate names. Knows nothing about torch. Errors
here are ``BadFile`` with a bare reason; ``readers.py`` adds the path.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any, TypeGuard

MAX_HEADER_BYTES = 100_000_000  # the format's own cap; a larger one is damage or an attack on memory

# Bits an entry. Integers are listed to be left out later; floats below 16 bits are quantised, see `_entry`.
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64, "BOOL": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8,
}  # fmt: skip
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64"}


class BadFile(Exception):
    """Why a file cannot be used."""


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor.

    Attributes:
        name: As in the file.
        shape: Its shape.
        dtype: ``float64``, ``float32``, ``float16``, ``bfloat16``, ``complex64``, or a code of the format
            (``I64``, ``BOOL``, ...) for tensors that are no floating-point numbers.
        offset: Byte of the file at which its data begin.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int = 0

    @property
    def floating(self) -> bool:
        """Whether it can be a trained parameter."""
        return self.dtype in _NAMES.values()

    @property
    def numel(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def read_header(descriptor: int, size: int) -> dict[str, TensorInfo]:
    """All tensors of a file by name, in the order of its header.

    Args:
        descriptor: Open for reading.
        size: Bytes in the file.

    Raises:
        BadFile: If it is not a whole safetensors file.
    """
    start = os.pread(descriptor, 64, 0)
    if size < 8 or len(start) < 8:
        raise BadFile(f"it is cut short: {size} bytes are no safetensors file")
    _refuse_other_formats(start)
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise BadFile(
            f"it is corrupt or no safetensors file: its header claims {length} bytes, "
            f"the format allows {MAX_HEADER_BYTES}"
        )
    if 8 + length > size:
        raise BadFile(f"it is truncated: its header alone needs {8 + length} bytes and the file has {size}")
    table = load_json(read_bytes(descriptor, length, 8))
    tensors: dict[str, TensorInfo] = {}
    end = 0
    for name, entry in table.items():
        if name != "__metadata__":
            tensors[name], stop = _entry(name, entry, 8 + length)
            end = max(end, stop)
    if 8 + length + end > size:
        raise BadFile(f"it is truncated: its tensors need {8 + length + end} bytes and the file has {size}")
    return tensors


def load_json(data: bytes | bytearray) -> dict[str, Any]:
    """A JSON object without duplicate names.

    Raises:
        BadFile: If it is anything else.
    """
    try:
        table = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadFile(f"it is corrupt: its header is no JSON ({reason})") from None
    if not isinstance(table, dict):
        raise BadFile(f"it is corrupt: its header is a JSON {type(table).__name__}, not an object")
    return table


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise BadFile(f"it names {name!r} twice")
        table[name] = value
    return table


def _entry(name: str, entry: Any, base: int) -> tuple[TensorInfo, int]:
    """A tensor's description and the offset behind its data; offsets count from ``base``."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise BadFile(f"it is corrupt: the entry of tensor {name!r} is malformed")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise BadFile(
            f"tensor {name!r} has dtype {dtype!r}; float16, bfloat16, float32 and float64 are read "
            "(quantised weights have no update that could be subtracted)"
        )
    info = TensorInfo(name, tuple(shape), _NAMES.get(dtype, dtype), base + offsets[0])
    n_bytes = info.numel * _BITS[dtype] // 8
    if offsets[1] - offsets[0] != n_bytes:
        raise BadFile(
            f"it is corrupt: tensor {name!r} of shape {shape} and dtype {dtype} needs {n_bytes} bytes; "
            f"its offsets leave {offsets[1] - offsets[0]}"
        )
    return info, offsets[1]


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _refuse_other_formats(start: bytes) -> None:
    if start[8:9] == b"{":  # a header begins here; its length before may be any bytes
        return
    if start.startswith(b"version https://git-lfs"):
        raise BadFile("it is a git-lfs pointer, not the data: run `git lfs pull`")
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        raise BadFile("it is a pickle archive under another name, which is never opened: convert it to safetensors")


def read_bytes(descriptor: int, length: int, offset: int) -> bytearray:
    """``length`` bytes of a file from ``offset`` on.

    Raises:
        BadFile: If the file ends before.
    """
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        part = os.pread(descriptor, min(length - done, 2**24), offset + done)
        if not part:
            raise BadFile("it is truncated: it became shorter while it was read")
        view[done : done + len(part)] = part
        done += len(part)
    return data
