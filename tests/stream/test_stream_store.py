"""Rings in main memory and in a file: the same bits, and less memory."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ring_histories import private_bytes, rows_of, walk

from spectraledge.errors import OutputError, SettingError
from spectraledge.stream.blocks import make_blocks
from spectraledge.stream.kernel import load_kernel
from spectraledge.stream.row import Row
from spectraledge.stream.store import make_ring

KERNEL = load_kernel()
BACKENDS = ["torch", pytest.param("compiled", marks=pytest.mark.skipif(KERNEL is None, reason="no kernel"))]
SHAPES = {"a.0.weight": (70, 600), "a.0.bias": (1,), "a.1.weight": (33, 7), "b.weight": (5,)}
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def same(a: Row, b: Row) -> bool:
    return all(
        (x is None and y is None) or np.array_equal(x, y, equal_nan=True)
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["full", "bfloat16"])
@pytest.mark.parametrize("store", ["host", "file"])
@pytest.mark.parametrize("decay", [False, True])
def test_bit_equal_to_the_ring_on_the_device(
    store: str, precision: str, backend: str, decay: bool, tmp_path: Path
) -> None:
    snapshots = walk(SHAPES, 9)
    blocks = make_blocks(SHAPES)
    options: dict[str, Any] = {"precision": precision, "backend": backend, "decay": decay}
    device = make_ring(blocks, snapshots[0], 4, **options)
    other = make_ring(blocks, snapshots[0], 4, store=store, folder=tmp_path, **options)
    rate = 0.001 if decay else 0.0
    for a, b in zip(rows_of(device, snapshots, decay=rate), rows_of(other, snapshots, decay=rate), strict=True):
        assert same(a, b)


@LINUX
def test_a_file_keeps_the_updates_out_of_anonymous_memory(tmp_path: Path) -> None:
    n, lags = 2_000_000, 19
    tensors = {"w": torch.zeros(n)}
    before = private_bytes()
    ring = make_ring(make_blocks({"w": (n,)}), tensors, lags, store="file", folder=tmp_path, backend="auto")
    for _ in range(lags + 2):
        tensors["w"].add_(1e-3)
        ring.append(tensors)
    grown = private_bytes() - before
    assert ring.nbytes == 4 * n * (lags + 1)
    # the snapshot, and 16 MB for tiles and partial sums
    assert grown < 4 * n + 16 * 2**20


def test_the_file_has_no_name_and_goes_with_the_ring(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    ring = make_ring(
        make_blocks({"w": (1_000_000,)}), {"w": torch.ones(1_000_000)}, 4, store="file", folder=tmp_path / "new"
    )
    assert list((tmp_path / "new").iterdir()) == []
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    assert not any(str(tmp_path) in link and not link.endswith("(deleted)") for link in links)
    del ring
    assert os.statvfs(tmp_path).f_bavail >= free.f_bavail - 64 * 2**20 // free.f_frsize  # others write too


def _is_link(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_met_when_the_ring_is_made(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="must have room for the ring"):
        make_ring(make_blocks({"w": (8,)}), {"w": torch.ones(8)}, 4, store="file", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="must be writable for the ring's file"):
        make_ring(make_blocks({"w": (8,)}), {"w": torch.ones(8)}, 4, store="file", folder=tmp_path / "file" / "x")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no tmpfs")
def test_a_folder_in_memory_is_refused() -> None:
    with pytest.raises(SettingError, match="is kept in memory"):
        make_ring(make_blocks({"w": (8,)}), {"w": torch.ones(8)}, 4, store="file", folder="/dev/shm")


@pytest.mark.parametrize(
    "options",
    [
        {"store": "host"},
        {"store": "file"},
        {"precision": "bfloat16"},
        {"store": "file", "precision": "bfloat16"},
        {"store": "sketch", "sketch_size": 64},
    ],
)
def test_restart_from_a_saved_state_is_bit_equal(options: dict[str, Any], tmp_path: Path) -> None:
    snapshots = walk(SHAPES, 12)
    blocks = make_blocks(SHAPES)
    ring = make_ring(blocks, snapshots[0], 4, folder=tmp_path, decay=True, **options)
    rows_of(ring, snapshots[:7], decay=0.001)
    ring.add_decay("b.weight", snapshots[6]["b.weight"], -0.5)  # an interval that is not over
    state = {name: tensor.clone() for name, tensor in ring.state_tensors().items()}
    other = make_ring(blocks, snapshots[0], 4, folder=tmp_path, decay=True, **options)
    other.load_state_tensors(state, ring.n_appended)
    pairs = zip(rows_of(ring, snapshots[6:], decay=0.001), rows_of(other, snapshots[6:], decay=0.001), strict=True)
    assert all(same(a, b) for a, b in pairs)
    with pytest.raises(SettingError, match="the saved ring must have this ring's layout"):
        make_ring(blocks, snapshots[0], 3, folder=tmp_path, decay=True, **options).load_state_tensors(state, 6)


@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}, {"store": "sketch", "sketch_size": 256}])
def test_sums_of_parts_add_up(options: dict[str, Any]) -> None:
    snapshots = walk(SHAPES, 8, dtype=torch.float64)
    whole = make_ring(make_blocks(SHAPES, "all"), snapshots[0], 4, **options)
    parts = [{n: SHAPES[n] for n in names} for names in (["a.0.weight", "b.weight"], ["a.0.bias", "a.1.weight"])]
    rings = [make_ring(make_blocks(part, "all"), {n: snapshots[0][n] for n in part}, 4, **options) for part in parts]
    for snapshot in snapshots[1:]:
        row = whole.append(snapshot)
        total = sum(r.sums({n: snapshot[n] for n in part}) for r, part in zip(rings, parts, strict=True))
        for ring in rings:
            added = ring.row(np.asarray(total))
            for x, y in zip(vars(row).values(), vars(added).values(), strict=True):
                if x is not None:
                    # float64 sums in another order; products are compared on the scale of the parameters' norms
                    np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12 * float(row.products[0, 0]))


def test_what_is_under_way_is_finished_by_the_next_call() -> None:
    snapshots = walk(SHAPES, 3)
    blocks = make_blocks(SHAPES)
    now, later = make_ring(blocks, snapshots[0], 2), make_ring(blocks, snapshots[0], 2)
    pending = [later.start(snapshot) for snapshot in snapshots[1:]]
    for snapshot, found in zip(snapshots[1:], pending, strict=True):
        assert found.done
        assert np.array_equal(found.result(), now.sums(snapshot))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("store", ["device", "host", "file"])
@pytest.mark.parametrize("precision", ["full", "bfloat16"])
def test_cuda_gives_the_same_rows_without_waiting(store: str, precision: str, tmp_path: Path) -> None:
    snapshots = walk(SHAPES, 9)
    blocks = make_blocks(SHAPES)
    here = make_ring(blocks, snapshots[0], 4, precision=precision)
    there = {k: v.cuda() for k, v in snapshots[0].items()}
    ring = make_ring(blocks, there, 4, store=store, precision=precision, folder=tmp_path)
    for snapshot in snapshots[1:]:
        for name, tensor in snapshot.items():
            there[name].copy_(tensor)
        torch.cuda.set_sync_debug_mode("error")
        try:
            pending = ring.start(there)
            for tensor in there.values():
                tensor.add_(1.0)  # the next optimizer step
        finally:
            torch.cuda.set_sync_debug_mode("default")
        a, b = here.append(snapshot), ring.row(pending.result())
        np.testing.assert_allclose(b.products, a.products, rtol=1e-11, atol=1e-12 * a.products[:, :1].max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": "disk"}, "store must be one of"),
        ({"store": "file"}, "needs a folder for its file"),
        ({"precision": "float16"}, 'precision must be "full" or "bfloat16"'),
        ({"store": "sketch", "precision": "bfloat16"}, "a sketch keeps its few numbers in float64"),
        ({"sketch_check": 2}, "only a sketch needs a check"),
        ({"store": "sketch", "sketch_size": 1000}, "Use sketch_size=1024"),
        ({"store": "sketch", "sketch_check": 2}, "a check of the sketch needs a window"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_ring(make_blocks({"a": (2,)}), {"a": torch.ones(2)}, 3, **options)
