"""Events of recordings: what was planted is found, blocks and strides are respected, and it is quick."""

from __future__ import annotations

import time

import numpy as np
import pytest
from detect_recordings import recording_of

from spectraledge.detect.events import DETECTORS, detector_series, find_events
from spectraledge.detect.planted_runs import planted_band
from spectraledge.detect.stream import EventStream
from spectraledge.theory import synthetic


@pytest.fixture(scope="module")
def recording():
    rng = np.random.default_rng(7)
    on = synthetic.mode_switch_on(170, 120, strength=3.0, rng=rng).updates
    off = synthetic.constant_drift(170, drift=2.0, rng=rng).updates
    return recording_of({"on": on, "off": off})


def test_a_planted_mode_is_found_in_its_block_and_step(recording):
    events = find_events(recording, block="on", detectors=["mode2-emergence"])
    assert [e.kind for e in events] == ["mode emergence"]
    assert 5 * 121 <= events[0].step <= 5 * 131
    assert events[0].block == "on"
    assert events[0].value > events[0].threshold > 0
    assert "excess2" in events[0].detail
    assert find_events(recording, block="off") == []


def test_the_series_of_a_detector_is_that_of_its_events(recording):
    for name in DETECTORS:
        series = detector_series(recording, name, block="on")
        assert series.steps.tolist() == recording.steps.tolist()
        assert series.statistic.shape == series.threshold.shape == series.alarms.shape == (170,)
        assert np.array_equal(np.isnan(series.statistic), np.isnan(series.threshold))
        alarms = series.steps[series.alarms].tolist()
        assert alarms == [e.step for e in find_events(recording, block="on", detectors=[name])]
        passed = series.statistic > series.threshold
        for row in np.flatnonzero(series.alarms):
            assert passed[row - 2 : row + 1].all()


def test_a_recording_gives_what_its_rows_gave(recording):
    stream = EventStream(block="on")
    rows = recording.band("on")
    pushed = [e for t in range(len(rows)) for e in stream.push(int(recording.steps[t]), rows[t])]
    assert pushed == find_events(recording, block="on")


def test_seams_and_strides(recording):
    rows = synthetic.mode_switch_on(200, 140, strength=3.0, rng=np.random.default_rng(1)).updates
    found = find_events(recording_of({"a": rows}), block="a")
    cut = find_events(recording_of({"a": rows}, seam_at=100), block="a")
    assert min(e.step for e in found) < 5 * 151
    assert min(e.step for e in cut) > 5 * 158  # the burn-in of the second stretch: 10 + 40 + 9 rows from row 100
    coarse = find_events(recording_of({"a": np.repeat(rows, 2, axis=0)}, lags=48), block="a", stride=2)
    # Rows of two equal updates are the rows themselves, times 2: the same events at twice the steps.
    assert [(e.step // 2, e.kind) for e in coarse] == [(e.step, e.kind) for e in found]


def test_short_recordings_give_no_events(recording):
    rows = synthetic.white_noise(12, rng=np.random.default_rng(0)).updates
    assert find_events(recording_of({"a": rows})) == []
    series = detector_series(recording_of({"a": rows}), "gap-opening")
    assert np.isnan(series.statistic).all()
    assert not series.alarms.any()


@pytest.mark.parametrize("window", [5, 10, 20])
def test_other_windows_find_a_strong_mode(window):
    rng = np.random.default_rng(3)
    rows = synthetic.mode_switch_on(10 * window + 60, 8 * window + 20, strength=4.0, rng=rng).updates
    events = find_events(recording_of({"a": rows}, lags=2 * window - 1), window=window, detectors=["mode2-emergence"])
    assert [0 <= e.step // 5 - 1 - (8 * window + 20) <= window for e in events] == [True]


def test_a_long_recording_is_judged_in_seconds():
    # The claim is 51 blocks of 10,000 snapshots in 30 s; one block of 5,000 must then take less than 0.3 s of
    # processor time. Three times that is allowed for a busy machine.
    rng = np.random.default_rng(0)
    recording = recording_of({"a": rng.standard_normal((5000, 50))}, lags=19)
    start = time.process_time()
    find_events(recording, block="a")
    assert time.process_time() - start < 0.9


def test_planted_controls_have_their_event_where_they_say():
    for control in ("P1", "P2", "P3", "P4"):
        band, step = planted_band(control, 2.0, np.random.default_rng(2))
        assert band.shape == (200, 20)
        assert 100 <= step < 170
