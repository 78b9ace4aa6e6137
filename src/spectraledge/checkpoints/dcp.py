"""Folders of ``torch.distributed.checkpoint``: metadata, and boxes of tensors spread over the files of many ranks.

The metadata is a pickle. It is read by the machine of ``pickles.py`` with the dozen names that such a file needs, and
the boxes, each a small file of ``torch.save`` inside a large one, by ``torch_file.py`` when their rows are asked for.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from .files import File, Files
from .header import BadFile, TensorInfo, load_json, read_header_and_notes, short
from .leaves import Leaf, Piece, fill, is_shape
from .pickles import Name, Thing, thing, unpickle
from .torch_file import MAX_PICKLE_BYTES, read_torch
from .torch_names import ITEM_BYTES
from .views import CODES, View

METADATA = ".metadata"
SHARDS = "shard-*.safetensors"  # of torch's HuggingFaceStorageWriter, where nothing has put them together
_MODULE = "torch.distributed.checkpoint.metadata"
_OLD_MODULE = "torch.distributed._shard.sharded_tensor.metadata"
_INFO = "torch.distributed.checkpoint.filesystem._StorageInfo"
_THINGS = (
    *(f"{_MODULE}.{name}" for name in (
        "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
        "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
    )),
    f"{_OLD_MODULE}.TensorProperties", f"{_OLD_MODULE}.MEM_FORMAT_ENCODING", _INFO,
    "torch.serialization._get_layout", "pathlib.PosixPath", "pathlib._local.PosixPath",
)  # fmt: skip
_OTHER_DTYPES = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "complex32", "qint8", "quint8")
DCP_NAMES: dict[str, Name] = (
    {text: thing(text) for text in _THINGS}
    | {"torch.Size": Name("torch.Size", lambda *args: tuple(args[0]) if len(args) == 1 else None)}
    | {f"torch.{name}": Name(f"torch.{name}") for name in (*CODES, *_OTHER_DTYPES)}
)


def read_dcp(folder: Path, files: Files) -> dict[Any, Any]:
    """The tree of a checkpoint that ``dcp.save`` wrote, tensors as `Leaf`.

    Args:
        folder: With ``.metadata`` and the files that it names.
        files: Opens them.

    Raises:
        BadFile: If it is damaged, asks for anything else, or leads out of the folder.
    """
    file = files.get(folder / METADATA)
    if file.size > MAX_PICKLE_BYTES:
        raise BadFile(f"its {METADATA} has {file.size} bytes; at most {MAX_PICKLE_BYTES} are read")
    try:
        made, _ = unpickle(io.BytesIO(file.read(file.size, 0)), DCP_NAMES)
    except BadFile as error:
        raise BadFile(f"{METADATA}: {error}") from error
    if not isinstance(made, Thing) or made.name != f"{_MODULE}.Metadata":
        raise BadFile(f"{METADATA} is corrupt: it describes no checkpoint")
    state = _state(made)
    tensors, stored, paths = (state.get(key) for key in ("state_dict_metadata", "storage_data", "planner_data"))
    if not isinstance(tensors, dict) or not isinstance(stored, dict):
        raise BadFile(f"{METADATA} is corrupt: it has no tables of tensors and their places")
    places = _places(stored)
    tree: dict[Any, Any] = {}
    for name, described in tensors.items():
        if not isinstance(name, str):
            raise BadFile(f"{METADATA} is corrupt: the name {short(name)} is no text")
        if isinstance(described, Thing) and described.name.endswith(".TensorStorageMetadata"):
            leaf = _leaf(name, _state(described), places, folder, files)
            _insert(tree, paths.get(name) if isinstance(paths, dict) else None, name, leaf)
    return tree


def _state(made: Thing) -> Mapping[Any, Any]:
    if not isinstance(made.state, dict):
        raise BadFile(f"{METADATA} is corrupt: a {made.name.rpartition('.')[2]} has no fields")
    return made.state


Places = dict[tuple[str, tuple[int, ...] | None], Mapping[Any, Any]]


def _places(stored: Mapping[Any, Any]) -> Places:
    """Where the boxes lie, by name and corner."""
    places: Places = {}
    for index, info in stored.items():
        if not isinstance(index, Thing) or not isinstance(info, Thing) or info.name != _INFO:
            raise BadFile(f"{METADATA} is corrupt: its table of places is malformed")
        fields = _state(index)
        name, corner = fields.get("fqn"), fields.get("offset")
        if not isinstance(name, str) or not (corner is None or is_shape(corner)):
            raise BadFile(f"{METADATA} is corrupt: its table of places is malformed")
        key = name, None if corner is None else tuple(corner)
        if key in places:
            raise BadFile(f"{METADATA} is corrupt: it places a box of {short(name)} twice")
        places[key] = _state(info)
    return places


def _leaf(name: str, fields: Mapping[Any, Any], places: Places, folder: Path, files: Files) -> Leaf:
    shape, chunks, properties = fields.get("size"), fields.get("chunks"), fields.get("properties")
    described = properties.state if isinstance(properties, Thing) else None
    if isinstance(described, dict):  # as torch wrote them at first
        described = (described.get("dtype"), described.get("layout"))
    if not is_shape(shape) or not isinstance(chunks, list) or not isinstance(described, tuple) or len(described) < 2:
        raise BadFile(f"{METADATA} is corrupt: the entry of tensor {short(name)} is malformed")
    dtype, layout = described[:2]
    dtype = dtype.text.removeprefix("torch.") if isinstance(dtype, Name) else ""
    if dtype not in CODES:
        return Leaf("unknown", tuple(shape), problem=f"of dtype {dtype or 'that is unknown'}")
    if not isinstance(layout, Thing) or layout.args != ("torch.strided",):
        return Leaf("unknown", tuple(shape), problem="a sparse tensor")
    boxes = [_box(name, len(shape), chunk) for chunk in chunks]
    problem = fill(shape, boxes)
    if problem is not None:
        raise BadFile(f"{METADATA} is corrupt: boxes of tensor {short(name)} do not fill it: {problem}")
    pieces = []
    for corner, box in boxes:
        place = places.get((name, corner)) or places.get((name, None))
        if place is None:
            raise BadFile(f"{METADATA} is corrupt: a box of tensor {short(name)} has no place")
        pieces.append(Piece(corner, box, cache(partial(_open_box, *_place(name, place, folder, files), dtype, box))))
    return Leaf(CODES[dtype], tuple(shape), tuple(pieces))


def _box(name: str, n_dims: int, chunk: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    fields = _state(chunk) if isinstance(chunk, Thing) else {}
    corner, shape = fields.get("offsets"), fields.get("sizes")
    if not is_shape(corner) or not is_shape(shape) or not len(corner) == len(shape) == n_dims:
        raise BadFile(f"{METADATA} is corrupt: a box of tensor {short(name)} is malformed")
    return tuple(corner), tuple(shape)


def _place(name: str, fields: Mapping[Any, Any], folder: Path, files: Files) -> tuple[File, int, int]:
    """File, first byte and behind the last byte of a box."""
    path, start, length = (fields.get(key) for key in ("relative_path", "offset", "length"))
    if not isinstance(path, str) or not path or not all(type(n) is int and 0 <= n < 2**62 for n in (start, length)):
        raise BadFile(f"{METADATA} is corrupt: the place of tensor {short(name)} is malformed")
    if fields.get("transform_descriptors"):
        raise BadFile(f"tensor {short(name)} was stored through an extension (compressed), which is not read")
    if os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == "..":
        raise BadFile(f"{METADATA} leads out of its folder, to {short(path)}")
    file = files.get(folder / path)
    if start + length > file.size:  # type: ignore[operator]
        raise BadFile(f"{file.path.name} is truncated: tensor {short(name)} ends behind its {file.size} bytes")
    return file, start, start + length  # type: ignore[return-value, operator]


def _open_box(file: File, start: int, stop: int, dtype: str, shape: tuple[int, ...]) -> View:
    if math.prod(shape) * ITEM_BYTES[dtype] > stop - start:
        raise BadFile(f"{file.path.name} is corrupt: a box of shape {shape} has {stop - start} bytes")
    try:
        leaf = read_torch(file, start, stop)
    except BadFile as error:
        raise BadFile(f"{file.path.name} at byte {start}: {error}") from error
    if not isinstance(leaf, Leaf) or leaf.problem or leaf.shape != shape or leaf.dtype != CODES[dtype]:
        raise BadFile(f"{file.path.name} at byte {start} does not hold the {dtype} of shape {shape} that it should")
    return leaf.pieces[0].view()


def _insert(tree: dict[Any, Any], path: Any, name: str, leaf: Leaf) -> None:
    """Put a tensor where it was in the saved dictionary; under its own name where that is not told."""
    if not isinstance(path, tuple) or not path or not all(isinstance(part, (str, int)) for part in path):
        path = (name,)
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise BadFile(f"{METADATA} is corrupt: {short(name)} lies inside another tensor")
    if path[-1] in tree:
        raise BadFile(f"{METADATA} is corrupt: it names {short(name)} twice")
    tree[path[-1]] = leaf


def read_shards(paths: Sequence[Path], files: Files) -> dict[str, Leaf]:
    """Tensors whose boxes lie in safetensors files, as ``HuggingFaceStorageWriter(save_distributed=True)`` left them.

    The files do not say how many they are nor how large a tensor was: where the last rank's is missing, tensors are
    smaller, which shows as a change of structure beside other checkpoints.

    Args:
        paths: The files.
        files: Opens them.

    Raises:
        BadFile: If the boxes of a tensor do not fill it.
    """
    boxes: dict[str, list[tuple[tuple[int, ...], File, TensorInfo]]] = {}
    for path in paths:
        file = files.get(path)
        try:
            with files.borrowed(file) as descriptor:
                tensors, notes = read_header_and_notes(descriptor, file.size)
            corners = load_json(notes.get("DCP_SHARDING_INFO", "{}").encode())
        except BadFile as error:
            raise BadFile(f"{path.name}: {error}") from error
        for name, info in tensors.items():
            corner = corners.get(name, {}) if isinstance(corners.get(name, {}), dict) else {}
            corner = corner.get("saved_offsets", [0] * len(info.shape))
            if not is_shape(corner) or len(corner) != len(info.shape):
                raise BadFile(f"{path.name} is corrupt: the place of tensor {short(name)} is malformed")
            boxes.setdefault(name, []).append((tuple(corner), file, info))
    return {name: _joined(name, parts) for name, parts in boxes.items()}


def _joined(name: str, parts: Sequence[tuple[tuple[int, ...], File, TensorInfo]]) -> Leaf:
    first = parts[0][2]
    if any(info.dtype != first.dtype or len(info.shape) != len(first.shape) for _, _, info in parts):
        raise BadFile(f"tensor {short(name)} has boxes of different types")
    shape = tuple(max(corner[dim] + info.shape[dim] for corner, _, info in parts) for dim in range(len(first.shape)))
    problem = fill(shape, [(corner, info.shape) for corner, _, info in parts])
    if problem is not None or not is_shape(shape):
        raise BadFile(f"boxes of tensor {short(name)} do not fill it: {problem}")
    pieces = []
    for corner, file, info in parts:
        view = View.packed(file, info.offset, info.dtype, info.shape)
        pieces.append(Piece(corner, info.shape, partial(_same, view)))
    return Leaf(first.dtype, shape, tuple(pieces))


def _same(view: View) -> View:
    return view
