"""Distributed checkpoints: what two real ranks saved is put together again, whole or by rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from spectraledge.checkpoints.leaves import fill
from spectraledge.checkpoints.readers import open_checkpoint
from spectraledge.checkpoints.series import find_series
from spectraledge.errors import DataError

alone = pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")

# Run by each of two ranks: uneven shards of rows, of columns, a replica, a shard that is empty on one rank.
RANK = """
import sys, warnings
import torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
def put(tensor, placement):
    return distribute_tensor(tensor, mesh, [placement])
weights = {
    "rows": put(torch.arange(35.0).reshape(7, 5), Shard(0)),
    "columns": put(torch.arange(48.0).reshape(6, 8).to(torch.bfloat16), Shard(1)),
    "same": put(torch.arange(4.0, dtype=torch.float64), Replicate()),
    "one": put(torch.arange(3.0).reshape(1, 3), Shard(0)),
}
state = {"model": weights, "optimizer": {"state": {"rows": {"exp_avg": weights["rows"]}}}, "step": 20}
dcp.save(state, checkpoint_id=f"{folder}/step-20")
dcp.save(dict(weights), storage_writer=HuggingFaceStorageWriter(f"{folder}/step-30", save_distributed=True))
dist.destroy_process_group()
"""
WEIGHTS = {
    "rows": torch.arange(35.0).reshape(7, 5),
    "columns": torch.arange(48.0).reshape(6, 8).to(torch.bfloat16),
    "same": torch.arange(4.0, dtype=torch.float64),
    "one": torch.arange(3.0).reshape(1, 3),
}


@pytest.fixture(scope="module")
def by_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE
        )
        for rank in (0, 1)
    ]
    for rank in ranks:
        _, messages = rank.communicate(timeout=120)
        assert rank.returncode == 0, messages.decode()[-2000:]
    return folder


@pytest.mark.parametrize("name", ["step-20", "step-30"])
def test_shards_of_two_ranks_are_put_together(by_two_ranks: Path, name: str) -> None:
    path = by_two_ranks / name
    n_files = len(list(path.glob("*.distcp" if name == "step-20" else "*.safetensors")))
    assert n_files == 2
    with open_checkpoint(path) as reader:
        assert set(reader.tensors) == set(WEIGHTS)
        for key, tensor in WEIGHTS.items():
            assert reader.tensors[key].shape == tuple(tensor.shape)
            whole = reader.read(key)
            assert whole.dtype == tensor.dtype
            assert torch.equal(whole, tensor)
            for start in range(len(tensor)):
                for stop in range(start, len(tensor) + 1):
                    assert torch.equal(reader.read(key, start, stop), tensor[start:stop])


def test_rows_of_one_rank_are_read_from_its_file_alone(by_two_ranks: Path, tmp_path: Path) -> None:
    """The other rank's file is damaged: nobody notices until its rows are wanted."""
    path = tmp_path / "step-20"
    path.mkdir()
    for file in (by_two_ranks / "step-20").iterdir():
        content = file.read_bytes()
        (path / file.name).write_bytes(b"\0" * len(content) if file.name == "__1_0.distcp" else content)
    with open_checkpoint(path) as reader:
        assert torch.equal(reader.read("rows", 0, 4), WEIGHTS["rows"][:4])
        with pytest.raises(DataError, match=r"__1_0\.distcp at byte \d+: it is no file of torch\.save"):
            reader.read("rows", 3, 5)


def test_a_rank_s_file_that_is_missing(by_two_ranks: Path, tmp_path: Path) -> None:
    path = tmp_path / "step-20"
    path.mkdir()
    for file in (by_two_ranks / "step-20").iterdir():
        if file.name != "__1_0.distcp":
            (path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"__1_0\.distcp is missing"):
        open_checkpoint(path)


def test_a_shard_of_safetensors_that_is_missing(by_two_ranks: Path, tmp_path: Path) -> None:
    path = tmp_path / "step-30"
    path.mkdir()
    shards = sorted((by_two_ranks / "step-30").glob("*.safetensors"))
    (path / shards[1].name).write_bytes(shards[1].read_bytes())
    with pytest.raises(DataError, match=r"boxes of tensor '(rows|columns|one)' do not fill it"):
        open_checkpoint(path)


@alone
def test_one_process_and_a_bare_state_dict(tmp_path: Path) -> None:
    dcp.save({"layer.weight": torch.ones(2, 3), "n": torch.tensor(3)}, checkpoint_id=tmp_path / "a")
    with open_checkpoint(tmp_path / "a") as reader:
        assert {name: info.dtype for name, info in reader.tensors.items()} == {"layer.weight": "float32", "n": "I64"}
        assert reader.read("n").item() == 3
        assert torch.equal(reader.read("layer.weight"), torch.ones(2, 3))


@alone
def test_safetensors_of_one_process_have_an_index(tmp_path: Path) -> None:
    writer = HuggingFaceStorageWriter(str(tmp_path / "a"))
    dcp.save({"layer.weight": torch.ones(2, 3)}, storage_writer=writer)
    with open_checkpoint(tmp_path / "a") as reader:
        assert torch.equal(reader.read("layer.weight"), torch.ones(2, 3))


@alone
def test_a_series_of_folders(tmp_path: Path) -> None:
    for step in (20, 100, 3):
        dcp.save({"model": {"w": torch.full((2,), float(step))}}, checkpoint_id=tmp_path / f"step-{step}")
    series = find_series(tmp_path)
    assert series.steps == [3, 20, 100]
    assert [row["problem"] for row in series.table()] == [None] * 3


@alone
def test_the_folder_that_accelerate_writes_for_fsdp(tmp_path: Path) -> None:
    for step in (1, 2):
        dcp.save(
            {"model": {"w": torch.ones(2)}}, checkpoint_id=tmp_path / f"checkpoint-{step}" / "pytorch_model_fsdp_0"
        )
        (tmp_path / f"checkpoint-{step}" / "optimizer_0").mkdir()
    assert find_series(tmp_path).steps == [1, 2]
    with open_checkpoint(tmp_path / "checkpoint-1") as reader:
        assert list(reader.tensors) == ["w"]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([((0, 0), (2, 3)), ((2, 0), (2, 3))], None),
        ([((0, 0), (4, 1)), ((0, 1), (4, 2))], None),
        ([((0, 0), (2, 1)), ((0, 1), (2, 2)), ((2, 0), (2, 1)), ((2, 1), (2, 2))], None),
        ([((0, 0), (4, 3)), ((4, 0), (0, 3))], None),
        ([((0, 0), (2, 3))], "end at 2 of 4 along dimension 0"),
        ([((0, 0), (2, 3)), ((1, 0), (3, 3))], "gap or overlap along dimension 0"),
        ([((0, 0), (4, 3)), ((0, 0), (4, 3))], "missing or twice"),
        ([((0, 0), (2, 1)), ((0, 1), (2, 2)), ((2, 0), (2, 1))], "missing or twice"),
        ([((0, 0), (4, 4))], "end at 4 of 3 along dimension 1"),
        ([], "none is there"),
    ],
)
def test_boxes_that_fill_a_matrix(boxes: list[tuple[tuple[int, ...], tuple[int, ...]]], words: str | None) -> None:
    found = fill((4, 3), boxes)
    assert (found is None) if words is None else (found is not None and words in found)
