"""Trackers and training: nothing in the run may depend on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from sinks_runs import Collected, Training, own_threads, run_with

import spectraledge as se
from spectraledge.errors import OutputError, SettingError
from spectraledge.recording import Event
from spectraledge.sinks import Alert, CallbackSink, JsonlSink, TensorBoardSink, connect, make_sinks


class Slow(Collected):
    def log(self, step: int, values: Any) -> None:
        time.sleep(0.2)
        super().log(step, values)


def bare(n: int = 30) -> tuple[list[float], se.Recording]:
    training = Training()
    with training.attach() as monitor:
        training.steps(n)
    return training.losses, monitor.recording


def refuse(step: int, values: Any) -> None:
    raise ValueError("key refused")


@pytest.mark.filterwarnings("ignore:tracker .* raised:RuntimeWarning")
@pytest.mark.parametrize("kind", ["slow", "raising", "fine"])
def test_losses_and_recording_are_bit_equal_whatever_the_sink_does(kind: str) -> None:
    sink = {"slow": Slow(), "raising": refuse, "fine": Collected()}[kind]
    losses, recording = bare()
    began = time.perf_counter()
    training = Training()
    with training.attach() as monitor:
        connection = connect(monitor, sink, timeout=0.3)
        training.steps(30)
        trained = time.perf_counter() - began
    assert training.losses == losses
    assert monitor.recording.equals(recording)
    assert trained < 4.0  # the slow sink needs 6 s for the 30 snapshots
    assert bool(connection.errors) == (kind == "raising")
    assert (connection.dropped != {"collected": 0}) == (kind != "fine")


def test_a_bounded_queue_behind_a_slow_sink() -> None:
    sink = Slow()
    training = Training()
    with training.attach() as monitor:
        connection = connect(monitor, sink, capacity=2, timeout=10)
        training.steps(40)
    assert sink.calls[-1] == ("log", 40)  # the newest are what is kept
    assert connection.dropped["collected"] == 40 - len(sink.calls) > 0
    assert own_threads() == []


def test_nothing_is_lost_at_detach_and_closing_twice_is_safe() -> None:
    sinks = [Collected(), Collected()]
    _, _, connection = run_with(sinks, 50)
    assert [len(sink.values) for sink in sinks] == [50, 50]
    assert [sink.closed for sink in sinks] == [1, 1]
    assert connection.close()
    assert own_threads() == []


KILLED = """
import sys, torch
sys.path.insert(0, {here!r})
from sinks_runs import Training
from spectraledge.sinks import TensorBoardSink, JsonlSink, connect
training = Training()
monitor = training.attach(out={out!r})
connect(monitor, [TensorBoardSink({tb!r}, flush_seconds=0.0), JsonlSink({jsonl!r})])
training.steps(10**9, after=lambda step: step == 40 and print("ready", flush=True))
"""


def test_what_was_shown_survives_a_kill(tmp_path: Path) -> None:
    tb, jsonl = tmp_path / "tb", tmp_path / "values.jsonl"
    here = str(Path(__file__).parent)
    code = KILLED.format(here=here, out=str(tmp_path / "run"), tb=str(tb), jsonl=str(jsonl))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ})
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (not jsonl.exists() or jsonl.read_text().count("\n") < 20):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    recording = se.load(tmp_path / "run")
    gap = recording.spectra(4).gap()
    known = dict(zip(gap.steps.tolist(), gap.position.tolist(), strict=True))
    lines = [json.loads(line) for line in jsonl.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert len(lines) >= 20
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert line["values"].get("spectral_edge/k_star", 0) == known.get(line["step"], 0)
    from test_sinks_tensorboard import scalars

    shown = scalars(tb)["spectral_edge/k_star"]
    assert len(shown) > 5
    assert all(known[step] == value for step, value in shown)


UNFINISHED = """
import sys
sys.path.insert(0, {here!r})
from sinks_runs import Training
from spectraledge.sinks import connect
training = Training()
monitor = training.attach()
connect(monitor, "jsonl:" + {jsonl!r})
training.steps(25)
"""


def test_a_script_that_ends_without_detach_delivers(tmp_path: Path) -> None:
    code = UNFINISHED.format(here=str(Path(__file__).parent), jsonl=str(tmp_path / "a.jsonl"))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 25


def test_events_become_alerts_with_a_cooldown() -> None:
    event = Event(7, "all", "mode emergence", 9.0, 4.0, "mode2-emergence", "A mode grows.")
    training, sink, silent = Training(), Collected(), Collected()
    with training.attach() as monitor:
        connect(monitor, sink, cooldown=1000.0)
        connect(monitor, silent, alerts=False)
        training.steps(3)
        for _ in range(3):
            monitor._write("event", **event.to_fields())
        monitor._write("event", **{**event.to_fields(), "detector": "other"})
    assert [alert.event.detector for alert in sink.alerts] == ["mode2-emergence", "other"]
    assert sink.alerts[0].title == "mode emergence (all)"
    assert sink.alerts[0].text == ("step 7: mode emergence in all; by mode2-emergence (9 against 4); A mode grows.")
    assert silent.alerts == []


def test_events_of_a_real_detector_arrive() -> None:
    sink, model = Collected(), torch.nn.Linear(2000, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(130, 2000, generator=generator)
    updates[90:] += torch.randn(2000, generator=generator)  # from here on with a direction in common
    with se.attach(model, optimizer, window=5, every=1, on_error="raise", events=True) as monitor:
        connect(monitor, sink, cooldown=0.0)
        for update in updates:
            model.weight.grad = update[None]
            optimizer.step()
    assert [alert.event for alert in sink.alerts] == monitor.recording.events
    assert any(alert.title == "mode emergence (all)" and alert.step >= 90 for alert in sink.alerts)


def test_titles_are_short_enough_for_every_tracker() -> None:
    assert len(Alert(Event(1, "block." * 40, "gap opened")).title) < 64


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.jsonl"
    sink = JsonlSink(file)
    sink.log(1, {"a": 0.5})
    sink.alert(Alert(Event(1, "all", "gap opened")))
    sink.rewind(0)
    sink.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0] == {"step": 1, "values": {"a": 0.5}}
    assert lines[1]["alert"]["title"] == "gap opened (all)"
    assert lines[2] == {"rewind": 0}
    with pytest.raises(OutputError, match="Choose another place"):
        JsonlSink(file / "below" / "a.jsonl")


def test_sinks_by_name(tmp_path: Path) -> None:
    assert isinstance(make_sinks(f"tensorboard:{tmp_path / 'tb'}")[0], TensorBoardSink)
    file, function = make_sinks([f"jsonl:{tmp_path / 'a'}", print])
    assert isinstance(function, CallbackSink)
    file.close()
    sink = Collected()
    assert make_sinks(sink) == [sink]
    for wrong in ("comet", "wandb:name", "jsonl", "tensorboard", 3):
        with pytest.raises(SettingError):
            make_sinks([wrong])


def test_a_rank_without_the_recording_shows_nothing(tmp_path: Path) -> None:
    class OtherRank:
        @property
        def recording(self) -> se.Recording:
            raise SettingError("only rank 0 keeps the recording; this is another rank.")

    connection = connect(OtherRank(), [f"tensorboard:{tmp_path / 'tb'}", "wandb"])  # type: ignore[arg-type]
    connection.take("rewind", {"step": 3})
    assert connection.close()
    assert connection.dropped == {}
    assert not (tmp_path / "tb").exists()


@pytest.mark.parametrize("options", [{"every": 0}, {"capacity": 0}, {"cooldown": -1.0}, {"groups": -1}])
def test_numbers_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with Training().attach() as monitor, pytest.raises(SettingError):
        connect(monitor, Collected(), **options)


def test_importing_the_sinks_loads_no_tracker() -> None:
    code = (
        "import sys, spectraledge.sinks; "
        "print([m for m in ('torch', 'tensorboard', 'wandb', 'mlflow', 'trackio') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "[]"
