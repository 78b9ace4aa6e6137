"""Which files make up a series, in which order, and what is said where there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spectraledge as se
from spectraledge.checkpoints.header import TensorInfo
from spectraledge.checkpoints.names import step_of
from spectraledge.checkpoints.series import common_stride, find_series
from spectraledge.checkpoints.structure import describe_change, is_buffer, structure_of
from spectraledge.errors import DataError, SettingError


def put(folder: Path, *names: str, dtype: torch.dtype = torch.float32) -> Path:
    """Checkpoints by name: files where the name has the suffix, folders elsewhere."""
    for i, name in enumerate(names):
        path = folder / name if name.endswith(".safetensors") else folder / name / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"w": torch.arange(3.0).add(i).to(dtype), "n": torch.tensor(1)}, path)
    return folder


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-100.safetensors", 100),
        ("step-100", 100),
        ("step1000", 1000),
        ("step_0", 0),
        ("step-00000100", 100),
        ("step-001000-2BT", 1000),
        ("step-140000-294BT", 140000),
        ("step1000-tokens4B", 1000),
        ("checkpoint-500", 500),
        ("epoch=3-step=1200", 1200),
        ("epoch=3-step=1200.safetensors", 1200),
        ("250", 250),
        ("000250", 250),
        ("ckpt_000123.safetensors", 123),
        ("iter_0005000", 5000),
        ("global_step700", 700),
        ("model_step_70", 70),
        ("gpt2-small-100", 100),
        ("Step-5", 5),
        ("main", None),
        ("final.safetensors", None),
        ("model.safetensors", None),
        ("llama-7b", None),
        ("footstep", None),
        ("step-99999999999999999999", None),
        ("step-١٢", None),
    ],
)
def test_steps_in_names(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_step_regex() -> None:
    assert step_of("a7-b8", r"b(\d+)") == 8
    assert step_of("a7-b8", r"a(?P<x>\d)-b(?P<step>\d)") == 8
    assert step_of("a7-b8", r"\d+") == 7
    assert step_of("a7-b8", r"c(\d+)") is None
    with pytest.raises(SettingError, match=r"step_regex must be a regular expression; got '\('"):
        step_of("a", "(")
    with pytest.raises(SettingError, match=r"must pick a whole number .* picks 'a' out of 'a7'"):
        step_of("a7", "([a-z])")


def test_order_is_numeric_and_junk_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "step-1000", "step-200", "step-30", "main", "final.safetensors")
    (tmp_path / "tensorboard-2024").mkdir()
    (tmp_path / ".step-40.tmp").mkdir()
    (tmp_path / "notes-7.txt").write_text("")
    series = find_series(tmp_path)
    assert series.steps == [30, 200, 1000]
    assert set(series.ignored) == {"main", "final.safetensors"}


def test_an_explicit_list(tmp_path: Path) -> None:
    put(tmp_path, "a/step-20.safetensors", "b/checkpoint-10", "c/step5")
    series = find_series(
        [tmp_path / "a/step-20.safetensors", tmp_path / "b/checkpoint-10", tmp_path / "c/step5/model.safetensors"]
    )
    assert series.steps == [5, 10, 20]
    assert [row["problem"] for row in series.table()] == [None] * 3


def test_the_table_tells_before_reading(tmp_path: Path) -> None:
    put(tmp_path, "step-1.safetensors")
    put(tmp_path, "step-2", dtype=torch.bfloat16)
    (tmp_path / "step-3").mkdir()
    rows = find_series(tmp_path).table()
    size = (tmp_path / "step-1.safetensors").stat().st_size
    assert rows[0] == {
        "step": 1, "file": "step-1.safetensors", "bytes": size, "dtype": "float32", "tensors": 2, "problem": None,
    }  # fmt: skip
    assert rows[1]["dtype"] == "bfloat16"
    assert rows[2]["bytes"] is None
    assert "neither model.safetensors nor" in rows[2]["problem"]


def test_step_regex_chooses_members(tmp_path: Path) -> None:
    put(tmp_path, *(f"{kind}-{step}.safetensors" for kind in ("model", "optimizer") for step in (1, 2, 3)))
    with pytest.raises(DataError, match=r"step 1 has model-1\.safetensors and optimizer-1\.safetensors\. "):
        find_series(tmp_path)
    series = find_series(tmp_path, step_regex=r"model-(\d+)")
    assert series.steps == [1, 2, 3]
    assert len(series.ignored) == 3


def sentence(source: object, **options: object) -> str:
    with pytest.raises((DataError, SettingError)) as caught:
        find_series(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_no_series(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert sentence(tmp_path / "empty") == (
        f"{tmp_path / 'empty'} holds 0 checkpoints; at least 2 are needed to form an update."
    )
    put(tmp_path / "one", "step-1")
    assert sentence(tmp_path / "one") == (
        f"{tmp_path / 'one'} holds 1 checkpoint; at least 2 are needed to form an update."
    )
    put(tmp_path / "nameless", "a.safetensors", "b.safetensors")
    assert "must have a step in their names; none has one in a.safetensors, b.safetensors" in sentence(
        tmp_path / "nameless"
    )
    put(tmp_path / "steps", "step-1", "step-2")
    assert "step_regex='x' finds none in step-1, step-2" in sentence(tmp_path / "steps", step_regex="x")
    assert "itself 1 checkpoint" in sentence(tmp_path / "steps" / "step-1")
    assert "does not exist" in sentence(tmp_path / "nowhere")
    assert "does not exist" in sentence("EleutherAI/pythia-70m")
    assert "is a file" in sentence(put(tmp_path, "step-9.safetensors") / "step-9.safetensors")
    assert "does not. Take it out" in sentence([tmp_path / "nowhere" / "step-1.safetensors"])
    assert "has none. Rename it" in sentence([tmp_path / "nameless" / "a.safetensors"])
    assert "the list of 0 paths holds 0 checkpoints" in sentence([])


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["ckpt_000100.pt", "ckpt_000020.pt"], [20, 100]),
        (["epoch=0-step=12.ckpt", "epoch=1-step=200.ckpt", "last.ckpt"], [12, 200]),
        (["epoch=2-step=30.ckpt", "epoch=9-step=4.ckpt"], [4, 30]),
        (["step-2.pth", "step-10.bin", "final.pth"], [2, 10]),
        (["checkpoint-5/pytorch_model.bin", "checkpoint-10/pytorch_model.bin", "main/pytorch_model.bin"], [5, 10]),
        (["step1/model.pt", "step2/model.pt", "step0/consolidated.pth"], [0, 1, 2]),
        (["1000/pytorch_model.bin", "200/pytorch_model.bin"], [200, 1000]),
        (["step-001000-2BT/pytorch_model.bin", "step-000500-1BT/pytorch_model.bin"], [500, 1000]),
        (["step-1.pt", "step-2.pt", "optimizer-3.pt", "training_args.bin"], [1, 2]),
    ],
)
def test_torch_files_by_the_names_of_their_trainers(tmp_path: Path, names: list[str], steps: list[int]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({"state_dict": {"w": torch.ones(3)}}, tmp_path / name)
    series = find_series(tmp_path)
    assert series.steps == steps
    assert [row["problem"] for row in series.table()] == [None] * len(steps)
    assert set(series.ignored) == {name.split("/")[0] for name in names} - {c.path.name for c in series.checkpoints}


def test_a_final_copy_is_never_counted_twice(tmp_path: Path) -> None:
    """``main`` and ``last.ckpt`` hold the weights of the last step again: listed as ignored, and no member."""
    put(tmp_path, "step-1", "step-2", "main", "final.safetensors")
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "step-2" / "model.safetensors").read_bytes())
    series = find_series(tmp_path)
    assert series.steps == [1, 2]
    assert series.ignored == ("final.safetensors", "last.ckpt", "main")


def test_formats_may_change_along_a_series(tmp_path: Path) -> None:
    put(tmp_path, "step-1.safetensors")
    torch.save({"w": torch.ones(3)}, tmp_path / "step-2.pt")
    series = find_series(tmp_path)
    assert [row["problem"] for row in series.table()] == [None, None]


def test_the_state_key_goes_to_every_member(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save({key: {"w": torch.ones(3)} for key in ("critic", "generator")}, tmp_path / f"step-{step}.pt")
    assert "name one, as in find_series(folder, state_key='critic')" in find_series(tmp_path).table()[0]["problem"]
    series = find_series(tmp_path, state_key="critic")
    assert [row["tensors"] for row in series.table()] == [1, 1]


def test_optimizer_states_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    put(tmp_path, "step-1.safetensors", "step-2.safetensors")
    (tmp_path / "step-1.pt").write_bytes(b"")
    series = find_series(tmp_path)
    assert series.steps == [1, 2]
    assert series.ignored == ("step-1.pt",)


SERIES: dict[str, tuple[list[str], str]] = {
    "one step twice": (["step-1.pt", "step-1.ckpt", "step-2.pt"], r"step 1 has step-1\.ckpt and step-1\.pt"),
    "one step under two names": (["step-1.pt", "step-01.pt"], r"step 1 has step-01\.pt and step-1\.pt"),
    "versions of Lightning": (["epoch=0-step=5.ckpt", "epoch=0-step=5-v1.ckpt"], "step 5 has epoch=0-step=5"),
    "one": (["step-1.pt"], "holds 1 checkpoint; at least 2"),
    "shards without a folder": (
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
        "must have a",
    ),
    "no steps": (["best.ckpt", "last.ckpt"], "must have a step in their names; none has one in best.ckpt, last.ckpt"),
    "a step too large": (["step-99999999999999999999.pt", "step-1.pt"], "holds 1 checkpoint"),
    "itself one": (["pytorch_model.bin"], "is itself 1 checkpoint"),
    "itself distributed": ([".metadata", "__0_0.distcp"], "is itself 1 checkpoint"),
}


@pytest.mark.parametrize("fault", SERIES)
def test_bad_series(tmp_path: Path, fault: str) -> None:
    names, words = SERIES[fault]
    for name in names:
        (tmp_path / name).write_bytes(b"never opened")
    assert re.search(words, sentence(tmp_path))


@pytest.mark.parametrize(
    ("states", "change"),
    [
        ([{"w": 3}, {"w": 3, "v": 2}], "new: v"),
        ([{"w": 3, "v": 2}, {"w": 3}], "gone: v"),
        ([{"embed.weight": 50257}, {"embed.weight": 50304}], r"resized: embed.weight (50257,) -> (50304,)"),
        ([{"a.w": 3}, {"b.w": 3}], "new: b.w; gone: a.w"),
        ([{"w": 3}, {"module.w": 3}], "start"),
        ([{"w": 3}, {"w": 3, "norm.running_mean": 4}], "start"),
    ],
)
def test_changes_of_structure_along_a_series(tmp_path: Path, states: list[dict[str, int]], change: str) -> None:
    structures = []
    for step, shapes in enumerate(states):
        torch.save({name: torch.ones(n) for name, n in shapes.items()}, tmp_path / f"step-{step}.pt")
    for checkpoint in find_series(tmp_path).checkpoints:
        with checkpoint.open() as reader:
            structures.append(structure_of(reader.tensors))
    assert (describe_change(*structures) or "start") == change


def test_half_precision_within_a_series_is_a_change(tmp_path: Path) -> None:
    structures = [structure_of({"w": TensorInfo("w", (2,), dtype)}) for dtype in ("float32", "bfloat16")]
    assert describe_change(*structures) == "cast: w float32 -> bfloat16"


def test_duplicate_steps(tmp_path: Path) -> None:
    put(tmp_path, "step-1", "step-1.safetensors", "step-2")
    assert "step 1 has step-1 and step-1.safetensors" in sentence(tmp_path)


def test_a_folder_that_links_elsewhere_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "step-2")
    put(tmp_path / "run", "step-1", "step-3")
    (tmp_path / "run" / "step-2").symlink_to(tmp_path / "elsewhere" / "step-2")
    rows = find_series(tmp_path / "run").table()
    assert "link that leads out of" in rows[1]["problem"]
    put(tmp_path / "run", "step-4")
    recording = se.analyze(tmp_path / "run", window=2)
    assert recording.steps.tolist() == [4]
    assert "link that leads out of" in recording.events[0].detail


def test_common_stride_prefers_the_smaller_of_equals() -> None:
    assert common_stride([0, 1, 3]) == 1
    assert common_stride([0, 10, 20, 25]) == 10


@pytest.mark.parametrize(
    ("name", "shape", "is_one"),
    [
        ("bn.running_mean", (4,), True),
        ("bn.num_batches_tracked", (), True),
        ("layers.0.attention.rotary_emb.inv_freq", (16,), True),
        ("gpt_neox.layers.0.attention.bias", (1, 1, 64, 64), True),
        ("gpt_neox.layers.0.attention.masked_bias", (), True),
        ("h.0.attn.bias", (1, 1, 64, 64), True),
        ("h.0.attn.bias", (64,), False),
        ("h.0.attn.c_attn.bias", (192,), False),
        ("embeddings.position_ids", (1, 512), True),
        ("optimizer.state.0.exp_avg", (4,), True),
        ("running.weight", (4,), False),
        ("norm.weight", (4,), False),
    ],
)
def test_buffers_by_name(name: str, shape: tuple[int, ...], is_one: bool) -> None:
    assert is_buffer(name, shape) == is_one


def test_wrapped_names_that_collide() -> None:
    tensors = {name: TensorInfo(name, (2,), "float32") for name in ("module.w", "w")}
    with pytest.raises(DataError, match=r"module\.w and w are both w"):
        structure_of(tensors)
    with pytest.raises(DataError, match="none of its 1 tensors is one"):
        structure_of({"n": TensorInfo("n", (2,), "I64")})
