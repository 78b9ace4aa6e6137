"""Runs in folders: what is written, what is refused, and that kill and resume change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectraledge.errors import OutputError, SettingError
from spectraledge.experiments import catalogue
from spectraledge.experiments.checkpoint import checkpoint_folders, newest_valid
from spectraledge.experiments.loop import train
from spectraledge.experiments.optimizers import build_optimizers
from spectraledge.experiments.run import run
from spectraledge.experiments.session import own_torch
from spectraledge.experiments.settings import ModularSettings
from spectraledge.recording import Recording, load

TINY: dict[str, Any] = {
    "p": 7,
    "d_model": 8,
    "layers": 1,
    "heads": 2,
    "d_hidden": 8,
    "batch_size": 8,
    "steps": 60,
    "eval_every": 10,
}
CALL: dict[str, Any] = {"settings": TINY, "window": 3, "every": 4, "checkpoint_every": 20}

# Each child dies by SIGKILL at another point: before any checkpoint, after the metrics of a step but before
# its checkpoint, while a checkpoint is being written, between its writing and its renaming, after the last
# one.
KILLS = {"early": 10, "metrics": 40, "writing": 40, "renaming": 60, "finishing": 60}

CHILD = """
import os, signal, sys, json
from pathlib import Path
import spectraledge.experiments.checkpoint as checkpoint
import spectraledge.experiments.session as session
from spectraledge.experiments.loop import train
from spectraledge.experiments.optimizers import build_optimizers
from spectraledge.experiments.run import run
from spectraledge.experiments.session import own_torch
from spectraledge.experiments.settings import ModularSettings

root, call, kills = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

for kind, at in kills.items():
    pid = os.fork()
    if pid == 0:
        def progress(step, steps, metrics):
            if step != at:
                return
            if kind in ("early", "metrics"):
                die()
            elif kind == "writing":
                checkpoint.save_model = die
            elif kind == "renaming":
                checkpoint.os = type("os", (), {**vars(os), "replace": die})
            else:
                session.write_json = die
        run("modular/add", out=root / kind, progress=progress, **call)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, kind
