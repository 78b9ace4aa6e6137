"""Safetensors files and folders: what is read, in which parts, and what happens while a file changes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints_files import STATE, good, raw, sharded, write_index
from safetensors.torch import save_file

from spectraledge.checkpoints.readers import CheckpointReader
from spectraledge.errors import DataError


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


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


def test_shards_are_read_where_the_index_places_them(tmp_path: Path) -> None:
    write_index(tmp_path, {"weight_map": sharded(tmp_path)})
    with CheckpointReader(tmp_path) as reader:
        assert set(reader.tensors) == {"a.w", "b"}
        assert torch.equal(reader.read("b"), STATE["b"])
        assert reader.n_bytes == sum(p.stat().st_size for p in tmp_path.glob("*.safetensors"))


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
