"""What the evaluation of signals is made of."""

from __future__ import annotations

import numpy as np
import pytest
from detect_recordings import recording_of

from spectraledge.detect.author_rules import commutator_onset, decline, weight_series
from spectraledge.detect.events import DETECTORS, detector_series
from spectraledge.detect.leads import expected_steps, summarise_leads, timing
from spectraledge.detect.matched import area, area_differences, areas, pair_shares
from spectraledge.detect.signals import SIGNALS, first_judged, signal_traces
from spectraledge.detect.subjects import EVENTS, Subject, evaluation_interval, event_step, make_split
from spectraledge.detect.traces import Trace
from spectraledge.errors import SettingError
from spectraledge.recording.weights import WeightSpectra
from spectraledge.theory.synthetic import mode_switch_on

LEVEL, LARGEST = SIGNALS["train loss"], SIGNALS["mode1-emergence"]


def traces_of(values):
    return [Trace(np.arange(1.0, v.shape[0] + 1), v) for v in values]


@pytest.mark.parametrize("spec", [LEVEL, LARGEST], ids=["present", "largest"])
def test_nothing_after_the_event_of_a_pair_counts(spec):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 50))
    events = np.array([20.0, 30.0, 40.0, np.nan, np.nan, np.nan])
    ends = np.full(6, 50.0)
    before = pair_shares(traces_of(values), events, ends, spec, 1.0, margin=2.0)
    late = values.copy()
    late[:, 38:] += 100.0 * rng.normal(size=(6, 12))  # after all cuts
    late[0, 18:] = 1e6
    late[1, 28:] = -1e6
    after = pair_shares(traces_of(late), events, ends, spec, 1.0, margin=2.0)
    np.testing.assert_array_equal(before, after)
    assert np.isfinite(before).sum() == 9


def test_length_helps_nobody():
    values = np.tile(np.arange(50.0), (4, 1))  # every run shows the same, and more with time
    events = np.array([20.0, 35.0, np.nan, np.nan])
    shares = pair_shares(traces_of(values), events, np.full(4, 50.0), LARGEST, 1.0)
    assert area(shares) == 0.5


def test_a_run_that_ended_before_is_not_compared():
    values = np.zeros((3, 50))
    events, ends = np.array([20.0, 40.0, np.nan]), np.array([50.0, 50.0, 30.0])
    shares = pair_shares(traces_of(values), events, ends, LEVEL, 1.0)
    assert shares[0, 2] == 0.5
    assert np.isnan(shares[1, 2])


def test_a_perfect_area_has_an_interval():
    shares = np.full((1, 12, 12), np.nan)
    shares[0, :6, 6:] = 1.0
    found = areas(shares, n_boot=50, rng=np.random.default_rng(0))
    assert found.value[0] == 1.0
    assert 0.5 < found.low[0] < 0.8  # Newcombe for 6 and 6
    assert found.high[0] == 1.0


def test_areas_agree_with_a_plain_mean_and_differences_with_their_difference():
    rng = np.random.default_rng(1)
    shares = np.full((2, 10, 10), np.nan)
    shares[:, :5, 5:] = rng.integers(0, 2, size=(2, 5, 5))
    found = areas(shares, n_boot=200, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.value, [area(s) for s in shares], rtol=1e-12)
    assert np.all((found.low <= found.value) & (found.value <= found.high))
    gap = area_differences(shares[:1], shares[1], n_boot=200, rng=np.random.default_rng(0), level=0.95)
    np.testing.assert_allclose(gap.value[0], area(shares[0]) - area(shares[1]), rtol=0, atol=1e-12)


def test_a_detector_passes_its_own_threshold_where_it_alarms():
    history = mode_switch_on(160, 110, strength=3.0, rng=np.random.default_rng(2))
    recording = recording_of({"a": history.updates})
    traces = signal_traces(recording)
    fired = 0
    for name in DETECTORS:
        alarms = detector_series(recording, name).steps[detector_series(recording, name).alarms]
        first = traces[name].first_alarm(SIGNALS[name].fixed, -np.inf)
        assert (first == alarms[0]) if len(alarms) else np.isnan(first)
        fired += len(alarms)
    assert fired > 0
    assert first_judged(recording) == recording.steps[57]


