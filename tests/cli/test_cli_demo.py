"""The demo's live display: what a person sees while the arms train."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from spectraledge.cli.demo import _table, display
from spectraledge.demo import Progress
from spectraledge.recording import RecordingWriter

METRICS = {"train_loss": 0.051, "test_loss": 7.5, "test_accuracy": 0.0312}


def growing_recording(folder: Path) -> None:
    writer = RecordingWriter(folder)
    writer.write(
        "segment", segment=0, step=0, reason="start", blocks=["all"], block_info=[], lags=19, momentum=0.0,
        update_dtype="float64", every=25, n_parameters=12, groups=[],
    )  # fmt: skip
    for t in range(12):  # orthogonal updates of length 2
        products = np.full((1, 20), np.nan)
        products[0, : t + 1] = 0.0
        products[0, 0] = 4.0
        writer.write(
            "row", t=t, segment=0, step=25 * (t + 1), n_steps=25, lr_sum=[0.1], products=products, theta_dot=[0.0],
            theta_norm2=[1.0], unchanged=[0], nonfinite=[0], flags=[], seconds=0.0,
        )  # fmt: skip
    writer.close()


def state(step: int, *, finished: bool = False) -> dict[str, Progress]:
    arm = Progress(step=step, steps=4400, metrics=METRICS, finished=finished)
    return {"grokking": arm, "placebo": Progress()}


def test_plain_lines_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    growing_recording(tmp_path / "grokking")
    with display(tmp_path) as show:
        for step in (100, 300, 500, 600, 1000):
            show(state(step))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[2] for line in lines] == ["500/4,400", "1,000/4,400"]
    for words in ("loss 0.051 / 7.5", "test accuracy 3.1 %", "sigma 2, 2, 2"):
        assert words in lines[0]


def test_the_table_of_a_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    Console(file=stream, width=118).print(_table(tmp_path, state(4400, finished=True)))
    text = stream.getvalue()
    for words in ("grokking", "placebo", "starting", "done", "test accuracy 3.1 %", "time left"):
        assert words in text


def test_time_left_is_told_once_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = Progress(step=100, steps=400, started=10.0, first_step=0)
    monkeypatch.setattr("time.monotonic", lambda: 15.0)
    assert arm.seconds_left == pytest.approx(15.0)
    assert Progress(step=1, first_step=1, started=1.0).seconds_left is None
    assert Progress(finished=True).seconds_left == 0.0
