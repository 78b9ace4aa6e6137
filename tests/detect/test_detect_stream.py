"""Streaming and finished recordings report the same events, whatever happens on the way."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spectraledge.detect.detectors import DETECTORS
from spectraledge.detect.judge import Judge
from spectraledge.detect.null_runs import band_of_rows
from spectraledge.detect.stream import EventStream, judge_stretches
from spectraledge.errors import DataError, SettingError
from spectraledge.theory import synthetic


@pytest.fixture(scope="module")
def planted():
    """A mode that comes on twice, a lost update and a seam: (steps, band, seams)."""
    rng = np.random.default_rng(4)
    rows = np.concatenate(
        [
            synthetic.mode_switch_on(130, 90, strength=3.0, rng=rng).updates,
            synthetic.mode_switch_on(150, 110, strength=3.0, rng=rng).updates,
        ]
    )
    rows[70] = np.nan
    band = band_of_rows(rows, 24)
    for lag in range(1, 25):
        band[130 : 130 + lag, lag] = np.nan
    return 100 + 5 * np.arange(len(rows)), band, [130]


def _pushed(stream, steps, band, seams, rows):
    return [e for t in rows for e in stream.push(int(steps[t]), band[t], seam=t in seams)]


def test_every_prefix_gives_the_events_of_the_stream(planted):
    steps, band, seams = planted
    streamed = EventStream(block="all")
    events = []
    for t in range(len(steps)):
        events += _pushed(streamed, steps, band, seams, [t])
        if t % 23 == 0 or t > len(steps) - 3:
            offline = EventStream(block="all").extend(steps[: t + 1], band[: t + 1], [s for s in seams if s <= t])
            assert offline == events
    kinds = {(e.kind, (e.step - 100) // 5) for e in events}
    assert ("mode emergence", 92) in kinds or ("mode emergence", 93) in kinds
    assert any(kind == "mode emergence" and 240 <= row <= 245 for kind, row in kinds)
    assert not any(130 <= row < 180 for _, row in kinds)  # the seam starts a burn-in


def test_statistics_are_equal_to_the_bit(planted):
    _, band, seams = planted
    whole = judge_stretches(Judge(), band, seams)
    single = Judge()
    for first, judged in whole:
        if first in seams:
            single.reset()
        for i in range(len(judged[0].statistic)):
            now = single.extend(band[first + i : first + i + 1])
            for a, b in zip(judged, now):
                assert np.array_equal(a.statistic[i : i + 1], b.statistic, equal_nan=True)
                assert np.array_equal(a.value[i : i + 1], b.value, equal_nan=True)


@pytest.mark.parametrize("stop", [1, 60, 91, 131, 200, 242])
def test_a_saved_stream_goes_on_as_if_it_had_never_stopped(planted, stop):
    steps, band, seams = planted
    expected = EventStream().extend(steps, band, seams)
    before = EventStream()
    events = before.extend(steps[:stop], band[:stop], [s for s in seams if s < stop])
    after = EventStream()
    after.load_state(json.loads(json.dumps(before.state(), allow_nan=False)))
    assert events + _pushed(after, steps, band, seams, range(stop, len(steps))) == expected


def test_a_state_belongs_to_its_detectors_and_window():
    with pytest.raises(DataError, match="window"):
        EventStream(window=5).load_state(EventStream().state())
    with pytest.raises(DataError, match="detectors"):
        EventStream(detectors=["gap-opening"]).load_state(EventStream().state())


def test_impossible_settings_are_refused():
    with pytest.raises(SettingError, match="at least 3"):
        EventStream(window=2)
    with pytest.raises(SettingError, match="gap-opening"):
        EventStream(detectors=["gap"])
    with pytest.raises(SettingError, match="level"):
        EventStream(level=0.5)
    with pytest.raises(DataError, match="lags"):
        EventStream().push(1, np.ones(5))


def test_narrow_rows_leave_out_what_needs_two_windows(planted):
    steps, band, _ = planted
    events = EventStream().extend(steps[:130], band[:130, :10])
    assert {e.kind for e in events} >= {"mode emergence"}
    assert not {e.kind for e in events} & {"coherence loss", "coherence gain", "regime change"}


def test_metrics_bring_their_events_and_other_rows_none():
    stream = EventStream()
    row = np.full(20, np.nan)
    assert stream.push(1, row) == []
    assert [e.detector for e in stream.push(2, row, metrics={"test_accuracy": 0.96})] == ["grok-0.90", "grok-0.95"]


def test_scale_changes_nothing():
    # Powers of two scale without rounding, so the features are equal to the bit.
    rows = synthetic.mode_switch_on(140, 110, strength=2.0, rng=np.random.default_rng(0)).updates
    scale = 2.0 ** -(np.arange(140) // 7)
    plain, scaled = (EventStream().extend(np.arange(140), band_of_rows(r, 19)) for r in (rows, rows * scale[:, None]))
    assert plain == scaled
    assert plain


def test_zero_and_missing_updates_are_no_events():
    rows = synthetic.white_noise(160, rng=np.random.default_rng(1)).updates
    rows[100:104] = 0.0
    rows[120] = np.inf
    with np.errstate(invalid="ignore"):
        band = band_of_rows(rows, 19)
    assert EventStream().extend(np.arange(160), np.where(np.isfinite(band), band, np.nan)) == []


def test_every_detector_says_what_it_reports():
    for name, spec in DETECTORS.items():
        assert name == spec.name
        assert spec.sentence.endswith(".")
