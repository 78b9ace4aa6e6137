"""The command line as a process: exit status, streams, one sentence, and what it does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spectraledge import __version__
from spectraledge.cli import main as entry
from spectraledge.cli.main import run


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "from spectraledge.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_done_is_0() -> None:
    done = call("list", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)


def test_a_mistake_is_2_and_one_sentence_on_standard_error(tmp_path: Path) -> None:
    done = call("show", str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "holds none (recording.jsonl not found)" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_loaded_for_light_commands(tmp_path: Path) -> None:
    code = (
        "import sys; from spectraledge.cli.main import run; "
        "assert run(['list']) == 0 and run(['--help']) == 0 and run(['show', '--help']) == 0 and "
        "run(['show', 'nowhere']) == 2; "
        "heavy = {'torch', 'matplotlib', 'plotly', 'pandas'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show"], "Missing argument"),
        (["show", "x", "--window", "ten"], "--window"),
        (["show", "x", "--windw", "3"], "No such option: --windw"),
        (["frobnicate"], "No such command"),
        (["run", "modular/add", "--seed", "1.5"], "--seed"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("spectraledge: ")
    assert words in captured.err
    assert "--help" in captured.err


def test_a_fault_of_ours_is_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(path: object) -> None:
        raise ZeroDivisionError("a bug\nin two lines")

    monkeypatch.setattr("spectraledge.recording.load", broken)
    monkeypatch.delenv("SPECTRALEDGE_DEBUG", raising=False)
    assert run(["show", "anything"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "a fault of spectraledge, not of yours: ZeroDivisionError: a bug in two lines" in captured.err
    assert "SPECTRALEDGE_DEBUG=1" in captured.err
    monkeypatch.setenv("SPECTRALEDGE_DEBUG", "1")
    assert run(["show", "anything"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spectraledge.recording.load", interrupted)
    assert run(["show", "anything"]) == 130


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"spectraledge {__version__}\n"
    assert run([]) == 0
    text = capsys.readouterr().out
    for command in ("plan", "show", "list", "analyze", "run", "report", "demo"):
        assert command in text


def test_main_leaves_the_process() -> None:
    with pytest.raises(SystemExit) as left:
        entry(["--version"])
    assert left.value.code == 0


def test_progress_goes_to_standard_error(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    for step in range(4):
        save_file({"w": torch.arange(4.0) ** step}, tmp_path / f"step-{step}.safetensors")
    done = call("analyze", str(tmp_path), "--window", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recording"]["n_updates"] == 3
    assert done.stderr == "checkpoints: 4 of 4 step-3.safetensors\n"


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "spectraledge", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # as `| head` does
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(timeout=60) == 0
