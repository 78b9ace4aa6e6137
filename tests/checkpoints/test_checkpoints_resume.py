"""An analysis that is killed goes on where it was, and gives the same recording to the bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints_series import save_walk

import spectraledge as se
from spectraledge.checkpoints import groups
from spectraledge.checkpoints.resume import FOLDER
from spectraledge.errors import DataError, OutputError

SETTINGS = {"window": 4}
PROGRAM = """
import os, signal, sys
import spectraledge as se
from spectraledge.checkpoints import groups

groups.TILES_IN_PART, groups.TILE_BYTES = 3, 6000

def kill(done, total, name):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

se.analyze(sys.argv[1], out=sys.argv[2], window=4, jobs=1, progress=kill)
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "TILES_IN_PART", 3)
    monkeypatch.setattr(groups, "TILE_BYTES", 6000)  # ten rows of 16 float32 entries, 9 copies


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_walk(tmp_path / "ckpts")


def readings(folder: Path) -> int:
    calls: list[int] = []
    se.analyze(folder, **SETTINGS, progress=lambda done, total, name: calls.append(total))
    return calls[-1]


def interrupt(folder: Path, out: Path, at: int) -> None:
    """Leave what a run leaves that stops at reading ``at``."""

    class Stop(Exception):
        pass

    def stop(done: int, total: int, name: str) -> None:
        if done == at:
            raise Stop

    with pytest.raises(Stop):
        se.analyze(folder, out=out, **SETTINGS, jobs=1, progress=stop)


def resumed(folder: Path, out: Path, **settings: object) -> tuple[se.Recording, list[str], int]:
    """The recording, what was said, and the first number that progress showed."""
    said: list[str] = []
    calls: list[int] = []
    recording = se.analyze(
        folder,
        out=out,
        **SETTINGS | settings,
        say=said.append,
        progress=lambda done, total, name: calls.append(done),
    )
    return recording, said, calls[0]


def test_killed_and_started_again_it_goes_on(folder: Path, tmp_path: Path) -> None:
    total = readings(folder)
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(folder), str(out), str(total * 3 // 4)]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert not (out / "recording.jsonl").exists()
    assert (out / FOLDER / "parts.jsonl").stat().st_size > 0
    recording, said, first = resumed(folder, out)
    assert said[0].startswith("going on behind ")
    assert first > 1
    assert sorted(path.name for path in out.iterdir()) == ["recording.jsonl"]
    assert recording == se.load(out) == se.analyze(folder, **SETTINGS)


def test_finished_parts_are_not_done_again(folder: Path, tmp_path: Path) -> None:
    total = readings(folder)
    interrupt(folder, tmp_path, total - 1)
    recording, said, first = resumed(folder, tmp_path)
    assert first > 1
    (sentence,) = said
    assert sentence.startswith("going on behind ")
    assert recording == se.analyze(folder, **SETTINGS)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_log_that_is_cut_anywhere_costs_only_what_is_behind(folder: Path, tmp_path: Path, share: float) -> None:
    interrupt(folder, tmp_path, readings(folder) - 1)
    log = tmp_path / FOLDER / "parts.jsonl"
    data = log.read_bytes()
    log.write_bytes(data[: int(share * len(data))])
    recording, _, _ = resumed(folder, tmp_path)
    assert recording == se.analyze(folder, **SETTINGS)


def test_a_damaged_part_is_done_again(folder: Path, tmp_path: Path) -> None:
    interrupt(folder, tmp_path, readings(folder) - 1)
    log = tmp_path / FOLDER / "parts.jsonl"
    data = bytearray(log.read_bytes())
    data[-100] ^= 1
    log.write_bytes(data)
    recording, _, _ = resumed(folder, tmp_path)
    assert recording == se.analyze(folder, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "what"),
    [({"lags": 9}, "the lags"), ({"blocks": "all"}, "the blocks"), ({"params": "attn"}, "the tensors")],
)
def test_another_setting_starts_anew_and_says_so(
    folder: Path, tmp_path: Path, change: dict[str, object], what: str
) -> None:
    interrupt(folder, tmp_path, readings(folder) - 1)
    recording, said, first = resumed(folder, tmp_path, **change)
    assert first == 1
    assert "starting anew" in said[0]
    assert what in said[0]
    assert recording == se.analyze(folder, **SETTINGS | change)


def test_a_changed_series_starts_anew_and_says_so(folder: Path, tmp_path: Path) -> None:
    interrupt(folder, tmp_path / "out", readings(folder) - 1)
    save_walk(folder, seed=1)
    recording, said, first = resumed(folder, tmp_path / "out")
    assert first == 1
    assert "starting anew: the series changed" in said[0]
    assert recording == se.analyze(folder, **SETTINGS)


def test_jobs_may_change_between_the_runs(folder: Path, tmp_path: Path) -> None:
    interrupt(folder, tmp_path, readings(folder) - 1)
    recording, said, _ = resumed(folder, tmp_path, jobs=2)
    assert said[0].startswith("going on behind ")
    assert recording == se.analyze(folder, **SETTINGS)


def test_a_second_analysis_into_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    def second(done: int, total: int, name: str) -> None:
        if done == 1:
            with pytest.raises(OutputError, match="must have one writer"):
                se.analyze(folder, out=tmp_path / "out", **SETTINGS)

    se.analyze(folder, out=tmp_path / "out", **SETTINGS, jobs=1, progress=second)
    assert se.load(tmp_path / "out").closed


def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = save_walk(tmp_path / "ckpts", 2)
    (folder / "step-10.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="at least 2 checkpoints"):
        se.analyze(folder, out=tmp_path / "out", window=2)
    assert list((tmp_path / "out").iterdir()) == []


def test_without_out_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    se.analyze(folder, **SETTINGS)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_recording_is_replaced_at_the_end_only(folder: Path, tmp_path: Path) -> None:
    first = se.analyze(folder, out=tmp_path / "out", **SETTINGS)

    def look(done: int, total: int, name: str) -> None:
        assert se.load(tmp_path / "out") == first

    second = se.analyze(folder, out=tmp_path / "out", window=2, overwrite=True, progress=look)
    assert se.load(tmp_path / "out") == second
    assert second.lags == 3


def test_half_precision_sums_are_kept_too(tmp_path: Path) -> None:
    folder = save_walk(tmp_path / "ckpts", dtype=torch.bfloat16)
    interrupt(folder, tmp_path / "out", readings(folder) - 1)
    recording, said, _ = resumed(folder, tmp_path / "out")
    assert said[0].startswith("going on behind ")
    assert recording == se.analyze(folder, **SETTINGS)
