"""Files of torch.save give what torch.load gives, by other means: nothing mapped, nothing made, nothing called."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from spectraledge.checkpoints import files
from spectraledge.checkpoints.readers import CheckpointReader, open_checkpoint
from spectraledge.errors import DataError


def model_and_optimizer() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    return model, optimizer


MODEL, OPTIMIZER = model_and_optimizer()
STATE = MODEL.state_dict()
BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["archive", "old"])


def assert_read(reader: CheckpointReader, state: dict[str, torch.Tensor]) -> None:
    assert set(reader.tensors) == set(state)
    for name, tensor in state.items():
        tensor = tensor.detach()
        whole = reader.read(name)
        assert reader.tensors[name].shape == tuple(tensor.shape)
        assert whole.dtype == tensor.dtype
        assert torch.equal(whole, tensor)
        for start in range(tensor.shape[0] if tensor.dim() else 0):
            assert torch.equal(reader.read(name, start, tensor.shape[0]), tensor[start:])


def every_kind() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(9, 7, generator=generator)
    kinds = {
        str(dtype): torch.randn(3, 2, generator=generator).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128)
    }
    whole_numbers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint64)
    kinds |= {str(dtype): torch.arange(5).to(dtype) for dtype in whole_numbers}
    return kinds | {
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "transposed": large.T,
        "column": large[:, 3],
        "box": large[2:6, 1:4],
        "every other": large[::2, ::3],
        "tied": large,
        "channels last": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(large[0].clone()),
        "one of many": torch.ones(1, 3).expand(1, 3),
    }


@BOTH
def test_every_kind_of_tensor_and_view(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "step-1.pt"
    state = every_kind()
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with open_checkpoint(path) as reader:
        assert_read(reader, state)
        assert reader.tensors["transposed"].offset == 0
        floats = {name for name, info in reader.tensors.items() if info.floating}
    assert floats == {name for name, tensor in state.items() if tensor.is_floating_point() or tensor.is_complex()}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    steps=st.lists(st.integers(1, 3), min_size=4, max_size=4),
)
def test_any_view_of_a_storage(shape: list[int], order: object, steps: list[int]) -> None:
    """Permuted and strided at random, with blocks so small that large views are read piece by piece."""
    numbers = torch.arange(float(np.prod(shape))).reshape(shape)
    view = numbers[tuple(slice(None, None, step) for step in steps[: len(shape)])]
    dims = list(range(view.dim()))
    order.shuffle(dims)  # type: ignore[attr-defined]
    view = view.permute(dims)
    buffer = io.BytesIO()
    torch.save({"w": view}, buffer)
    from spectraledge.checkpoints import views

    before, views._BLOCK = views._BLOCK, 16
    path = Path(os.path.join(os.environ.get("TMPDIR", "/tmp"), f"any-view-{os.getpid()}.pt"))
    try:
        path.write_bytes(buffer.getvalue())
        with open_checkpoint(path) as reader:
            assert torch.equal(reader.read("w"), view)
            assert torch.equal(reader.read("w", 0, view.shape[0]), view)
    finally:
        views._BLOCK = before
        path.unlink()


@BOTH
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: OrderedDict(s),
        lambda s: {"state_dict": s, "epoch": 3, "global_step": 7, "optimizer_states": [OPTIMIZER.state_dict()]},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": OPTIMIZER.state_dict(), "loss": torch.tensor(1.0)},
        lambda s: {"model": s, "optimizer": OPTIMIZER.state_dict(), "rng": torch.get_rng_state(), "step": 7},
        lambda s: {"model": {"state_dict": s, "version": 2}},
        lambda s: {"net": s, "ema": {name: tensor.clone() for name, tensor in s.items()}},
        lambda s: {"encoder_weights": s, "optim": OPTIMIZER.state_dict(), "scheduler": {"last": torch.tensor(3)}},
        lambda s: {"model": s, "args": argparse.Namespace(lr=0.1), "path": Path("x"), "best": np.float64(0.5),
                   "history": np.arange(3.0), "seen": {1, 2}, "counts": defaultdict(list, a=[1]), "big": 2**70},
    ],
)  # fmt: skip
def test_the_state_dict_is_found(tmp_path: Path, zipped: bool, wrap: object) -> None:
    path = tmp_path / "ckpt_000123.pt"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)  # type: ignore[operator]
    with open_checkpoint(path) as reader:
        assert_read(reader, STATE)


def test_tables_inside_the_state_dict_join_their_names(tmp_path: Path) -> None:
    torch.save({"model": {"head": {"w": torch.ones(2)}, "blocks": [torch.zeros(1)]}}, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as reader:
        assert set(reader.tensors) == {"head.w", "blocks.0"}


def test_a_state_key_chooses(tmp_path: Path) -> None:
    tables = {"critic": {"w": torch.zeros(2)}, "gan": {"generator": {"w": torch.ones(2)}}}
    torch.save(tables, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"may be any of 'critic', 'gan': name one, as in find_series"):
        open_checkpoint(tmp_path / "a.pt")
    for key, names in {"critic": {"w"}, "gan.generator": {"w"}, "": {"critic.w", "gan.generator.w"}}.items():
        with open_checkpoint(tmp_path / "a.pt", state_key=key) as reader:
            assert set(reader.tensors) == names
    with pytest.raises(DataError, match="has no table 'critic'; those with tensors are 'generator'"):
        open_checkpoint(tmp_path / "a.pt", state_key="gan.critic")


def test_tensors_that_cannot_be_read_do_no_harm_beside_the_model(tmp_path: Path) -> None:
    sparse = torch.eye(3).to_sparse()
    whole_numbers = torch.eye(3, dtype=torch.int64).to_sparse()
    torch.save({"model": {"w": torch.ones(2), "index": whole_numbers}, "optimizer": {"m": sparse}}, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as reader:
        assert reader.tensors["index"].floating is False
        with pytest.raises(DataError, match=r"tensor 'index' cannot be read .it is a sparse tensor"):
            reader.read("index")
        assert reader.read("w").tolist() == [1.0, 1.0]


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "b.pt"
    torch.save({"w": torch.ones(2**20)}, path)
    with open_checkpoint(path) as reader:
        read = count_reads(reader)
        part = reader.read("w", 2**20 - 3, 2**20)
        assert part.tolist() == [1.0] * 3
    assert read == [12]


def count_reads(reader: CheckpointReader) -> list[int]:
    lengths: list[int] = []
    for file in reader._files._files.values():
        original = file.bytes
        file.bytes = lambda length, offset, original=original: (lengths.append(length), original(length, offset))[1]  # type: ignore[method-assign]
    return lengths


@BOTH
def test_opening_reads_the_headers_alone(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    torch.save({f"w{i}": torch.ones(2**20) for i in range(4)}, path, _use_new_zipfile_serialization=zipped)
    total = 0
    pread, preadv = os.pread, os.preadv

    def counted(descriptor: int, n: int, offset: int) -> bytes:
        nonlocal total
        total += n
        return pread(descriptor, n, offset)

    def counted_into(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal total
        n = preadv(descriptor, buffers, offset)
        total += n
        return n

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr(os, "preadv", counted_into)
    with open_checkpoint(path) as reader:
        assert reader.n_bytes == path.stat().st_size > 2**24
    assert total < 2**19  # some blocks of 64 kB


def test_a_file_cut_while_read_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(2**18)}, path)
    with open_checkpoint(path) as reader:
        os.truncate(path, 4096)
        with pytest.raises(DataError, match=r"became shorter while it was read"):
            reader.read("w")


def test_a_file_overwritten_while_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.zeros(2**10)}, path)
    with open_checkpoint(path) as reader:
        content = bytearray(path.read_bytes())
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        with pytest.raises(DataError, match=r"a\.pt changed while it was read"):
            reader.read("w")


def test_bytes_of_the_other_order(tmp_path: Path) -> None:
    """As a machine of the other kind writes them: each number's bytes turned, and said so."""
    import zipfile

    path, turned = tmp_path / "a.pt", tmp_path / "b.pt"
    state = {"w": torch.randn(5, generator=torch.Generator().manual_seed(0)), "c": torch.tensor([1 + 2j])}
    torch.save(state, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(turned, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("byteorder"):
                data = b"big"
            elif "/data/" in info.filename:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            new.writestr(info.filename.replace("a/", "b/", 1), data)
    assert torch.equal(torch.load(turned)["w"], state["w"])
    with open_checkpoint(turned) as reader:
        assert_read(reader, state)


# Folders.


def test_torch_shards_by_their_index(tmp_path: Path) -> None:
    names = list(STATE)
    for i, part in enumerate((names[:3], names[3:])):
        torch.save({name: STATE[name] for name in part}, tmp_path / f"pytorch_model-0000{i + 1}-of-00002.bin")
    weight_map = {name: f"pytorch_model-0000{1 + (name not in names[:3])}-of-00002.bin" for name in names}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with open_checkpoint(tmp_path) as reader:
        assert_read(reader, STATE)
        assert reader.n_bytes == sum(file.stat().st_size for file in tmp_path.glob("*.bin"))


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "consolidated.safetensors", "adapter_model.safetensors", "pytorch_model_fsdp.bin",
     "weights.safetensors", "lit_model.pth", "diffusion_pytorch_model.safetensors"],
)  # fmt: skip
def test_names_of_single_files(tmp_path: Path, name: str) -> None:
    (save_file if name.endswith(".safetensors") else torch.save)(STATE, tmp_path / name)
    for other in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt"):
        (tmp_path / other).write_bytes(b"never opened")
    with open_checkpoint(tmp_path) as reader:
        assert_read(reader, STATE)


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    with open_checkpoint(tmp_path) as reader:
        assert list(reader.tensors) == ["w"]


def test_many_files_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_OPEN", 3)
    weight_map = {}
    for i in range(8):
        save_file({f"w{i}": torch.full((4,), float(i))}, tmp_path / f"part-{i}.safetensors")
        weight_map[f"w{i}"] = f"part-{i}.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    before = len(os.listdir("/proc/self/fd"))
    with open_checkpoint(tmp_path) as reader:
        assert len(os.listdir("/proc/self/fd")) <= before + 3
        for i in (0, 7, 3, 0):
            assert reader.read(f"w{i}").tolist() == [float(i)] * 4
        save_file({"w5": torch.zeros(4)}, tmp_path / "part-5.safetensors")  # another file of that name
        with pytest.raises(DataError, match=r"part-5\.safetensors changed while it was read"):
            reader.read("w5")
    assert len(os.listdir("/proc/self/fd")) == before
