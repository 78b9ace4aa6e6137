"""TensorBoard: event files, read back with its own reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sinks_runs import Training, expected, own_threads, run_with

from spectraledge.errors import SettingError
from spectraledge.recording import Event
from spectraledge.sinks import Alert, TensorBoardSink, connect

pytest.importorskip("tensorboard")


def reader(folder: Path):  # type: ignore[no-untyped-def]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = reader(folder)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_files_hold_what_was_recorded(tmp_path: Path) -> None:
    _, recording, _ = run_with(f"tensorboard:{tmp_path / 'tb'}")
    found, want = scalars(tmp_path / "tb"), expected(recording)
    for key in {key for values in want.values() for key in values}:
        # TensorBoard keeps float32
        assert found[key] == [(step, float(np.float32(v[key]))) for step, v in want.items() if key in v], key
    assert own_threads() == []


def test_a_rewind_purges_what_was_taken_back(tmp_path: Path) -> None:
    training = Training()
    with training.attach() as monitor:
        connect(monitor, TensorBoardSink(tmp_path / "tb"))
        training.steps(12)
        state = monitor.state_dict(ring=True)
        training.steps(8)
        monitor.load_state_dict(state)
        with torch.no_grad():
            training.model[0].weight.mul_(1.5)
        training.steps(4)
    found = scalars(tmp_path / "tb")["spectral_edge/theta_norm"]
    assert [step for step, _ in found] == list(range(1, 17))
    assert np.array_equal([v for _, v in found], np.sqrt(monitor.recording.theta_norm2[:, 0]).astype(np.float32))


def test_a_writer_of_your_own_stays_open_and_is_not_purged(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer=writer)
        sink.log(5, {"a": 1.0})
        sink.rewind(2)
        sink.alert(Alert(Event(5, "all", "gap opened", detail="It is wide.")))
        sink.close()
        assert scalars(tmp_path)["a"] == [(5, 1.0)]
        writer.add_scalar("mine", 2.0, 6)
    found = reader(tmp_path)
    assert found.Tags()["scalars"] == ["a", "mine"]
    text = found.Tensors("spectral_edge/alert/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "gap opened (all)" in text
    assert "It is wide." in text


def test_a_folder_or_a_writer() -> None:
    with pytest.raises(SettingError, match="neither"):
        TensorBoardSink()
    with pytest.raises(SettingError, match="both"):
        TensorBoardSink("here", writer=object())
