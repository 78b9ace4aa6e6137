"""Safetensors files: python fuzz/fuzz_safetensors.py -max_total_time=60

Whatever our reader takes, the format's own library must take too, and with the same names.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise

import atheris
import torch
from harness import fuzz, one_line, scratch
from mutators import of_json_lines
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

with atheris.instrument_imports(include=["spectraledge.checkpoints"]):
    from spectraledge.checkpoints.readers import CheckpointReader
from spectraledge.errors import DataError

PATH = scratch() / "step-1.safetensors"
DATA = bytes(24)


def target(data: bytes) -> None:
    """First byte even: a file. Odd: a header, to which its length and 24 bytes of data are added."""
    content = data[1:] if data[:1] < b"\x80" else struct.pack("<Q", len(data) - 1) + data[1:] + DATA
    PATH.write_bytes(content)
    try:
        with CheckpointReader(PATH) as reader:
            names = set(reader.tensors)
            for name, info in reader.tensors.items():
                assert tuple(reader.read(name).shape) == info.shape
                if info.shape and info.shape[0]:
                    assert reader.read(name, 0, 1).shape[0] == 1
    except DataError as error:
        one_line(error)
        return
    try:
        with safe_open(PATH, framework="pt") as handle:
            assert set(handle.keys()) == names
    except SafetensorError as error:
        raise AssertionError(f"we read what safetensors refuses: {error}") from error


def seeds() -> list[bytes]:
    """Sound files, and headers of many kinds."""
    state = {"a.w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.float16), "n": torch.tensor(1)}
    whole = save(state)
    header = whole[8 : 8 + struct.unpack("<Q", whole[:8])[0]]
    kinds = ["F64", "F32", "BF16", "C64", "I64", "U8", "BOOL", "F8_E4M3"]
    tables: list[object] = [{}, {"__metadata__": {"format": "pt"}}]
    tables += [{"w": {"dtype": kind, "shape": [1], "data_offsets": [0, 8]}} for kind in kinds]
    ends = [0, 8, 16, 24]
    tables += [{f"w{a}": {"dtype": "F32", "shape": [2], "data_offsets": [a, b]} for a, b in pairwise(ends)}]
    return [b"\0" + whole, b"\xff" + header, *(b"\xff" + json.dumps(table).encode() for table in tables)]


if __name__ == "__main__":
    fuzz(target, seeds(), mutator=of_json_lines)
