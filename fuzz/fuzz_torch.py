"""Files of torch.save: python fuzz/fuzz_torch.py -max_total_time=60

Most inputs are pickles that are put into a sound archive, as changing an archive mostly breaks its checksums.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from functools import partial

import atheris
import torch
from harness import Payload, fuzz, one_line, scratch
from mutators import of_pickles

with atheris.instrument_imports(include=["spectraledge.checkpoints"]):
    from spectraledge.checkpoints.readers import CheckpointReader
    from spectraledge.checkpoints.torch_names import TORCH_NAMES
from spectraledge.errors import DataError

PATH = scratch() / "step-1.pt"
WORDS = ["os.mkdir", "builtins.eval", "storage", "w", "model", "state_dict", "cpu"]
CANARY = PATH.parent / "executed"


def archive(data: bytes, storage: bytes = bytes(48)) -> bytes:
    """An archive as torch's, with a pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in {"data.pkl": data, "byteorder": b"little", "data/0": storage, "data/1": storage}.items():
            made.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def target(data: bytes) -> None:
    """First byte: below 64 a file, else a pickle in an archive; above 192 everything in it is taken."""
    kind = data[0] if data else 0
    PATH.write_bytes(data[1:] if kind < 64 else archive(data[1:]))
    try:
        with CheckpointReader(PATH, state_key="" if kind >= 192 else None) as reader:
            for name, info in reader.tensors.items():
                if info.floating:
                    assert tuple(reader.read(name).shape) == info.shape
    except DataError as error:
        one_line(error)
    assert not CANARY.exists()


def saved(value: object, *, zipped: bool = True) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def pickle_of(content: bytes) -> bytes:
    """The pickle in an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        return made.read("archive/data.pkl")


def seeds() -> list[bytes]:
    """Sound files and their pickles, of all kinds of tensors, and payloads."""
    large = torch.arange(12.0).reshape(3, 4)
    states: list[object] = [
        {"w": large, "b": large[0]},
        OrderedDict(w=large.T, c=large[:, 1]),
        {"model": {"w": torch.nn.Parameter(large.clone())}, "optimizer": {"state": {0: large}}, "step": 3},
        {"w": large.to(torch.bfloat16), "n": torch.tensor(3), "u": torch.tensor([1], dtype=torch.uint16)},
        {"w": torch.eye(2).to_sparse(), "z": torch.empty(0, 3)},
        {"a": {"w": large}, "b": [large, (large, 1.5)], "c": {1, 2}, "d": b"x", "e": 2**70},
    ]
    found = []
    for state in states:
        found += [b"\0" + saved(state), b"\0" + saved(state, zipped=False)]
        found += [bytes([kind]) + pickle_of(saved(state)) for kind in (100, 200)]
    payload = [pickle.dumps(Payload(CANARY), protocol=protocol) for protocol in (2, 4)]
    return found + [bytes([kind]) + data for kind in (0, 100) for data in payload]


if __name__ == "__main__":
    fuzz(target, seeds(), mutator=partial(of_pickles, words=[*TORCH_NAMES, *WORDS]))
