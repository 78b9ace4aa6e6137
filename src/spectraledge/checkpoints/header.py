"""The header of a safetensors file, read from an open descriptor and checked before anything trusts it.

Owns the format's arithmetic: lengths, offsets, gaps and overlaps, the size cap, duplicate names. Knows nothing
about torch. Errors here are ``BadFile`` with a bare reason; ``readers.py`` adds the path.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any, TypeGuard

MAX_HEADER_BYTES = 100_000_000  # the format's own cap; a larger one is damage or an attack on memory

MAX_HEADER_VALUES = 2_000_000  # some 250 000 tensors; a value takes up to 180 bytes of memory, many times its text
# Bits an entry. Integers are listed to be left out later; floats below 16 bits are quantised, see `_entry`.
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64, "BOOL": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8,
}  # fmt: skip
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64"}
FLOATING = (*_NAMES.values(), "complex128")


class BadFile(Exception):
    """Why a file cannot be used."""


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor.

    Attributes:
        name: As in the file.
        shape: Its shape.
        dtype: ``float64``, ``float32``, ``float16``, ``bfloat16``, ``complex64``, ``complex128``, or a code of
            safetensors (``I64``, ``BOOL``, ...) for tensors that are no floating-point numbers.
        offset: Byte of a safetensors file at which its data begin; 0 in other formats.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int = 0

    @property
    def floating(self) -> bool:
        """Whether it can be a trained parameter."""
        return self.dtype in FLOATING

    @property
    def numel(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def read_header(descriptor: int, size: int) -> dict[str, TensorInfo]:
    """All tensors of a safetensors file by name, in the order of its header.

    Args:
        descriptor: Open for reading.
        size: Bytes in the file.

    Raises:
        BadFile: If it is not a whole safetensors file.
    """
    return read_header_and_notes(descriptor, size)[0]


def read_header_and_notes(descriptor: int, size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """As `read_header`, with the file's free notes (``__metadata__``).

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
    notes = table.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise BadFile("it is corrupt: its __metadata__ is no table of strings")
    tensors = {name: _entry(name, entry, 8 + length) for name, entry in table.items()}
    _check_layout(tensors, 8 + length, size)
    return {name: info for name, (info, _) in tensors.items()}, notes


def _check_layout(tensors: dict[str, tuple[TensorInfo, int]], base: int, size: int) -> None:
    """The format wants every byte behind the header to belong to exactly one tensor."""
    end = 0
    for name, (info, stop) in sorted(tensors.items(), key=lambda item: (item[1][0].offset, item[1][1])):
        if info.offset - base != end:
            what = "overlaps the tensor before it" if info.offset - base < end else "leaves a gap before it"
            raise BadFile(f"it is corrupt: tensor {short(name)} begins at {info.offset - base} and {what}, at {end}")
        end = stop
    if base + end > size:
        raise BadFile(f"it is truncated: its tensors need {base + end} bytes and the file has {size}")
    if base + end < size:
        raise BadFile(f"it is corrupt: its tensors need {base + end} bytes and the file has {size}")


def load_json(data: bytes | bytearray) -> dict[str, Any]:
    """A JSON object without duplicate names.

    Raises:
        BadFile: If it is anything else.
    """
    n_values = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if n_values > MAX_HEADER_VALUES:
        raise BadFile(f"its header lists {n_values} values; at most {MAX_HEADER_VALUES} are read")
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
            raise BadFile(f"it names {short(name)} twice")
        table[name] = value
    return table


def short(text: object) -> str:
    """A name out of a file, fit for one line of a message.

    Example:
        >>> short("two\\nlines")
        "'two\\\\nlines'"
    """
    if isinstance(text, (list, tuple, dict, set)):  # may hold itself, or be nested without end
        return f"a {type(text).__name__}"
    shown = repr(text if not isinstance(text, str) else text[:200])
    return shown if len(shown) <= 120 else f"{shown[:100]}...{shown[0]}"


def _entry(name: str, entry: Any, base: int) -> tuple[TensorInfo, int]:
    """A tensor's description and the offset behind its data; offsets count from ``base``."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise BadFile(f"it is corrupt: the entry of tensor {short(name)} is malformed")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise BadFile(
            f"tensor {short(name)} has dtype {short(dtype)}; float16, bfloat16, float32 and float64 are read "
            "(quantised weights have no update that could be subtracted)"
        )
    info = TensorInfo(name, tuple(shape), _NAMES.get(dtype, dtype), base + offsets[0])
    n_bytes = info.numel * _BITS[dtype] // 8
    if offsets[1] - offsets[0] != n_bytes:
        raise BadFile(
            f"it is corrupt: tensor {short(name)} of shape {str(shape)[:60]} and dtype {dtype} needs {n_bytes} "
            f"bytes; its offsets leave {offsets[1] - offsets[0]}"
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
        raise BadFile(
            "it is a pickle archive under another name, which is never opened as safetensors: name it .pt, or "
            "convert it"
        )


def read_bytes(descriptor: int, length: int, offset: int) -> bytearray:
    """``length`` bytes of a file from ``offset`` on.

    Raises:
        BadFile: If the file ends before.
    """
    data = bytearray(length)
    read_into(descriptor, memoryview(data), offset)
    return data


def read_into(descriptor: int, data: memoryview, offset: int) -> None:
    """Fill a buffer with the bytes of a file from ``offset`` on.

    Raises:
        BadFile: If the file ends before.
    """
    done = 0
    while done < len(data):
        n = os.preadv(descriptor, [data[done : done + 2**27]], offset + done)
        if n == 0:
            raise BadFile("it is truncated: it became shorter while it was read")
        done += n
