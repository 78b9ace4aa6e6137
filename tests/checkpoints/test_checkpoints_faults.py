"""Every way in which a checkpoint can be bad ends in one sentence with its path and the reason.

One table for all formats: a name, how to make the fault, and the words that must be said. Each is met within a limit
of time and memory, and leaves no trace: a file that a payload would make is never there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import signal
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoints_files import STATE, good, raw, sharded, write_index
from safetensors.torch import save_file

from spectraledge.checkpoints.readers import CheckpointReader
from spectraledge.errors import DataError

SECONDS, MEGABYTES = 5, 512

Make = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """A reader that hangs (on a pipe, say) fails and does not hang the suite."""

    def stop(*_: object) -> None:
        raise TimeoutError("the reader hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HUGE = 2**62
CONTENTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda b: b"", "cut short: 0 bytes"),
    "seven bytes": (lambda b: b[:7], "cut short: 7 bytes"),
    "cut in its header": (lambda b: b[:60], "truncated: its header alone needs"),
    "cut in its data": (lambda b: b[:-1], r"truncated: its tensors need \d+ bytes and the file has \d+"),
    "trailing bytes": (lambda b: b + b"x", "corrupt"),
    "header beyond the cap": (lambda b: raw({}, b"\0" * 50, 100_000_001), "header claims 100000001 bytes"),
    "header of 2^64 - 1": (lambda b: b"\xff" * 8 + b[8:], "header claims 18446744073709551615 bytes"),
    "bytes of noise": (lambda b: bytes(range(1, 200)), "header claims"),
    "no JSON": (lambda b: raw(b"{nothing}"), "its header is no JSON"),
    "not UTF-8": (lambda b: raw(b'{"\xff": 1}'), "its header is no JSON"),
    "nested without end": (lambda b: raw(b"[" * 200_000), "nested too deeply"),
    "an endless integer": (lambda b: raw(b'{"a":' + b"9" * 5000 + b"}"), "its header is no JSON"),
    "a list": (lambda b: raw([]), "JSON list"),
    "values without end": (lambda b: raw(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"), "lists 4000003 values; at most"),
    "duplicate tensor": (
        lambda b: raw(b'{"w":%b,"w":%b}' % ((json.dumps(entry()).encode(),) * 2), b"\0" * 8),
        "names 'w' twice",
    ),
    "entry is a number": (lambda b: raw({"w": 3}), "entry of tensor 'w' is malformed"),
    "negative shape": (lambda b: raw({"w": entry(shape=[-2])}, b"\0" * 8), "entry of tensor 'w' is malformed"),
    "true as a shape": (lambda b: raw({"w": entry(shape=[True])}, b"\0" * 8), "entry of tensor 'w' is malformed"),
    "one offset": (lambda b: raw({"w": entry(offsets=[8])}, b"\0" * 8), "entry of tensor 'w' is malformed"),
    "offsets and shape disagree": (lambda b: raw({"w": entry(shape=[3])}, b"\0" * 8), "needs 12 bytes"),
    "shape that overflows": (lambda b: raw({"w": entry(shape=[HUGE, 4])}, b"\0" * 8), "its offsets leave 8"),
    "wrong dtype": (lambda b: raw({"w": entry("F99")}, b"\0" * 8), "has dtype 'F99'"),
    "quantised": (lambda b: raw({"w": entry("F8_E4M3", [8])}, b"\0" * 8), "has dtype 'F8_E4M3'; float16"),
    "dtype is a list": (lambda b: raw({"w": entry([])}, b"\0" * 8), "has dtype a list"),  # type: ignore[arg-type]
    "overlapping tensors": (lambda b: raw({"v": entry(), "w": entry()}, b"\0" * 8), "corrupt"),
    "a hole": (lambda b: raw({"v": entry(), "w": entry(offsets=[16, 24])}, b"\0" * 24), "corrupt"),
    "git-lfs pointer": (
        lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
        "git-lfs pointer, not the data",
    ),
    "torch.save archive": (lambda b: saved(STATE), "pickle archive under another name"),
    "bare pickle": (lambda b: pickle.dumps({"w": [1.0]}), "pickle archive under another name"),
}


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "x.safetensors")
    return folder / "x.safetensors"


def device(folder: Path) -> Path:
    (folder / "x.safetensors").symlink_to("/dev/zero")
    return folder / "x.safetensors"


def link_outside(folder: Path) -> Path:
    good(folder.parent / "outside.safetensors")
    (folder / "x.safetensors").symlink_to(folder.parent / "outside.safetensors")
    return folder / "x.safetensors"


def dangling_link(folder: Path) -> Path:
    (folder / "x.safetensors").symlink_to(folder / "nowhere")
    return folder / "x.safetensors"


def link_in_a_circle(folder: Path) -> Path:
    (folder / "x.safetensors").symlink_to(folder / "x.safetensors")
    return folder / "x.safetensors"


def folder_as_file(folder: Path) -> Path:
    (folder / "checkpoint-1" / "model.safetensors").mkdir(parents=True)
    return folder / "checkpoint-1"


def empty_folder(folder: Path) -> Path:
    (folder / "checkpoint-1").mkdir()
    return folder / "checkpoint-1"


def pickled_folder(folder: Path) -> Path:
    (empty_folder(folder) / "pytorch_model.bin").write_bytes(pickle.dumps(Call(open, str(folder / "executed"), "w")))
    return folder / "checkpoint-1"


def missing(folder: Path) -> Path:
    return folder / "x.safetensors"


def too_long(folder: Path) -> Path:
    return folder / f"{'x' * 300}.safetensors"


PATHS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pipe": (fifo, "is no regular file"),
    "device": (device, "link that leads out of"),
    "link to the outside": (link_outside, "link that leads out of"),
    "dangling link": (dangling_link, "x.safetensors is missing"),
    "circular link": (link_in_a_circle, "(symbolic links|missing)"),
    "folder in place of a file": (folder_as_file, "is no regular file"),
    "empty folder": (empty_folder, "holds neither model.safetensors nor model.safetensors.index.json"),
    "folder of pickles": (pickled_folder, r"pytorch_model\.bin: its pickle names"),
    "missing": (missing, "missing"),
    "name too long": (too_long, "(?i)name too long"),
}


def both_hold_it(folder: Path) -> object:
    save_file({"b": STATE["b"], "a.w": STATE["a.w"]}, folder / "two.safetensors")
    return {"weight_map": {"a.w": "one.safetensors", "b": "two.safetensors"}}


def duplicate_in_index(folder: Path) -> bytes:
    return b'{"weight_map": {"b": "two.safetensors", "b": "one.safetensors"}}'


def damaged_shard(folder: Path) -> object:
    two = folder / "two.safetensors"
    two.write_bytes(two.read_bytes()[:-2])
    return {"weight_map": {"a.w": "one.safetensors", "b": "two.safetensors"}}


def linked_shard(folder: Path) -> object:
    save_file({"c": STATE["b"]}, folder.parent / "outside.safetensors")
    (folder / "three.safetensors").symlink_to(folder.parent / "outside.safetensors")
    return {"weight_map": {"c": "three.safetensors"}}


def to(shard: object) -> Callable[[Path], object]:
    return lambda folder: {"weight_map": {"a.w": shard}}


INDEXES: dict[str, tuple[Callable[[Path], object], str]] = {
    "escapes upwards": (to("../outside.safetensors"), "leads out of its folder, to '../outside.safetensors'"),
    "escapes in the middle": (to("x/../../outside.safetensors"), "leads out of its folder"),
    "absolute": (to("/etc/outside.safetensors"), "leads out of its folder"),
    "NUL in a name": (to("a\0.safetensors"), "is no file name"),
    "not safetensors": (to("/etc/passwd"), "which is no safetensors file"),
    "a number": (to(3), "which is no safetensors file"),
    "missing shard": (to("four.safetensors"), "four.safetensors is missing"),
    "tensor not in its shard": (to("two.safetensors"), "two.safetensors does not hold tensor 'a.w'"),
    "link to the outside": (linked_shard, "three.safetensors is a link that leads out of"),
    "tensor in two shards": (both_hold_it, "'a.w' is in two shards, one.safetensors and two.safetensors"),
    "tensor twice in the index": (duplicate_in_index, "names 'b' twice"),
    "damaged shard": (damaged_shard, "two.safetensors: it is truncated"),
    "no weight_map": (lambda folder: {"metadata": {}}, "has no weight_map"),
    "empty weight_map": (lambda folder: {"weight_map": {}}, "has no weight_map"),
    "no object": (lambda folder: [], "JSON list"),
    "no JSON": (lambda folder: b"\x80\x04.", "is no JSON"),
}


# Files of torch.save.


def saved(value: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def rezipped(content: bytes, change: Callable[[str, bytes], list[tuple[str, bytes]]], method: int = 0) -> bytes:
    """An archive written anew, each entry replaced by what ``change`` makes of it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for info in old.infolist():
            for name, data in change(info.filename, old.read(info)):
                new.writestr(name, data)
    return buffer.getvalue()


