"""One line of a recording file: a JSON record behind its own checksum.

    {"crc32":"1c291ca3","record":{"kind":"row","t":0,...}}

The checksum is over the exact bytes of the record, so a reader needs no canonical form of JSON. Arrays are
``{"shape":[2,3],"f8":"<base64>"}``: little-endian float64, row-major. Numbers that are not finite and stand
outside an array are the strings ``"nan"``, ``"inf"`` and ``"-inf"``, so that every line is strict JSON.
"""

from __future__ import annotations

import binascii
import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Record = dict[str, Any]

PREFIX = b'{"crc32":"'
_HEAD = re.compile(rb'\{"crc32":"([0-9a-f]{8})","record":')
_HEAD_BYTES = len(b'{"crc32":"00000000","record":')
_MAX_DIMENSIONS = 8


class CorruptLine(ValueError):
    """A line that is not a whole, intact record."""


def encode_line(record: Mapping[str, Any]) -> bytes:
    """One record as a complete line, its newline included.

    Args:
        record: String keys; values are numbers, strings, booleans, None, NumPy arrays, and lists and
            dictionaries of these. Arrays of any real type are stored as float64.

    >>> encode_line({"kind": "close", "step": 3})
    b'{"crc32":"3e80123d","record":{"kind":"close","step":3}}\\n'
    """
    text = json.dumps(_plain(record), separators=(",", ":"), allow_nan=False).encode("ascii")
    return b'{"crc32":"%08x","record":%b}\n' % (zlib.crc32(text), text)


def decode_line(line: bytes) -> Record:
    """The record of one line; the newline may be there or not.

    Raises:
        CorruptLine: If the frame, the checksum, the JSON or an array in it is not as it should be.
    """
    line = line.rstrip(b"\n")
    head = _HEAD.match(line)
    if head is None or not line.endswith(b"}"):
        raise CorruptLine("no record frame")
    text = line[_HEAD_BYTES:-1]
    if zlib.crc32(text) != int(head[1], 16):
        raise CorruptLine("checksum differs")
    try:
        record = json.loads(text, object_hook=_array_or_dict, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptLine(str(error)) from error
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise CorruptLine("a record is an object with a kind")
    return record


def number(value: Any) -> float:
    """A stored number, with ``"nan"``, ``"inf"`` and ``"-inf"`` read back; NaN for anything else.

    >>> number("-inf"), number(2)
    (-inf, 2.0)
    """
    if isinstance(value, bool | int | float) or (isinstance(value, str) and value in ("nan", "inf", "-inf")):
        try:
            return float(value)
        except OverflowError:  # an integer beyond all floats
            return math.nan
    return math.nan


def _plain(value: Any) -> Any:
    """``value`` in the types of strict JSON."""
    if isinstance(value, np.ndarray):
        return _encode_array(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)  # paths, dtypes, devices in the free part of the header


def _encode_array(array: np.ndarray) -> Record:
    data = np.ascontiguousarray(array, dtype="<f8")
    return {"shape": list(array.shape), "f8": binascii.b2a_base64(data.tobytes(), newline=False).decode()}


def _array_or_dict(value: Record) -> Any:
    if len(value) != 2 or "f8" not in value or "shape" not in value:
        return value
    shape = value["shape"]
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(n) is int and n >= 0 for n in shape)
        or not isinstance(value["f8"], str)
    ):
        raise CorruptLine("an array has a shape of counts and base64 data")
    data = binascii.a2b_base64(value["f8"], strict_mode=True)
    if math.prod(shape) * 8 != len(data):  # exact integers: a huge shape cannot wrap around
        raise CorruptLine("an array's shape does not fit its data")
    return np.frombuffer(data, dtype="<f8").astype(np.float64, copy=False).reshape(shape)


def _refuse_constant(text: str) -> float:
    raise CorruptLine(f"{text} is not strict JSON")
