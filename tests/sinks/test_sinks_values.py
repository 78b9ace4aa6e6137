"""What trackers are sent is what the recording holds, at every step, also across seams, rewinds and segments."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sinks_runs import WINDOW, Collected, Training, assert_as_recorded, run_with

from spectraledge.errors import SettingError
from spectraledge.sinks import connect
from spectraledge.sinks.keys import HEALTH, key_parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_step_of_a_run(dtype: torch.dtype) -> None:
    sink = Collected()
    _, recording, _ = run_with(sink, training=Training(dtype=dtype))
    assert_as_recorded(sink.values, recording)
    assert len(sink.values) == 30
    assert any("layer" in key for key in sink.values[30])
    assert "spectral_edge/k_star" not in sink.values[WINDOW - 1]
    assert all(math.isfinite(value) for values in sink.values.values() for value in values.values())


def test_another_window_than_the_monitors() -> None:
    sink = Collected()
    _, recording, _ = run_with(sink, window=6, singular_values=3)
    assert_as_recorded(sink.values, recording, window=6, n_sigma=3)


def test_a_window_that_the_lags_do_not_hold_is_refused() -> None:
    training = Training()
    with training.attach() as monitor, pytest.raises(SettingError, match="lags"):
        connect(monitor, Collected(), window=20)


@pytest.mark.parametrize("ring", [True, False])
def test_a_rewind_takes_back_and_goes_on(ring: bool) -> None:
    training, sink = Training(), Collected()
    with training.attach() as monitor:
        connect(monitor, sink)
        training.steps(15)
        state = monitor.state_dict(ring=ring)
        weights = {name: value.clone() for name, value in training.model.state_dict().items()}
        training.steps(10)
        training.model.load_state_dict(weights)
        monitor.load_state_dict(state)
        training.steps(10)
    assert ("rewind", 15) in sink.calls
    assert_as_recorded(sink.values, monitor.recording)
    assert ("spectral_edge/k_star" in sink.values[16]) is ring  # without the ring no window crosses the seam


def test_a_change_of_structure() -> None:
    training, sink = Training(), Collected()
    with training.attach() as monitor:
        connect(monitor, sink)
        training.steps(12)
        training.model[0].requires_grad_(False)
        training.steps(12)
    assert len(monitor.recording.meta["segments"]) == 2
    assert_as_recorded(sink.values, monitor.recording)
    assert sorted(sink.values)[12] == 14  # the snapshot of step 13 begins the new segment
    assert "spectral_edge/k_star" not in sink.values[14]
    assert "spectral_edge/k_star" in sink.values[14 + WINDOW - 1]


def test_a_run_that_is_joined_midway() -> None:
    training, sink = Training(), Collected()
    with training.attach() as monitor:
        training.steps(12)
        connect(monitor, sink)
        training.steps(12)
    assert min(sink.values) == 13
    assert "spectral_edge/k_star" in sink.values[13]  # rows from before make its window
    for step in range(1, 13):
        sink.values[step] = {}
    recording = monitor.recording
    late = Collected()
    late.values = {step: values for step, values in sink.values.items() if values}
    whole = Collected()
    run_with(whole, 24)
    for step, values in late.values.items():
        wall_clock = {f"{HEALTH}/ms_per_snapshot"}
        assert {k: v for k, v in values.items() if k not in wall_clock} == {
            k: v for k, v in whole.values[step].items() if k not in wall_clock
        }
    assert recording.n_updates == 24


@pytest.mark.parametrize("ring", [True, False])
def test_a_resumed_run(tmp_path: Path, ring: bool) -> None:
    first, sink = Training(), Collected()
    with first.attach(out=tmp_path / "run") as monitor:
        first.steps(15)
        monitor.save(tmp_path / "ring.safetensors")
        torch.save({"m": first.model.state_dict(), "o": first.optimizer.state_dict()}, tmp_path / "state.pt")
        first.steps(6)  # lost with the crash
    again = Training(seed=1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again.model.load_state_dict(state["m"])
    again.optimizer.load_state_dict(state["o"])
    with again.attach(out=tmp_path / "run", resume="auto") as monitor:
        connect(monitor, sink)
        if ring:
            monitor.load(tmp_path / "ring.safetensors")
        again.steps(10)
    recording = monitor.recording
    assert min(sink.values) == 16
    assert ("spectral_edge/k_star" in sink.values[16]) is ring
    gap = recording.spectra(WINDOW).gap()
    for step, k, ratio in zip(gap.steps, gap.position, gap.ratio, strict=True):
        if step > 15:
            assert sink.values[step].get("spectral_edge/k_star", 0.0) == k
            assert sink.values[step].get("spectral_edge/gap_ratio") == (None if math.isnan(ratio) else ratio)


def test_what_is_not_finite_is_missing_and_counted() -> None:
    training, sink = Training(), Collected()

    def poison(step: int) -> None:
        if step == 9:
            with torch.no_grad():
                training.model[0].weight[0, 0] = math.nan

    with training.attach() as monitor:
        connect(monitor, sink)
        training.steps(20, poison)
    assert_as_recorded(sink.values, monitor.recording)
    last = sink.values[20]
    assert "spectral_edge/k_star" not in last
    assert last[f"{HEALTH}/nonfinite"] > 0
    assert last[f"{HEALTH}/missing"] > sink.values[12][f"{HEALTH}/missing"] > 0
    assert sink.alerts[0].event.detector == "health"


def test_groups_are_bounded_and_the_rest_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    sink = Collected()
    training = Training()
    with training.attach(blocks="tensor") as monitor:
        connect(monitor, sink, groups=2)
        training.steps(10)
    layers = {key.split("/")[2] for key in sink.values[10] if "/layer/" in key}
    assert layers == {"0_weight", "2_weight"}  # the two largest
    assert [record.message for record in caplog.records if "leave out" in record.message] == [
        "trackers show the 2 largest blocks one by one and leave out 4; groups=... shows more"
    ]


def test_one_block_has_no_groups() -> None:
    sink, training = Collected(), Training()
    with training.attach(blocks="all") as monitor:
        connect(monitor, sink)
        training.steps(8)
    assert not any("/layer/" in key for key in sink.values[8])
    assert "spectral_edge/k_star" in sink.values[8]


def test_every_nth_snapshot() -> None:
    sink = Collected()
    run_with(sink, 10, every=4)
    assert sorted(sink.values) == [1, 5, 9]
    assert "spectral_edge/k_star" in sink.values[5]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=300), unique=True, max_size=6))
def test_keys_are_admitted_everywhere_and_stay_apart(names: list[str]) -> None:
    parts = key_parts(names)
    assert list(parts) == names
    assert len(set(parts.values())) == len(names)
    for part in parts.values():
        assert set(part) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
        assert 0 < len(f"spectral_edge/layer/{part}/gap_ratio") <= 250
