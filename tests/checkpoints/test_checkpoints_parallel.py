"""Who does which part changes no bit; and what is done side by side shares one budget of memory."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints_series import save_walk

import spectraledge as se
from spectraledge.checkpoints import groups, opened, parallel, rows
from spectraledge.errors import DataError, SettingError
from spectraledge.stream import kernel

SMALL = {"window": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_walk(tmp_path / "ckpts")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "TILES_IN_PART", 3)
    monkeypatch.setattr(groups, "TILE_BYTES", 6000)  # ten rows of 16 float32 entries, 9 copies


@pytest.mark.parametrize("jobs", [2, 3, 16])
def test_the_number_of_jobs_changes_no_bit(folder: Path, jobs: int) -> None:
    alone = se.analyze(folder, **SMALL, jobs=1)
    assert se.analyze(folder, **SMALL, jobs=jobs) == alone


def test_parts_really_are_done_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=30)
    plain = rows.part_sums
    waits = iter([True, True])

    def meet(*args: object, **kwargs: object) -> object:
        if next(waits, False):
            both.wait()
        return plain(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel, "part_sums", meet)
    assert se.analyze(folder, **SMALL, jobs=2).n_updates == 7


def test_jobs_share_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(parallel, "local_pool", lambda jobs, *rest: asked.append(jobs) or _threads(jobs, *rest))
    se.analyze(folder, window=4, memory_bytes=20_000, jobs=8)
    (jobs,) = asked
    assert 2 <= jobs <= 3  # of 6000 bytes each


_threads = parallel.local_pool


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the cluster libraries themselves
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_engines_change_no_bit(folder: Path, engine: str) -> None:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[engine])
    calls: list[int] = []
    alone = se.analyze(folder, **SMALL, jobs=1)
    there = se.analyze(folder, **SMALL, jobs=2, engine=engine, progress=lambda done, total, name: calls.append(done))
    assert there == alone
    assert calls == list(range(1, calls[-1] + 1))


def test_without_the_compiled_kernel_jobs_change_no_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "load_kernel", lambda: None)
    before = torch.get_num_threads()
    alone = se.analyze(folder, **SMALL, jobs=1)
    assert se.analyze(folder, **SMALL, jobs=2) == alone
    assert torch.get_num_threads() == before


def test_an_unreadable_checkpoint_in_a_worker_is_struck_out(folder: Path) -> None:
    target = folder / "step-30.safetensors"

    def cut(done: int, total: int, name: str) -> None:
        if done == 1:
            target.write_bytes(target.read_bytes()[:-4])

    r = se.analyze(folder, **SMALL, jobs=2, progress=cut)
    np.testing.assert_array_equal(r.steps, [10, 20, 50, 60, 70])
    assert r.meta["skipped"][0]["file"] == "step-30.safetensors"


def test_strict_stops_in_a_worker(folder: Path) -> None:
    target = folder / "step-30.safetensors"

    def cut(done: int, total: int, name: str) -> None:
        if done == 1:
            target.write_bytes(target.read_bytes()[:-4])

    with pytest.raises(DataError, match=r"step-30\.safetensors"):
        se.analyze(folder, **SMALL, jobs=2, strict=True, progress=cut)


@pytest.mark.parametrize("limit", [0, 2, 5])
def test_few_descriptors_change_no_bit(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    whole = se.analyze(folder, **SMALL, jobs=1)
    monkeypatch.setattr(opened, "descriptor_limit", lambda: 2 * limit)
    assert se.analyze(folder, **SMALL, jobs=1) == whole


def test_every_byte_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectraledge.checkpoints.readers import CheckpointReader

    read: list[int] = []
    plain = CheckpointReader.read

    def counted(self: CheckpointReader, *args: object) -> torch.Tensor:
        tensor = plain(self, *args)  # type: ignore[arg-type]
        read.append(tensor.numel())
        return tensor

    monkeypatch.setattr(CheckpointReader, "read", counted)
    # tensors of a shape of their own: none is looked at for being another one's double
    r = se.analyze(folder, **SMALL, jobs=2, params=r"embed|layers\.0")
    assert sum(read) == 8 * r.meta["segments"][0]["n_parameters"]


def test_settings_that_cannot_be(folder: Path) -> None:
    for settings, words in (
        ({"jobs": 0}, "jobs must be a whole number of at least 1; got 0"),
        ({"engine": "mpi"}, "engine must be one of local, ray, dask; got mpi"),
        ({"address": "here"}, "address must be given with engine ray or dask only; got here"),
        ({"drop_cache": True}, "drop_cache must be given with a repository on the hub"),
    ):
        with pytest.raises(SettingError, match=words):
            se.analyze(folder, window=4, **settings)  # type: ignore[arg-type]
