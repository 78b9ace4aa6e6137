"""Which ring fits a budget, told before it is made."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import spectraledge as se
from spectraledge._attach import plan_stores
from spectraledge.cli.app import app
from spectraledge.errors import SettingError
from spectraledge.stream.blocks import make_blocks
from spectraledge.stream.choose import candidates, pick, reason
from spectraledge.stream.cost import ring_size
from spectraledge.stream.store import make_ring


@pytest.mark.parametrize("decay", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("store", "precision"),
    [("device", "full"), ("host", "bfloat16"), ("file", "full"), ("file", "bfloat16"), ("sketch", "full")],
)
def test_sizes_are_those_of_the_rings(
    store: str, precision: str, dtype: torch.dtype, decay: bool, tmp_path: Path
) -> None:
    shapes = {"a.w": (300,), "b.w": (41,)}
    tensors = {n: torch.ones(s, dtype=dtype) for n, s in shapes.items()}
    options: dict[str, Any] = {"decay": decay, "store": store, "precision": precision, "sketch_size": 64}
    ring = make_ring(make_blocks(shapes), tensors, 5, folder=tmp_path, **options)
    size = ring_size(341, 2, 5, itemsize=dtype.itemsize, **options)
    assert ring.nbytes == size.memory + size.file
    assert (size.file > 0) == (store == "file")


@pytest.mark.parametrize(
    ("memory", "chosen"),
    [
        (9.92e9, "device, full"),
        (9.91e9, "device, bfloat16"),
        (5.2e9, "file, full"),
        (4.9e8, "sketch of 16,384"),
        (3e7, "sketch of 8,192"),
        (2.2e6, "sketch of 1,024"),
    ],
)
def test_the_first_that_fits_is_chosen(memory: float, chosen: str, tmp_path: Path) -> None:
    found = candidates(124_000_000, 13, 19, memory=memory, folder=tmp_path)
    one = pick(found, memory)
    assert one.name == chosen
    assert one.memory_bytes <= memory
    said = reason(one, found, memory)
    assert said.startswith("ring within ")
    assert ("device, full would take 9.92 GB" in said) == (chosen != "device, full")


def test_probes_leave_no_sketch_and_a_full_disk_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [c.name for c in candidates(10**9, 1, 19, folder=tmp_path, probes=True)]
    assert names == ["device, full", "device, bfloat16", "file, full", "file, bfloat16"]
    monkeypatch.setattr("spectraledge.stream.choose._room", lambda folder: 10**9)
    found = candidates(10**9, 1, 19, memory=5e9, folder=tmp_path)
    assert pick(found, 5e9).store == "sketch"
    with pytest.raises(SettingError, match=r"memory must hold the ring; got 1 MB, and the least is sketch of 1,024"):
        pick(candidates(10**9, 13, 19, memory=1e6), 1e6)


def test_on_an_accelerator_main_memory_comes_before_bfloat16() -> None:
    found = candidates(10**6, 1, 19, device="cuda")
    assert [c.name for c in found][:4] == ["device, full", "host, full", "device, bfloat16", "host, bfloat16"]
    assert found[1].memory_bytes == found[0].memory_bytes + 4 * 10**6  # pinned room for one copy


def test_times_are_measured(tmp_path: Path) -> None:
    found = plan_stores(1_000_000, window=4, folder=tmp_path, memory=1e9)
    assert [c.fits for c in found] == [True] * 5
    assert all(c.append_ms is not None and 0 < c.append_ms < 1e4 for c in found)
    cost = se.plan(1_000_000, window=4, memory=3e7)
    assert (cost.store, cost.precision, cost.ring_bytes) == ("device", "bfloat16", 18_000_000)
    assert "updates in bfloat16" in str(cost)
    sketched = se.plan(1_000_000, window=4, store="sketch", sketch_size=1024)
    assert sketched.ring_bytes == 8 * 1024 * 8
    assert "updates in sketches of 1,024" in str(sketched)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 1e6, "store": "host"}, "memory= chooses store and precision"),
        ({"memory": -1.0}, "memory must be a number of bytes above 0"),
        ({"store": "file"}, "needs a folder for its file"),
        ({"store": "sketch", "precision": "bfloat16"}, "a sketch keeps its few numbers in float64"),
        ({"store": "tape"}, "store must be one of"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"sketch_check": 1}, "only a sketch needs a check"),
        ({"sketch_size": 100}, "Use sketch_size=128"),
    ],
)
def test_attach_refuses(options: dict[str, Any], message: str) -> None:
    model = torch.nn.Linear(3, 2)
    with pytest.raises(SettingError, match=message):
        se.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_attach_says_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    model = torch.nn.Linear(3, 2)
    with caplog.at_level(logging.INFO, logger="spectraledge"):
        monitor = se.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), memory=1e6, window=4)
    monitor.detach()
    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("ring within 1 MB: device, full")]


def test_recordings_of_every_ring(tmp_path: Path) -> None:
    def run(name: str, **options: Any) -> se.Recording:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 40), torch.nn.Tanh(), torch.nn.Linear(40, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        out = tmp_path / name
        with se.attach(model, optimizer, window=4, every=1, out=out, on_error="raise", **options):
            for _ in range(14):
                optimizer.zero_grad()
                model(torch.randn(16, 6)).square().mean().backward()
                optimizer.step()
        assert {path.name for path in out.iterdir()} == {"recording.jsonl"}
        return se.load(out)

    exact = run("device")
    file, half = run("file", store="file"), run("half", precision="bfloat16")
    sketch = run("sketch", store="sketch", sketch_size=1024, sketch_check=2)
    assert np.array_equal(file.products, exact.products, equal_nan=True)
    assert half.error_norm2 is not None
    true, found = exact.spectra(4), half.spectra(4)
    assert (np.abs(found.singular_values - true.singular_values).max(axis=1) <= found.error + true.floor).all()
    assert (sketch.sketch_size, sketch.error_norm2) == (1024, None)
    found = sketch.spectra(4)
    assert (np.abs(found.singular_values / true.singular_values - 1) < found.relative_error).all()
    assert [(event.step, event.kind) for event in sketch.events] == [(4, "sketch_checked"), (8, "sketch_checked")]
    merged = half.merged()
    np.testing.assert_array_equal(merged.spectra(4).floor, half.spectra(4).floor)
    half.save(tmp_path / "copy")
    assert se.load(tmp_path / "copy").equals(half)


def test_the_command_shows_all_ways() -> None:
    arguments = ["plan", "--parameters", "1e6", "--memory", "50e6", "--window", "10"]
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    content = json.loads(told.output)
    assert content["chosen"] == "device, bfloat16"
    names = [store["name"] for store in content["stores"]]
    assert names == ["device, full", "device, bfloat16", "file, full", "file, bfloat16", "sketch of 16,384"]
    assert all(store["append_ms"] > 0 for store in content["stores"])
    shown = CliRunner().invoke(app, arguments)
    assert "device, bfloat16" in shown.output