def test_short_recordings_keep_the_signals_they_can_have():
    recording = recording_of({"a": np.random.default_rng(0).normal(size=(5, 20))})
    assert {"norm of update", "fixed clock"} <= set(signal_traces(recording))
    assert "tr G" not in signal_traces(recording)


def test_published_rules():
    np.testing.assert_array_equal(decline(np.array([2.0, 1.0, 0.0])), [np.nan, 2.0, 1e20])
    steps, ratio = commutator_onset(np.arange(6), np.array([0.01, 0.01, 0.01, 30.0, 30.0, 30.0]))
    np.testing.assert_array_equal(steps, [2, 3, 4, 5])
    np.testing.assert_allclose(ratio, [0.0005, 0.0005, 1.5, 1.5], rtol=1e-12)  # 30 / 20; the baseline is 0.1
    assert len(commutator_onset(np.arange(3), np.ones(3))[0]) == 0


def test_query_matrices_by_the_names_they_have():
    recording = recording_of({"a": np.ones((5, 3))})
    assert weight_series(recording) == {}
    sigma = np.array([[[4.0, 2.0, 1.0], [9.0, 1.0, 1.0]]])
    recording.weights = WeightSpectra(np.array([5]), ["layers.0.attn.q", "layers.0.mlp"], sigma)
    found = weight_series(recording)
    np.testing.assert_array_equal(found["ratio"][1], [2.0])
    np.testing.assert_array_equal(found["g23"][1], [3.0])


def test_leads_are_censored_where_no_alarm_came():
    event, end = np.full(4, 500.0), np.full(4, 600.0)
    found = summarise_leads(np.array([100.0, 200.0, 550.0, np.nan]), event, end)
    assert (found.n, found.n_before, found.n_after) == (4, 2, 1)
    assert found.median == 300.0  # delays -400, -300, 50 and more than 100
    silent = summarise_leads(np.full(4, np.nan), event, end)
    assert np.isnan(silent.median)
    assert silent.low == -np.inf


def test_a_clock_that_knows_the_task_is_the_one_to_beat():
    alarm, event = np.array([np.nan, np.nan]), np.array([110.0, 910.0])
    train = np.array([100.0, 900.0])
    expected, clock = expected_steps(alarm, event, ["a", "b"], np.full(2, np.nan), train, ["a", "b"])
    np.testing.assert_array_equal(clock, [100.0, 900.0])
    np.testing.assert_array_equal(expected, clock)
    other, _ = expected_steps(alarm, event, ["c", "c"], np.full(2, np.nan), train, ["a", "b"])
    np.testing.assert_array_equal(other, [500.0, 500.0])
    found = timing(expected, clock, event, 0, rng=np.random.default_rng(0))
    assert (found.gain, found.low, found.high, found.error) == (0.0, 0.0, 0.0, 10.0)


def test_events_by_name():
    accuracy = (np.array([1, 100, 200, 300, 400, 500]), np.array([0.0, 0.6, 0.92, 0.98, 0.99, 0.99]))
    recording = recording_of({"a": np.ones((5, 3))}, metrics={"test_accuracy": accuracy})
    assert [event_step(recording, name) for name in EVENTS] == [300.0, 500.0, 200.0, 100.0]
    with pytest.raises(SettingError, match="event must be one of grok95"):
        event_step(recording, "soon")
    assert evaluation_interval([Subject("r", recording, "", None, 1)]) == 100.0


def split_of(*runs, train=(42,)):
    recording = recording_of({"a": np.ones((5, 3))})
    return make_split([Subject(str(i), recording, "", e, s) for i, (s, e) in enumerate(runs)], train)


def test_splits_do_the_next_best():
    both = [(42, 1.0), (42, None), (7, 1.0), (7, None), (8, 1.0), (8, None)]
    assert split_of(*both).kind == "seeds"
    assert len(split_of(*both, train="each").folds) == 3
    # Seed 42 has no run with the event, but the two others can be learned on in turn.
    fallback = split_of((42, None), *both[2:])
    assert fallback.kind == "leave one seed out"
    assert "Seed 42 and the others do not both" in fallback.sentence
    assert [f.held_out.tolist() for f in fallback.folds] == [[1, 2], [3, 4]]
    assert split_of((42, 1.0), (7, None)).kind == "in sample"
    assert split_of((None, 1.0), (None, None)).kind == "in sample"
