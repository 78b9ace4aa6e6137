"""Distributed checkpoints: python fuzz/fuzz_dcp.py -max_total_time=60

An input is the metadata, or the file of the tensors, of a checkpoint whose other file is sound.
"""

from __future__ import annotations

import pickle
import warnings
from functools import partial

import atheris
import torch
import torch.distributed.checkpoint as dcp
from harness import Payload, fuzz, one_line, scratch
from mutators import of_pickles

with atheris.instrument_imports(include=["spectraledge.checkpoints"]):
    from spectraledge.checkpoints.dcp import DCP_NAMES
    from spectraledge.checkpoints.readers import CheckpointReader
from spectraledge.errors import DataError

FOLDER = scratch() / "step-1"
METADATA, DATA = FOLDER / ".metadata", FOLDER / "__0_0.distcp"
WORDS = ["os.mkdir", "model.w", "model.b", "fqn", "offset", "offsets", "sizes", "chunks", "relative_path", "../x"]
CANARY = FOLDER.parent / "executed"


def make() -> tuple[bytes, bytes]:
    """A sound checkpoint's two files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}}, checkpoint_id=FOLDER)
    return METADATA.read_bytes(), DATA.read_bytes()


SOUND_METADATA, SOUND_DATA = make()


def target(data: bytes) -> None:
    """First byte below 200: metadata; else data."""
    is_data = data[:1] >= b"\xc8"
    METADATA.write_bytes(SOUND_METADATA if is_data else data[1:])
    DATA.write_bytes(data[1:] if is_data else SOUND_DATA)
    try:
        with CheckpointReader(FOLDER) as reader:
            for name, info in reader.tensors.items():
                if info.floating and info.numel < 10**6:
                    assert tuple(reader.read(name).shape) == info.shape
    except DataError as error:
        one_line(error)
    assert not CANARY.exists()


def seeds() -> list[bytes]:
    """Sound metadata, sharded ones, payloads, and sound data."""
    metadata = pickle.loads(SOUND_METADATA)
    halves = [dcp.metadata.ChunkStorageMetadata(torch.Size([i, 0]), torch.Size([1, 3])) for i in (0, 1)]
    metadata.state_dict_metadata["model.w"].chunks = halves
    index = next(key for key in metadata.storage_data if key.fqn == "model.w")
    second = dcp.metadata.MetadataIndex("model.w", torch.Size([1, 0]))
    metadata.storage_data[second] = metadata.storage_data[index]
    found = [
        SOUND_METADATA,
        pickle.dumps(metadata),
        pickle.dumps(metadata, protocol=2),
        pickle.dumps(Payload(CANARY)),
    ]
    return [*(b"\0" + data for data in found), b"\xff" + SOUND_DATA]


if __name__ == "__main__":
    fuzz(target, seeds(), ["-max_len=8192"], partial(of_pickles, words=[*DCP_NAMES, *WORDS]))