def with_pickle(data: bytes) -> bytes:
    """An archive of torch.save with another pickle in it."""
    return rezipped(saved(STATE), lambda name, old: [(name, data if name.endswith("data.pkl") else old)])


def without(part: str) -> bytes:
    return rezipped(saved(STATE), lambda name, old: [] if part in name else [(name, old)])


def entry_named(name: str) -> bytes:
    return rezipped(saved(STATE), lambda n, old: [(n, old), (name, b"x")] if n.endswith("data.pkl") else [(n, old)])


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1
    return content.replace(old, new)


def shifted_directory(content: bytes) -> bytes:
    """The place of the directory, in the record at the end, is one byte off."""
    at = len(content) - 6
    return content[:at] + struct.pack("<L", struct.unpack("<L", content[at : at + 4])[0] + 1) + content[at + 4 :]


def bomb() -> bytes:
    """40 MB of zeros in 40 kB."""
    return rezipped(
        saved(STATE),
        lambda name, old: [(name, b"\0" * 40_000_000 if "data/0" in name else old)],
        zipfile.ZIP_DEFLATED,
    )


def overlapping_entries() -> bytes:
    """Two entries of the directory that lie in one place, as in a bomb that needs no compression."""
    content = saved({"v": torch.ones(2), "w": torch.ones(2)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first, second = (archive.getinfo(f"archive/data/{i}").header_offset for i in (0, 1))
    at = content.rindex(b"archive/data/1") - 46
    content = content[: at + 42] + struct.pack("<L", first) + content[at + 46 :]
    assert first != second
    return patched(content, b"archive/data/0", b"archive/data/1")


def state_pickle(*, n_items: int = 2, offset: int = 0, shape: tuple[int, ...] = (2,), stride: tuple[int, ...] = (1,),
                 kind: str = "FloatStorage", key: str = "0") -> bytes:  # fmt: skip
    """The pickle of ``{"w": tensor}`` with numbers of one's own, in protocol 0's place by hand."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def integer(value: int) -> bytes:
        n = (value.bit_length() + 8) // 8
        return b"\x8a" + bytes([n]) + value.to_bytes(n, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(integer, values)) + b"t"

    storage = (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(n_items) + b"tQ"
    )
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(offset) + numbers(shape) + numbers(stride)
    return b"\x80\x02}" + text("w") + tensor + b"\x89ccollections\nOrderedDict\n)RtRs."


def nested(n: int) -> bytes:
    """Lists in lists: what recursion dies of."""
    return b"\x80\x02" + b"]" * n + b"a" * (n - 1) + b"."


def doubling(n: int) -> bytes:
    """Each table holds the one before it twice: 2^n names in few bytes."""
    levels = b"".join(b"}(X\x01\0\0\0ah%cX\x01\0\0\0bh%cuq%c" % (i, i, i + 1) for i in range(n))
    leaf = state_pickle()[2:-1]
    return b"\x80\x02" + leaf + b"q\x00" + levels + b"."


def holds_itself() -> bytes:
    return b"\x80\x02}q\x00X\x01\0\0\0ah\x00s."


def quantised() -> torch.Tensor:
    return torch.ones(3).to(torch.float8_e4m3fn)


def table_of(*keys: str) -> bytes:
    return saved({key: {"w": torch.ones(2)} for key in keys})


SOUND = saved(STATE)
OLD = saved(STATE, legacy=True)
TORCH: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "cut short: 0 bytes"),
    "three bytes": (lambda: SOUND[:3], "cut short: 3 bytes"),
    "cut in half": (lambda: SOUND[: len(SOUND) // 2], "truncated or corrupt: its end holds no directory"),
    "one byte short": (lambda: SOUND[:-1], "truncated or corrupt"),
    "trailing bytes": (lambda: SOUND + b"x", "truncated or corrupt"),
    "directory misplaced": (lambda: shifted_directory(SOUND), "corrupt"),
    "noise": (lambda: bytes(range(1, 200)), "neither an archive nor a pickle"),
    "git-lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
    "safetensors by another name": (lambda: raw({}), "safetensors file under another name"),
    "compressed, a bomb": (bomb, "is compressed; torch stores entries as they are"),
    "overlapping entries": (overlapping_entries, "corrupt"),
    "entry upwards": (lambda: entry_named("archive/../../x"), "leads out of the archive"),
    "absolute entry": (lambda: entry_named("/archive/x"), "leads out of the archive"),
    "entry with a backslash": (lambda: entry_named("archive\\..\\x"), "leads out of the archive"),
    "entries in two folders": (lambda: entry_named("other/x"), "lie in 2 folders"),
    "an archive of something else": (lambda: without("data.pkl"), "has no data.pkl"),
    "storage missing": (lambda: without("data/0"), "the data of storage '0' are missing"),
    "TorchScript": (lambda: entry_named("archive/constants.pkl"), "TorchScript program, which holds code"),
    "pickle damaged": (lambda: patched(SOUND, b"_rebuild_tensor_v2", b"_rebuild_tensor_v9"), "checksum of its data"),
    "byte order": (lambda: rezipped(SOUND, lambda n, b: [(n, b"middle" if "byteorder" in n else b)]), "byte order"),
    "pickle without an end": (lambda: with_pickle(state_pickle()[:-1]), "its pickle ends in the middle"),
    "pickle of nothing": (lambda: with_pickle(b""), "its pickle ends in the middle"),
    "pickle of noise": (lambda: with_pickle(b"\x80\x02)))tttt."), "its pickle is malformed"),
    "unknown operation": (lambda: with_pickle(b"\x80\x02I12\n."), "operation 0x49, which torch never writes"),
    "text beyond the end": (lambda: with_pickle(b"\x80\x02X\xff\xff\xff\xff."), "text of 4294967295 bytes"),
    "storage too small": (lambda: with_pickle(state_pickle(n_items=100)), "needs 400 bytes and has 48"),
    "storage of 2^62": (lambda: with_pickle(state_pickle(n_items=2**62)), "a storage is malformed"),
    "negative storage": (lambda: with_pickle(state_pickle(n_items=-1)), "a storage is malformed"),
    "tensor beyond its storage": (lambda: with_pickle(state_pickle(shape=(3,))), "needs 12 bytes of a storage"),
    "offset beyond its storage": (lambda: with_pickle(state_pickle(offset=2)), "needs 16 bytes of a storage"),
    "negative offset": (lambda: with_pickle(state_pickle(offset=-1)), "a tensor's offset is malformed"),
    "negative shape": (lambda: with_pickle(state_pickle(shape=(-2,))), "shape or strides are malformed"),
    "negative stride": (lambda: with_pickle(state_pickle(stride=(-1,))), "shape or strides are malformed"),
    "shape that overflows": (lambda: with_pickle(state_pickle(shape=(2**40, 2**40), stride=(0, 0))), "malformed"),
    "shape without strides": (lambda: with_pickle(state_pickle(stride=())), "shape or strides are malformed"),
    "expanded": (lambda: with_pickle(state_pickle(shape=(2**40,), stride=(0,))), "holds one number several times"),
    "overlapping rows": (lambda: saved({"w": torch.ones(5).as_strided((2, 3), (2, 1))}), "holds one number several"),
    "unknown storage": (lambda: with_pickle(state_pickle(kind="FlotStorage")), r"names 'torch\.FlotStorage'"),
    "nested without end": (lambda: with_pickle(nested(200_000)), "holds a list and no state dict"),
    "tables doubling": (lambda: with_pickle(doubling(40)), "nested deeper than 16|more than 1000000 values"),
    "a table in itself": (lambda: with_pickle(holds_itself()), "hold themselves|holds no"),
    "operations without end": (lambda: with_pickle(b"\x80\x02" + b"NNNN0000" * 400_000 + b"."), "more than 2000000"),
    "dictionaries without end": (lambda: with_pickle(b"\x80\x02" + b"}" * 1_900_000 + b"]."), "holds a list and no"),
    "a memo without end": (lambda: with_pickle(b"\x80\x02" + b"]\x94" * 900_000 + b"."), "holds a list and no"),
    "a memo far away": (lambda: with_pickle(b"\x80\x02]r\xff\xff\xff\xff."), "holds a list and no state dict"),
    "bytes of a terabyte": (lambda: with_pickle(b"\x80\x02\x8e" + b"\0\0\0\0\0\1\0\0."), "text of 1099511627776"),
    "an array of a terabyte": (
        lambda: with_pickle(b"\x80\x02}X\1\0\0\0ac__builtin__\nbytearray\n\x8a\6\0\0\0\0\0\1\x85Rs."),
        "holds no tensors",
    ),
    "a number of a megabyte": (lambda: with_pickle(b"\x80\x02\x8b\0\0\x10\0" + b"\1" * 2**20 + b"."), "number of"),
    "pickle beyond the cap": (lambda: with_pickle(b"\x80\x02" + b"N" * 2**25), "its data.pkl has 33554434 bytes"),
    "sparse": (lambda: saved({"w": torch.eye(3).to_sparse()}), "tensor 'w' is a sparse tensor"),
    "sparse rows": (lambda: saved({"w": torch.eye(3).to_sparse_csr()}), "tensor 'w' is a sparse tensor"),
    "8-bit floats": (lambda: saved({"w": quantised()}), "tensor 'w' is of dtype float8_e4m3fn"),
    "no data": (lambda: saved({"w": torch.ones(3, device="meta")}), "tensor 'w' is a meta tensor"),
    "conjugate": (lambda: saved({"w": torch.ones(2, dtype=torch.complex64).conj()}), "is a view that is conjugate"),
    "a module": (lambda: saved(torch.nn.Linear(2, 2)), r"names 'torch\.nn\.modules\.linear\.Linear', which weights"),
    "a tensor alone": (lambda: saved(torch.ones(2)), "holds one tensor and no state dict"),
    "only an optimizer": (lambda: table_of("optimizer"), "holds no state dict of a model, only 'optimizer'"),
    "two models": (lambda: table_of("generator", "critic"), "may be any of 'generator', 'critic': name one"),
    "two usual names": (lambda: table_of("model", "state_dict"), "may be any of 'state_dict', 'model': name one"),
    "old, cut in its data": (lambda: OLD[:-1], "truncated or corrupt: storage"),
    "old, cut in its pickle": (lambda: OLD[:300], "it is corrupt: its pickle"),
    "old, trailing magic": (lambda: pickle.dumps({"w": [1.0]}), "is a pickle and no file of torch.save"),
    "old, another version": (lambda: patched(OLD, b"M\xe9\x03", b"M\xea\x03"), "its head is not torch's"),
    "a tar of long ago": (lambda: b"tensors".ljust(512, b"\0"), "neither an archive nor a pickle"),
}  # fmt: skip


def torch_fault(make: Callable[[], bytes]) -> Make:
    def write(folder: Path) -> Path:
        (folder / "step-3.pt").write_bytes(make())
        return folder / "step-3.pt"

    return write


def bin_index(folder: Path, weight_map: object) -> Path:
    torch.save({"a.w": STATE["a.w"]}, folder / "one.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def several(folder: Path) -> Path:
    for name in ("first.pt", "second.pt"):
        torch.save(STATE, folder / name)
    return folder


TORCH_FOLDERS: dict[str, tuple[Make, str]] = {
    "index upwards": (lambda f: bin_index(f, {"a.w": "../one.bin"}), "leads out of its folder, to '../one.bin'"),
    "index to safetensors": (lambda f: bin_index(f, {"a.w": "x.safetensors"}), "which is no file of torch.save"),
    "index to a tensor that is not there": (lambda f: bin_index(f, {"v": "one.bin"}), "does not hold tensor 'v'"),
    "index to nothing": (lambda f: bin_index(f, {"a.w": "two.bin"}), "two.bin is missing"),
    "several files": (several, "holds 2 files of weights and no index, first.pt, second.pt"),
}

# Folders of torch.distributed.checkpoint.


def dcp_saved(folder: Path) -> Path:
    state = {"model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}, "step": 3}
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, checkpoint_id=folder / "step-3")
    return folder / "step-3"


def with_metadata(change: Callable[[dcp.metadata.Metadata], object]) -> Make:
    """A sound checkpoint whose metadata were changed and written again."""

    def make(folder: Path) -> Path:
        path = dcp_saved(folder)
        metadata = pickle.loads((path / ".metadata").read_bytes())
        (path / ".metadata").write_bytes(pickle.dumps(change(metadata) or metadata))
        return path

    return make


def each_place(**fields: object) -> Make:
    def change(metadata: dcp.metadata.Metadata) -> None:
        for info in metadata.storage_data.values():
            vars(info).update(fields)

    return with_metadata(change)


def chunk(**fields: object) -> Make:
    return with_metadata(lambda m: vars(m.state_dict_metadata["model.w"].chunks[0]).update(fields))


def tensor_fields(**fields: object) -> Make:
    return with_metadata(lambda m: vars(m.state_dict_metadata["model.w"]).update(fields))


def on_files(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Path:
        path = dcp_saved(folder)
        change(path)
        return path

    return make


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Make:
    return on_files(lambda path: (path / name).write_bytes(change((path / name).read_bytes())))


def link_of_data(path: Path) -> None:
    (path / "__0_0.distcp").rename(path.parent.parent / "outside.distcp")
    (path / "__0_0.distcp").symlink_to(path.parent.parent / "outside.distcp")


DCP: dict[str, tuple[Make, str]] = {
    "metadata missing": (on_files(lambda p: (p / ".metadata").unlink()), ".metadata is missing: it was not"),
    "metadata empty": (rewrite(".metadata", lambda b: b""), r"\.metadata: it is corrupt: its pickle ends"),
    "metadata cut": (rewrite(".metadata", lambda b: b[: len(b) // 2]), r"\.metadata: it is corrupt"),
    "metadata of something else": (rewrite(".metadata", lambda b: pickle.dumps({})), "describes no checkpoint"),
    "metadata beyond the cap": (rewrite(".metadata", lambda b: b + b"\0" * 2**25), "at most 33554432 are read"),
    "metadata is a pipe": (on_files(lambda p: ((p / ".metadata").unlink(), os.mkfifo(p / ".metadata"))), "no reg"),
    "data missing": (on_files(lambda p: (p / "__0_0.distcp").unlink()), "__0_0.distcp is missing"),
    "data cut": (rewrite("__0_0.distcp", lambda b: b[:-3000]), r"__0_0\.distcp is truncated: tensor"),
    "data behind a link": (on_files(link_of_data), r"__0_0\.distcp is a link that leads out of"),
    "path upwards": (each_place(relative_path="../x"), "leads out of its folder, to '../x'"),
    "path upwards in the middle": (each_place(relative_path="a/../../x"), "leads out of its folder"),
    "absolute path": (each_place(relative_path="/etc/passwd"), "leads out of its folder, to '/etc/passwd'"),
    "path to a folder": (each_place(relative_path="."), "no regular file"),
    "path that is no text": (each_place(relative_path=3), "the place of tensor 'model.[bw]' is malformed"),
    "negative offset": (each_place(offset=-1), "the place of tensor 'model.[bw]' is malformed"),
    "offset behind the end": (each_place(offset=2**40), "is truncated: tensor 'model.[bw]' ends behind"),
    "compressed": (each_place(transform_descriptors=["zstd"]), "was stored through an extension"),
    "a box larger than its tensor": (chunk(sizes=torch.Size([3, 3])), "do not fill it: they end at 3 of 2"),
    "a box too small": (chunk(sizes=torch.Size([1, 3])), "do not fill it: they end at 1 of 2"),
    "a box elsewhere": (chunk(offsets=torch.Size([1, 0])), "do not fill it: they leave a gap or overlap"),
    "a box of one dimension": (chunk(sizes=torch.Size([6])), "a box of tensor 'model.w' is malformed"),
    "no boxes": (tensor_fields(chunks=[]), "do not fill it: none is there"),
    "shape that overflows": (tensor_fields(size=torch.Size([2**40, 2**40])), "entry of tensor 'model.w' is mal"),
    "no places": (with_metadata(lambda m: vars(m).update(storage_data={})), "a box of tensor 'model.w' has no place"),
    "no tables": (with_metadata(lambda m: vars(m).update(storage_data=None)), "has no tables of tensors"),
}  # fmt: skip


def on_reading(make: Make, words: str) -> tuple[Make, str]:
    return make, words


# Faults of the data themselves, which opening does not read.
DCP_DATA: dict[str, tuple[Make, str]] = {
    "another tensor's place": (
        with_metadata(lambda m: _swap(m)),
        r"does not hold the float32 of shape \((2, 3|3,)\) that it should",
    ),
    "zeros": (rewrite("__0_0.distcp", lambda b: b"\0" * len(b)), "neither an archive nor a pickle"),
    "data that do not fit": (
        on_files(lambda p: _shift(p)),
        "(neither an archive nor a pickle|truncated or corrupt)",
    ),
}


def _swap(metadata: dcp.metadata.Metadata) -> None:
    w, b = (index for index in metadata.storage_data if index.fqn in ("model.w", "model.b"))
    places = metadata.storage_data
    places[w], places[b] = places[b], places[w]


def _shift(path: Path) -> None:
    content = (path / "__0_0.distcp").read_bytes()
    (path / "__0_0.distcp").write_bytes(content[8:] + content[:8])


def index_fault(make: Callable[[Path], object]) -> Make:
    def write(folder: Path) -> Path:
        sharded(folder)
        write_index(folder, make(folder))
        return folder

    return write


def content_fault(change: Callable[[bytes], bytes]) -> Make:
    def write(folder: Path) -> Path:
        path = folder / "step-3.safetensors"
        path.write_bytes(change(good(path)))
        return path

    return write


FAULTS: dict[str, tuple[Make, str]] = (
    {f"safetensors: {name}": (content_fault(change), words) for name, (change, words) in CONTENTS.items()}
    | {f"path: {name}": fault for name, fault in PATHS.items()}
    | {f"index: {name}": (index_fault(make), words) for name, (make, words) in INDEXES.items()}
    | {f"torch: {name}": (torch_fault(make), words) for name, (make, words) in TORCH.items()}
    | {f"torch folder: {name}": fault for name, fault in TORCH_FOLDERS.items()}
    | {f"distributed: {name}": fault for name, fault in DCP.items()}
)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # torch's, when such a tensor is made
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_checkpoint_is_refused_in_one_sentence(tmp_path: Path, fault: str) -> None:
    make, words = FAULTS[fault]
    root = tmp_path / "root"
    root.mkdir()
    path = make(root)
    refused(path, root, words)
    assert not (root / "executed").exists()


@pytest.mark.parametrize("fault", DCP_DATA)
def test_bad_data_are_refused_when_read(tmp_path: Path, fault: str) -> None:
    make, words = DCP_DATA[fault]
    with CheckpointReader(make(tmp_path)) as reader:
        for name in ("w", "b"):
            with pytest.raises(DataError, match=words) as caught:
                reader.read(name)
            assert "\n" not in str(caught.value)


def refused(path: Path, root: Path, words: str) -> None:
    reset_peak()
    memory, began = peak_bytes(), time.process_time()
    with pytest.raises(DataError, match=words) as caught:
        CheckpointReader(path, root)
    assert time.process_time() - began < SECONDS
    assert peak_bytes() - memory < MEGABYTES * 2**20
    message = str(caught.value)
    assert message.startswith(f"{path} must be a whole ")
    assert "\n" not in message
    assert len(message) < 600 + len(str(path))


def reset_peak() -> None:
    """Let the kernel forget the largest memory that this process had."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


# Payloads: none is run, whatever it is wrapped in.


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.function, self.args


def by_name(module: str, name: str, argument: str) -> bytes:
    """``module.name(argument)`` by hand, as Python would not write it."""
    return f"c{module}\n{name}\n(X".encode() + struct.pack("<I", len(argument)) + argument.encode() + b"tR"


def payloads(canary: Path) -> dict[str, bytes]:
    """Pickles that make the folder ``canary`` when Python reads them."""
    touch, code = f"mkdir {canary}", f"__import__('os').mkdir({str(canary)!r})"
    hidden = pickle.dumps(Call(os.system, touch))
    return {
        "os.system": pickle.dumps(Call(os.system, touch)),
        "os.system, protocol 2": pickle.dumps(Call(os.system, touch), protocol=2),
        "posix.system by hand": b"\x80\x02" + by_name("posix", "system", touch) + b".",
        "builtins.eval": pickle.dumps(Call(eval, code)),
        "builtins.exec": pickle.dumps(Call(exec, code)),
        "os.mkdir": pickle.dumps(Call(os.mkdir, str(canary))),
        "in a list in a dictionary": pickle.dumps({"model": [{"w": Call(os.system, touch)}]}),
        "as a key": pickle.dumps({Call(os.system, touch): 1}),
        "through getattr": pickle.dumps(Call(getattr, Call(__import__, "os"), "system")),
        "a pickle in a pickle": pickle.dumps(Call(pickle.loads, hidden)),
        "torch's own loader": pickle.dumps(Call(torch.storage._load_from_bytes, saved(STATE))),
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"\x80\x02(cos\nsystem\nX" + struct.pack("<I", len(touch)) + touch.encode() + b"o.",
        "EXT": b"\x80\x02\x82\x01.",
        "BUILD on a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\0\0\0aK\x01sb.",
        "call of a call": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
        "dotted name": b"\x80\x04\x8c\x05torch\x8c\x14serialization.os.sys\x93.",
        "in the arguments of a tensor": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + by_name("os", "system", touch)
        + b"tR.",
        "in a storage's id": b"\x80\x02(X\x07\0\0\0storage" + by_name("os", "system", touch) + b"tQ.",
        "as a storage's class": b"\x80\x02(X\x07\0\0\0storagecos\nsystem\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ.",
        "as a type of tensor": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\n"
        b"ctorch\nTensor\n(X" + struct.pack("<I", len(touch)) + touch.encode() + b"tNtR.",
    }


def in_archive(folder: Path, payload: bytes) -> Path:
    (folder / "step-1.pt").write_bytes(with_pickle(payload))
    return folder / "step-1.pt"


def bare(folder: Path, payload: bytes) -> Path:
    (folder / "step-1.ckpt").write_bytes(payload)
    return folder / "step-1.ckpt"


def in_old_file(folder: Path, payload: bytes) -> Path:
    head = b"".join(
        pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    (folder / "pytorch_model.bin").write_bytes(head + payload)
    return folder / "pytorch_model.bin"


def in_metadata(folder: Path, payload: bytes) -> Path:
    path = dcp_saved(folder)
    (path / ".metadata").write_bytes(payload)
    return path


def in_box(folder: Path, payload: bytes) -> Path:
    """Metadata are sound; the file of the tensor is not."""
    path = dcp_saved(folder)
    content = with_pickle(payload)
    metadata = pickle.loads((path / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.offset, info.length = 0, len(content)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    (path / "__0_0.distcp").write_bytes(content)
    return path


@pytest.mark.parametrize("wrap", [in_archive, bare, in_old_file, in_metadata, in_box])
@pytest.mark.parametrize("name", payloads(Path("x")))
def test_payloads_are_never_run(tmp_path: Path, wrap: Callable[[Path, bytes], Path], name: str) -> None:
    canary = tmp_path / "canary"
    path = wrap(tmp_path, payloads(canary)[name])
    with pytest.raises(DataError) as caught, CheckpointReader(path) as reader:
        reader.read("w")
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_the_payloads_are_live(tmp_path: Path) -> None:
    """Else the test above would show nothing: Python's own unpickler runs them."""
    canary = tmp_path / "canary"
    for name in ("os.system", "builtins.eval", "os.mkdir", "posix.system by hand", "a pickle in a pickle", "OBJ"):
        pickle.loads(payloads(canary)[name])
        assert canary.exists(), name
        canary.rmdir()
