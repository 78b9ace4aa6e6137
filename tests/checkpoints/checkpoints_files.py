"""Small safetensors files, sound or not, for tests of the readers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors.torch import save_file

STATE = {"a.w": torch.arange(12.0).reshape(4, 3), "b": torch.ones(2, dtype=torch.float16), "n": torch.tensor(7)}


def good(path: Path, state: dict[str, torch.Tensor] = STATE) -> bytes:
    """A sound file; its bytes."""
    save_file(state, path)
    return path.read_bytes()


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with a given header, sound or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def sharded(folder: Path) -> dict[str, str]:
    """Two shards; the tensors' places in them."""
    save_file({"a.w": STATE["a.w"]}, folder / "one.safetensors")
    save_file({"b": STATE["b"]}, folder / "two.safetensors")
    return {"a.w": "one.safetensors", "b": "two.safetensors"}


def write_index(folder: Path, index: object) -> None:
    """Of the shards beside it."""
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    (folder / "model.safetensors.index.json").write_bytes(text)