"""


@pytest.fixture(scope="module")
def whole() -> Recording:
    return run("modular/add", **{**CALL, "checkpoint_every": None})


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", CHILD, str(root), json.dumps(CALL), json.dumps(KILLS)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return root


def test_the_record_of_a_run(whole: Recording) -> None:
    np.testing.assert_array_equal(whole.steps, np.arange(4, 61, 4))
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "grad_norm", "lr"):
        steps, values = whole.metrics[name]
        np.testing.assert_array_equal(steps, [1, 10, 20, 30, 40, 50, 60])
        assert np.all(np.isfinite(values))
    assert whole.blocks[0] == "all"
    assert whole.lags == 5
    assert whole.spectra(window=3).singular_values.shape[1] == 3


def test_recording_a_run_does_not_alter_it(whole: Recording) -> None:
    settings = ModularSettings(**TINY)
    rows: list[dict[str, float]] = []
    with own_torch(settings):
        experiment = catalogue.entry("modular/add").build(settings)
        optimizers = build_optimizers(experiment.model, settings, experiment.outer)
        train(experiment, optimizers, settings, log=lambda **metrics: rows.append(metrics))
    # Without the monitor and without the baselines: neither may be seen in the rest.
    for name, (_, values) in whole.metrics.items():
        if not name.startswith("commutator"):
            assert values.tolist() == [row[name] for row in rows]
    # The recorded squared length of the parameter vector is a float64 sum of the float32 entries, in another
    # order than here: 887 terms, relative error below 887 * 2.2e-16.
    norm2 = sum(float((p.detach().double() ** 2).sum()) for p in experiment.model.parameters())
    assert whole.theta_norm2[-1, 0] == pytest.approx(norm2, rel=2e-13)


def test_a_folder_holds_the_run(tmp_path: Path, whole: Recording) -> None:
    recording = run("modular/add", out=tmp_path / "run", **CALL)
    assert recording == whole
    assert load(tmp_path / "run") == whole
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["p"] == 7
    assert config["settings"]["lr"] == 1e-3
    assert config["monitor"] == {
        "window": 3,
        "every": 4,
        "lags": 5,
        "blocks": "layer",
        "decay_products": False,
    }
    assert "--set p=7" in config["command"]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["threads"] == 1
    assert environment["torch"] == torch.__version__
    finished = json.loads((tmp_path / "run" / "finished.json").read_text())
    assert (finished["step"], finished["reason"]) == (60, "steps")
    names = [path.name for path in checkpoint_folders(tmp_path / "run" / "checkpoints")]
    assert names == ["step-00000040", "step-00000060"]


def test_checkpoints_nobody_asked_for_go_when_the_run_has_finished(tmp_path: Path) -> None:
    run("modular/add", out=tmp_path, **{**CALL, "checkpoint_every": None})
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("kind", sorted(KILLS))
def test_killed_and_resumed_is_bit_equal_to_uninterrupted(killed: Path, whole: Recording, kind: str) -> None:
    steps: list[int] = []
    recording = run("modular/add", out=killed / kind, resume=True, progress=lambda s, *_: steps.append(s), **CALL)
    restart = {"early": 1, "metrics": 30, "writing": 30, "renaming": 50, "finishing": None}[kind]
    assert (steps[0] if steps else None) == restart
    assert recording == whole
    assert load(killed / kind) == whole
    np.testing.assert_array_equal(recording.products, whole.products)


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_interrupted_and_resumed_with_other_optimizers(tmp_path: Path, optimizer: str) -> None:
    def interrupt(step: int, steps: int, metrics: object) -> None:
        if step == 30:
            raise KeyboardInterrupt

    call = {**CALL, "optimizer": optimizer, "schedule": "cosine", "warmup": 5}
    with pytest.raises(KeyboardInterrupt):
        run("modular/add", out=tmp_path, progress=interrupt, **call)
    assert run("modular/add", out=tmp_path, resume=True, **call) == run(
        "modular/add", **{**call, "checkpoint_every": 0}
    )


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "monitor.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, whole: Recording, name: str) -> None:
    run("modular/add", out=tmp_path, **CALL)
    (tmp_path / "finished.json").unlink()
    file = tmp_path / "checkpoints" / "step-00000060" / name
    content = bytearray(file.read_bytes())
    # The last digit in the file: of a tensor's bytes, or of a number in the table.
    place = max(i for i, byte in enumerate(content) if name != "state.json" or chr(byte).isdigit())
    content[place] ^= 1
    file.write_bytes(content)
    found = newest_valid(tmp_path / "checkpoints")
    assert found is not None
    assert found.name == "step-00000040"
    assert run("modular/add", out=tmp_path, resume=True, **CALL) == whole


def test_checkpoints_that_cannot_be_written_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()

    def block(step: int, steps: int, metrics: object) -> None:
        if step == 10:
            (tmp_path / "run" / "checkpoints").write_text("a file where the folder should be")

    with pytest.raises(OutputError, match=r"must be writable for checkpoints; got .*Free space there"):
        run("modular/add", out=tmp_path / "run", progress=block, **CALL)


def test_a_finished_run_returns_at_once(tmp_path: Path, whole: Recording) -> None:
    run("modular/add", out=tmp_path, **CALL)
    before = (tmp_path / "recording.jsonl").read_bytes()

    def never(*args: object) -> None:
        raise AssertionError

    assert run("modular/add", out=tmp_path, resume=True, progress=never, **CALL) == whole
    assert (tmp_path / "recording.jsonl").read_bytes() == before


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path, whole: Recording) -> None:
    run("modular/add", out=tmp_path, **CALL)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"must not hold a recording yet; got one\. Use resume=True"):
        run("modular/add", out=tmp_path, **CALL)
    changed = {**CALL, "weight_decay": 0, "every": 5}
    with pytest.raises(
        SettingError,
        match=r"got other values of every \(4 there, 5 here\), weight_decay \(1\.0 there, 0\.0 here\)",
    ):
        run("modular/add", out=tmp_path, resume=True, **changed)
    with pytest.raises(SettingError, match=r"experiment \(modular/add there, modular/sub here\)"):
        run("modular/sub", out=tmp_path, resume=True, **CALL)
    with pytest.raises(SettingError, match="must not both be asked for"):
        run("modular/add", out=tmp_path, resume=True, overwrite=True, **CALL)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    replaced = run("modular/add", out=tmp_path, overwrite=True, **changed)
    assert replaced != whole
    np.testing.assert_array_equal(replaced.steps, np.arange(5, 61, 5))
    assert json.loads((tmp_path / "config.json").read_text())["settings"]["weight_decay"] == 0


def test_a_recording_of_another_origin_is_not_resumed(tmp_path: Path) -> None:
    run("modular/add", out=tmp_path, **CALL)
    (tmp_path / "config.json").unlink()
    with pytest.raises(OutputError, match=r"must hold config\.json to be resumed"):
        run("modular/add", out=tmp_path, resume=True, **CALL)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"checkpoint_every": -1}, "checkpoint_every must be at least 0; got -1"),
        ({"resume": True}, "must have a folder; got out=None"),
        ({"window": 1}, "window must be at least 2 and every at least 1; got 1 and 25"),
        ({"blocks": len}, "blocks of a catalogued run must be a name or a table of patterns"),
    ],
)
def test_arguments_that_cannot_be(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        run("modular/add", **values)
