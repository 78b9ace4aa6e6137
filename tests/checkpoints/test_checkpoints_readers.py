"""Every way in which a checkpoint can be bad ends in one sentence with its path and the reason."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spectraledge.checkpoints.readers import CheckpointReader
from spectraledge.errors import DataError

STATE = {"a.w": torch.arange(12.0).reshape(4, 3), "b": torch.ones(2, dtype=torch.float16), "n": torch.tensor(7)}


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with a given header, sound or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def good(path: Path, state: dict[str, torch.Tensor] = STATE) -> bytes:
    save_file(state, path)
    return path.read_bytes()


def test_a_file_is_listed_and_read_tensor_by_tensor(tmp_path: Path) -> None:
    good(tmp_path / "x.safetensors")
    with CheckpointReader(tmp_path / "x.safetensors") as reader:
        assert {n: (i.shape, i.dtype, i.floating) for n, i in reader.tensors.items()} == {
            "a.w": ((4, 3), "float32", True),
            "b": ((2,), "float16", True),
            "n": ((), "I64", False),
        }
        assert torch.equal(reader.read("a.w"), STATE["a.w"])
        assert torch.equal(reader.read("a.w", 1, 3), STATE["a.w"][1:3])
        assert reader.read("b").dtype == torch.float16


def test_rows_are_read_for_every_dtype(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64):
        whole = torch.randn(7, 2, 3, generator=generator).to(dtype)
        good(tmp_path / "x.safetensors", {"pad": torch.ones(3, dtype=torch.int8), "w": whole})
        with CheckpointReader(tmp_path / "x.safetensors") as reader:
            for start, stop in ((0, 7), (2, 5), (6, 7)):
                part = reader.read("w", start, stop)
                assert part.dtype == dtype
                assert torch.equal(part, whole[start:stop])


def test_a_part_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:  # 64 GB that are not there: a sparse file, more than memory holds
        file.write(raw({"w": entry(shape=[2**34], offsets=[0, 2**36])}))
        file.truncate(file.tell() + 2**36)
    with CheckpointReader(path) as reader:
        assert reader.tensors["w"].numel == 2**34
        assert reader.read("w", 2**34 - 7, 2**34).tolist() == [0.0] * 7


def test_header_lengths_that_look_like_other_formats(tmp_path: Path) -> None:
    for length in (0x80, 0x0280):  # the first bytes of a pickle, and of this length
        text = json.dumps({"w": entry()}).encode().ljust(length)
        (tmp_path / "x.safetensors").write_bytes(raw(text, b"\0" * 8))
        with CheckpointReader(tmp_path / "x.safetensors") as reader:
            assert list(reader.tensors) == ["w"]


class Payload:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def zipped_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    return buffer.getvalue()


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
    "dtype is a list": (lambda b: raw({"w": entry([])}, b"\0" * 8), "has dtype \\[\\]"),  # type: ignore[arg-type]
    "overlapping tensors": (lambda b: raw({"v": entry(), "w": entry()}, b"\0" * 8), "corrupt"),
    "a hole": (lambda b: raw({"v": entry(), "w": entry(offsets=[16, 24])}, b"\0" * 24), "corrupt"),
    "git-lfs pointer": (
        lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
        "git-lfs pointer, not the data",
    ),
    "torch.save archive": (lambda b: zipped_pickle(), "pickle archive under another name"),
    "bare pickle": (lambda b: pickle.dumps({"w": [1.0]}), "pickle archive under another name"),
}


@pytest.mark.parametrize("fault", CONTENTS)
def test_bad_contents(tmp_path: Path, fault: str) -> None:
    change, words = CONTENTS[fault]
    path = tmp_path / "step-3.safetensors"
    path.write_bytes(change(good(path)))
    with pytest.raises(DataError, match=words) as caught:
        CheckpointReader(path)
    message = str(caught.value)
    assert message.startswith(f"{path} must be a whole safetensors checkpoint; ")
    assert "\n" not in message


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
    (empty_folder(folder) / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(str(folder / "executed"))))
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
    "folder of pickles": (pickled_folder, r"but pytorch_model\.bin, a format that this version does not read"),
    "missing": (missing, "missing"),
    "name too long": (too_long, "(?i)name too long"),
}


@pytest.mark.parametrize("fault", PATHS)
def test_bad_paths(tmp_path: Path, fault: str) -> None:
    make, words = PATHS[fault]
    root = tmp_path / "root"
    root.mkdir()
    path = make(root)
    with pytest.raises(DataError, match=words) as caught:
        CheckpointReader(path, root)
    assert str(path) in str(caught.value)
    assert not (root / "executed").exists()


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # socket paths are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.safetensors")
        with pytest.raises(DataError, match=r"x\.safetensors must be a whole safetensors checkpoint"):
            CheckpointReader("x.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    good(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        CheckpointReader(tmp_path / "x.safetensors")


def sharded(folder: Path) -> dict[str, str]:
    save_file({"a.w": STATE["a.w"]}, folder / "one.safetensors")
    save_file({"b": STATE["b"]}, folder / "two.safetensors")
    return {"a.w": "one.safetensors", "b": "two.safetensors"}


def write_index(folder: Path, index: object) -> None:
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    (folder / "model.safetensors.index.json").write_bytes(text)


def test_shards_are_read_where_the_index_places_them(tmp_path: Path) -> None:
    write_index(tmp_path, {"weight_map": sharded(tmp_path)})
    with CheckpointReader(tmp_path) as reader:
        assert set(reader.tensors) == {"a.w", "b"}
        assert torch.equal(reader.read("b"), STATE["b"])
        assert reader.n_bytes == sum(p.stat().st_size for p in tmp_path.glob("*.safetensors"))


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


@pytest.mark.parametrize("fault", INDEXES)
def test_bad_indexes(tmp_path: Path, fault: str) -> None:
    make, words = INDEXES[fault]
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    sharded(folder)
    write_index(folder, make(folder))
    with pytest.raises(DataError, match=words) as caught:
        CheckpointReader(folder, folder)
    assert str(caught.value).startswith(f"{folder} must be a whole safetensors checkpoint; ")


def test_a_file_overwritten_in_place_while_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    content = good(path)
    with CheckpointReader(path) as reader:
        path.write_bytes(content[:-4] + b"abcd")
        os.utime(path, ns=(1, 1))
        with pytest.raises(DataError, match="changed while it was read"):
            reader.read("a.w")


def test_a_file_cut_while_read_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    good(path, {"w": torch.zeros(2**18)})
    with CheckpointReader(path) as reader:
        os.truncate(path, 4096)
        with pytest.raises(DataError, match=r"x\.safetensors must be a whole"):
            reader.read("w")


def test_a_file_renamed_over_is_still_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    good(path)
    with CheckpointReader(path) as reader:
        save_file({"a.w": torch.zeros(4, 3)}, tmp_path / "y.safetensors")
        os.replace(tmp_path / "y.safetensors", path)
        assert torch.equal(reader.read("a.w"), STATE["a.w"])


def test_descriptors_are_closed_whatever_happens(tmp_path: Path) -> None:
    count = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system does not list open files")
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    write_index(folder, {"weight_map": sharded(folder)})
    (folder / "two.safetensors").write_bytes(b"")
    good(tmp_path / "x.safetensors")
    before = count()
    for _ in range(5):
        with pytest.raises(DataError):
            CheckpointReader(folder)
        with CheckpointReader(tmp_path / "x.safetensors"):
            pass
    assert count() == before


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    path, rng = tmp_path / "x.safetensors", np.random.default_rng(0)
    content = np.frombuffer(good(path), dtype=np.uint8)
    n_refused = 0
    for _ in range(300):
        damaged = content.copy()
        where = rng.integers(0, 220, size=rng.integers(1, 4))  # in the header, mostly
        damaged[where] = rng.integers(0, 256, size=len(where))
        path.write_bytes(damaged.tobytes()[: rng.integers(1, len(damaged) + 40)])
        try:
            with CheckpointReader(path) as reader:
                for name in reader.tensors:
                    reader.read(name)
        except DataError:
            n_refused += 1
    assert n_refused > 200
