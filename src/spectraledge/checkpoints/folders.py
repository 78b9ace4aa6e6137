"""What a folder that is one checkpoint holds, and under which names.

The names are those that libraries write: transformers, accelerate, peft, diffusers, torch's distributed checkpoints.
A folder with a single file of weights needs no particular name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from re import IGNORECASE, compile

from .dcp import METADATA
from .header import BadFile
from .names import SUFFIXES

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"
TORCH_SUFFIXES = SUFFIXES[1:]

# First match wins: safetensors before pickles, the whole before its parts.
_NAMED = (
    (SINGLE, "file"),
    (INDEX, "index"),
    ("pytorch_model.bin", "file"),
    (BIN_INDEX, "index"),
    ("diffusion_pytorch_model.safetensors", "file"),
    ("diffusion_pytorch_model.safetensors.index.json", "index"),
    ("consolidated.safetensors", "file"),
    ("adapter_model.safetensors", "file"),
    ("adapter_model.bin", "file"),
    ("pytorch_model_fsdp.bin", "file"),
    (METADATA, "dcp"),
    (f"pytorch_model_fsdp_0/{METADATA}", "dcp"),
)
# Files that trainers save beside the weights.
_NO_WEIGHTS = compile(
    r"optim|sched|scaler|rng|random_states|training_args|trainer|sampler|dataloader|tokenizer", IGNORECASE
)


@dataclass(frozen=True)
class Layout:
    """How a folder holds a checkpoint.

    Attributes:
        kind: "file", "index", "dcp" or "shards".
        paths: The file; the index; the folder with ``.metadata``; the shards.
    """

    kind: str
    paths: tuple[Path, ...]


def is_weights(name: str) -> bool:
    """Whether a file's name is that of weights, and not of what a trainer saves beside them.

    Example:
        >>> is_weights("ckpt_100.pt"), is_weights("optimizer.pt"), is_weights("notes.txt")
        (True, False, False)
    """
    return name.endswith(SUFFIXES) and _NO_WEIGHTS.search(name) is None


def named_layout(folder: Path) -> Layout | None:
    """The layout that the usual names tell; None without them."""
    for name, kind in _NAMED:
        if os.path.lexists(folder / name):
            return Layout(kind, ((folder / name).parent if kind == "dcp" else folder / name,))
    return None


def layout_of(folder: Path) -> Layout:
    """How a folder holds a checkpoint.

    Raises:
        BadFile: If it holds none, or several files any of which it could be.
    """
    found = named_layout(folder)
    if found is not None:
        return found
    names = sorted(entry.name for entry in folder.iterdir() if is_weights(entry.name))
    shards = [name for name in names if name.startswith("shard-") and name.endswith(".safetensors")]
    if shards and shards == names:
        return Layout("shards", tuple(folder / name for name in shards))
    if len(names) == 1:
        return Layout("file", (folder / names[0],))
    if names:
        raise BadFile(
            f"it holds {len(names)} files of weights and no index, {', '.join(names[:3])}: give one of them"
        )
    parts = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".distcp")
    hint = f" but {parts[0]}, whose {METADATA} is missing: it was not saved to the end" if parts else ""
    raise BadFile(f"it holds neither {SINGLE} nor {INDEX} nor any other file of weights{hint}")
