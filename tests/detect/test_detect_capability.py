"""Events of metrics, and cuts of a finished series."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detect_recordings import recording_of

from spectraledge.detect.capability import CapabilityStream, find_capability_events
from spectraledge.detect.grok import grok_steps
from spectraledge.detect.segmentation import change_points
from spectraledge.errors import DataError, SettingError


def pushed(accuracy, **others):
    stream = CapabilityStream()
    return [
        e
        for i, a in enumerate(accuracy)
        for e in stream.push(100 * (i + 1), {"test_accuracy": a} | {k: v[i] for k, v in others.items()})
    ]


def grokking_curve():
    x = np.arange(60)
    return 1.0 / (1.0 + np.exp(-(x - 40) / 2.0))


def test_grokking_is_known_when_its_definition_is_met():
    accuracy = grokking_curve()
    found = {e.detector: e.step for e in pushed(accuracy) if e.kind == "grokking"}
    steps = grok_steps(100 * (1 + np.arange(60)), accuracy)
    assert found == {
        "grok-0.90": steps.first_090.step,
        "grok-0.95": steps.first_095.step,
        "grok-0.98x3": steps.sustained_098.step,
    }


def test_plateau_rise_and_fall():
    accuracy = np.concatenate([grokking_curve(), np.linspace(1.0, 0.3, 10)])
    events = pushed(accuracy)
    kinds = [e.kind for e in events]
    assert kinds.count("plateau") == 1
    assert kinds.index("plateau") == 0
    assert events[0].step == 1000
    assert kinds.count("capability gain") == 1
    assert kinds.count("capability loss") == 1
    gain = next(e for e in events if e.kind == "capability gain")
    assert 3200 <= gain.step <= 3900


def test_a_loss_spike_is_reported_once():
    loss = np.exp(-np.arange(60) / 20.0)
    loss[30:33] *= 50.0
    events = pushed(np.full(60, 0.5), train_loss=loss)
    assert [(e.kind, e.step) for e in events if e.kind == "loss spike"] == [("loss spike", 3100)]
    smooth = pushed(np.full(60, 0.5), train_loss=np.exp(-np.arange(60) / 20.0))
    assert not [e for e in smooth if e.kind == "loss spike"]


def test_odd_values_are_no_events():
    stream = CapabilityStream()
    for i in range(30):
        events = stream.push(i, {"test_accuracy": 50.0, "train_loss": float("nan"), "test_loss": 0.0})
        assert events == []
    assert [e.kind for e in stream.push(31, {"test_loss": float("inf")})] == ["loss spike"]


def test_the_slowest_task_decides():
    stream = CapabilityStream()
    events = stream.push(1, {"test_accuracy_add": 0.99, "test_accuracy_mul": 0.2})
    events += stream.push(2, {"test_accuracy_add": 0.99})  # not all tasks were evaluated
    assert events == []
    assert len(stream.push(3, {"test_accuracy_add": 0.99, "test_accuracy_mul": 0.96})) == 2


def test_a_recording_gives_what_the_stream_gave_also_after_a_restart():
    accuracy, loss = grokking_curve(), np.exp(-np.arange(60) / 20.0)
    loss[30] *= 50.0
    at = 100 * (1 + np.arange(60))
    expected = pushed(accuracy, train_loss=loss)
    metrics = {"test_accuracy": (at, accuracy), "train_loss": (at, loss)}
    rows = np.random.default_rng(0).standard_normal((60, 5))
    assert find_capability_events(recording_of({"a": rows}, metrics=metrics)) == expected
    for stop in (5, 31, 44):
        first, second = CapabilityStream(), CapabilityStream()
        events = []
        for i in range(60):
            if i == stop:
                second.load_state(json.loads(json.dumps(first.state())))
            stream = first if i < stop else second
            events += stream.push(int(at[i]), {"test_accuracy": accuracy[i], "train_loss": loss[i]})
        assert events == expected


def test_cuts_of_a_finished_series():
    pytest.importorskip("ruptures")
    rng = np.random.default_rng(0)
    series = np.concatenate([rng.normal(0, 1, 60), rng.normal(5, 1, 60), rng.normal(5, 1, 60)])
    series[100] = np.nan
    assert change_points(series).tolist() == pytest.approx([60], abs=1)
    assert change_points(series, n=1).tolist() == pytest.approx([60], abs=1)
    assert change_points(rng.normal(0, 1, 200)).tolist() == []
    with pytest.raises(DataError, match="known rows"):
        change_points(np.zeros(5))
    with pytest.raises(SettingError, match="model must be"):
        change_points(series, model="cubic")
    with pytest.raises(SettingError, match="needs penalty or n"):
        change_points(series, model="rbf")
