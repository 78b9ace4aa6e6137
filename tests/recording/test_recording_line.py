"""One line: what goes in comes out, strict JSON, and no damage goes unnoticed."""

from __future__ import annotations

import json
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spectraledge.recording.line import CorruptLine, decode_line, encode_line, number


def framed(text: bytes) -> bytes:
    return b'{"crc32":"%08x","record":%b}\n' % (zlib.crc32(text), text)


@settings(derandomize=True, deadline=None)
@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0), elements=st.floats(width=64)),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())),
)
def test_record_survives_the_round_trip(array, free):
    record = {"kind": "row", "a": array, "free": free}
    line = encode_line(record)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    back = decode_line(line)
    assert back["kind"] == "row"
    assert back["a"].tobytes() == array.tobytes()  # bits, hence NaN payloads and signs of zeros, too
    assert back["a"].shape == array.shape
    if set(free) != {"shape", "f8"}:
        assert back["free"] == free


def test_line_is_strict_json_and_its_checksum_can_be_checked_without_this_package():
    line = encode_line({"kind": "metrics", "values": {"x": math.nan, "y": -math.inf, "é": 1.5}, "a": np.arange(2.0)})

    def refuse(text):
        raise AssertionError(text)

    outer = json.loads(line, parse_constant=refuse)
    assert outer["record"]["values"] == {"x": "nan", "y": "-inf", "é": 1.5}
    body = line[len('{"crc32":"00000000","record":') : -2]
    assert int(outer["crc32"], 16) == zlib.crc32(body)
    assert outer["record"]["a"]["shape"] == [2]


def test_arrays_are_little_endian_row_major_float64():
    import base64

    record = json.loads(encode_line({"kind": "row", "a": np.asfortranarray([[1, 2], [3, 4]])}))["record"]
    assert struct.unpack("<4d", base64.b64decode(record["a"]["f8"])) == (1.0, 2.0, 3.0, 4.0)


def test_scalars_of_numpy_and_odd_values_become_plain():
    from pathlib import Path

    back = decode_line(encode_line({"kind": "x", "i": np.int64(3), "f": np.float32("inf"), "p": Path("a"), 4: (1,)}))
    assert back == {"kind": "x", "i": 3, "f": "inf", "p": "a", "4": [1]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":3}',
        b'{"kind":"row"',
        b'{"kind":"row","x":NaN}',
        b'{"kind":"row","a":{"shape":[3],"f8":"AAAA"}}',
        b'{"kind":"row","a":{"shape":[-1],"f8":""}}',
        b'{"kind":"row","a":{"shape":[true],"f8":"AAAAAAAAAAA="}}',
        b'{"kind":"row","a":{"shape":[4294967296,4294967296],"f8":""}}',
        b'{"kind":"row","a":{"shape":[1],"f8":"AAAA AAAAAAA="}}',
        b'{"kind":"row","a":{"shape":[1,1,1,1,1,1,1,1,1],"f8":"AAAAAAAAAAA="}}',
        b'{"kind":"row","a":{"shape":3,"f8":""}}',
        b'{"kind":"row","a":{"shape":[0],"f8":[]}}',
        b'{"kind":"row","n":' + b"9" * 5000 + b"}",
        b'{"kind":"row","n":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_checksummed_nonsense_is_refused(text):
    with pytest.raises(CorruptLine):
        decode_line(framed(text))


def test_every_single_bit_flip_is_noticed():
    line = encode_line({"kind": "row", "t": 1, "a": np.array([1.0, 2.0])})
    for i in range(len(line) - 1):  # the newline belongs to the file, not to the record
        for bit in range(8):
            damaged = bytearray(line)
            damaged[i] ^= 1 << bit
            with pytest.raises(CorruptLine):
                decode_line(bytes(damaged))


@pytest.mark.parametrize(("value", "expected"), [(2, 2.0), ("inf", math.inf), ("-inf", -math.inf), (True, 1.0)])
def test_numbers(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize("value", ["nan", "12", None, [1], {}])
def test_what_is_no_number_is_nan(value):
    assert math.isnan(number(value))
