"""What ``torch.save`` wrote, without ``torch.load``: the tree of its objects, tensors as places in the file.

No tensor is read here, so that a header costs a few kilobytes whatever the size of the file; and unlike
``weights_only=True`` nothing that the file asks for is ever made, not even an empty array of a size it claims.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

from .files import File, Window
from .header import BadFile, short
from .pickles import Name, unpickle
from .torch_names import ITEM_BYTES, TORCH_NAMES, Storage, storage_type
from .views import View
from .zips import ZipEntry, read_zip

MAX_PICKLE_BYTES = 2**25
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what files before torch 1.6 begin with


def read_torch(file: File, start: int = 0, stop: int | None = None) -> Any:
    """The objects in a file of ``torch.save``, or in a part of a file that holds one.

    Args:
        file: The file.
        start: First byte.
        stop: Behind the last byte; None for the end of the file.

    Returns:
        Dictionaries, lists, numbers, text, and a `Leaf` for each tensor.

    Raises:
        BadFile: If it is damaged, asks for anything that weights do not need, or is of another format.
    """
    stop = file.size if stop is None else stop
    head = file.read(min(64, stop - start), start)
    if head.startswith(b"PK\x03\x04"):
        return _read_archive(file, start, stop)
    if head.startswith(b"\x80"):
        return _read_legacy(file, start, stop)
    if head.startswith(b"version https://git-lfs"):
        raise BadFile("it is a git-lfs pointer, not the data: run `git lfs pull`")
    if len(head) < 4:
        raise BadFile(f"it is cut short: {stop - start} bytes are no file of torch.save")
    if head[8:9] == b"{":
        raise BadFile("it is a safetensors file under another name: name it .safetensors")
    raise BadFile("it is no file of torch.save, or corrupt: it begins with neither an archive nor a pickle")


def _read_archive(file: File, start: int, stop: int) -> Any:
    entries = read_zip(file, start, stop)
    folders = {name.split("/", 1)[0] for name in entries}
    if len(folders) != 1:
        raise BadFile(f"it is no file of torch.save: its {len(entries)} entries lie in {len(folders)} folders")
    entries = {name.partition("/")[2]: entry for name, entry in entries.items()}
    if "constants.pkl" in entries:
        raise BadFile("it is a TorchScript program, which holds code: save model.state_dict()")
    if "data.pkl" not in entries:
        raise BadFile("it is no file of torch.save: its archive has no data.pkl")
    order = _small(file, entries, "byteorder", b"little")
    if order not in (b"little", b"big"):
        raise BadFile(f"it is corrupt: its byte order is {short(order)}")
    swapped = order.decode() != sys.byteorder

    def persistent(saved: Any) -> Storage:
        dtype, key, n_bytes = _storage_id(saved, 5)
        entry = entries.get(f"data/{key}")
        if entry is None:
            raise BadFile(f"it is corrupt: the data of storage {short(key)} are missing")
        if entry.size < n_bytes:
            raise BadFile(f"it is corrupt: storage {short(key)} needs {n_bytes} bytes and has {entry.size}")
        return Storage(dtype, n_bytes, View(file, entry.start, "U8", (), (), swapped))

    pickle = _small(file, entries, "data.pkl", b"", MAX_PICKLE_BYTES)
    return unpickle(io.BytesIO(pickle), TORCH_NAMES, persistent)[0]


def _small(file: File, entries: dict[str, ZipEntry], name: str, default: bytes, limit: int = 64) -> bytes:
    """A small entry's bytes, their checksum verified."""
    entry = entries.get(name)
    if entry is None:
        return default
    if entry.size > limit:
        raise BadFile(f"its {name} has {entry.size} bytes; at most {limit} are read")
    data = file.read(entry.size, entry.start)
    if zlib.crc32(data) != entry.crc:
        raise BadFile(f"it is corrupt: the checksum of its {name} is wrong")
    return data


def _read_legacy(file: File, start: int, stop: int) -> Any:
    """Files before torch 1.6: pickles of a magic number, a version, the system, the objects and the storages' keys,
    then each storage's number of entries and its data. The objects come before the places of their data are known,
    so their pickle is read twice."""
    stream = _counted(file, start, stop)
    magic, spent = unpickle(stream, {})
    if magic != _MAGIC:
        raise BadFile("it is a pickle and no file of torch.save; it was refused and nothing was run")
    version, spent = unpickle(stream, {}, counted=spent)
    system, spent = unpickle(stream, {}, counted=spent)
    if version != _PROTOCOL or not isinstance(system, dict):
        raise BadFile("it is corrupt: its head is not torch's")
    swapped = (system.get("little_endian") is not False) != (sys.byteorder == "little")
    sizes: dict[str, tuple[str | None, int]] = {}

    def first(saved: Any) -> Storage:
        dtype, key, n_bytes = _storage_id(saved, 6)
        sizes[key] = dtype, max(n_bytes, sizes.get(key, (None, 0))[1])
        return Storage(dtype, n_bytes, View(file, 0, "U8", (), (), swapped))

    begin = stream.tell()
    _, spent = unpickle(stream, TORCH_NAMES, first, spent)
    keys, spent = unpickle(stream, {}, counted=spent)
    starts = _legacy_starts(file, start + stream.tell(), stop, keys, sizes)

    def second(saved: Any) -> Storage:
        dtype, key, n_bytes = _storage_id(saved, 6)
        if key not in starts:
            raise BadFile(f"it is corrupt: the data of storage {short(key)} are missing")
        return Storage(dtype, n_bytes, View(file, starts[key], "U8", (), (), swapped))

    return unpickle(_counted(file, start + begin, stop), TORCH_NAMES, second, 0)[0]


class _Counted(io.BufferedReader):
    """A buffered stream that knows how far it was read."""

    def __init__(self, raw: Window) -> None:
        super().__init__(raw, 2**16)
        self._done = 0

    def read(self, n: int | None = -1, /) -> bytes:
        data = super().read(n)
        self._done += len(data)
        return data

    def readline(self, n: int | None = -1, /) -> bytes:
        data = super().readline(n)
        self._done += len(data)
        return data

    def tell(self) -> int:
        return self._done


def _counted(file: File, start: int, stop: int) -> _Counted:
    return _Counted(Window(file, start, min(stop, start + MAX_PICKLE_BYTES)))


def _legacy_starts(
    file: File, at: int, stop: int, keys: Any, sizes: dict[str, tuple[str | None, int]]
) -> dict[str, int]:
    starts: dict[str, int] = {}
    if not isinstance(keys, list):
        raise BadFile("it is corrupt: the list of its storages is malformed")
    for key in keys:
        if type(key) is not str or key not in sizes or key in starts:
            raise BadFile(f"it is corrupt: it has data of storage {short(key)}, which no tensor uses, or twice")
        dtype, n_bytes = sizes[key]
        if at + 8 > stop:
            raise BadFile("it is truncated: the data of its last storages are missing")
        (n_items,) = struct.unpack("<q", file.read(8, at))
        if n_items < 0 or n_items * ITEM_BYTES.get(dtype or "uint8", 1) != n_bytes or at + 8 + n_bytes > stop:
            raise BadFile(f"it is truncated or corrupt: storage {short(key)} needs {n_bytes} bytes")
        starts[key] = at + 8
        at += 8 + n_bytes
    return starts


def _storage_id(saved: Any, n_parts: int) -> tuple[str | None, str, int]:
    """Type of numbers, key and bytes of the storage that a persistent id names."""
    if type(saved) is not tuple or len(saved) != n_parts or saved[0] not in ("storage", b"storage"):
        raise BadFile("it is corrupt: its pickle has a persistent id that is no storage's; nothing was run")
    kind, key, n_items = saved[1], saved[2], saved[4]
    if n_parts == 6 and saved[5] is not None:
        raise BadFile("it has views of storages as torch saved them before 0.4, which are not read")
    if type(kind) is not Name or type(n_items) is not int or not 0 <= n_items < 2**62:
        raise BadFile("it is corrupt: a storage is malformed")
    if type(key) is not str or len(key) > 100:
        raise BadFile("it is corrupt: a storage's key is malformed")
    dtype = storage_type(kind)
    return dtype, key, n_items * ITEM_BYTES[dtype or "uint8"]
