"""The evaluation of signals on worlds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from detect_recordings import recording_of

from spectraledge.detect.evaluate import evaluate
from spectraledge.detect.subjects import Subject
from spectraledge.errors import DataError
from spectraledge.theory.synthetic import constant_drift, mode_switch_on

ROWS, EVERY, LEAD = 150, 5, 12
EVALUATION = 4 * EVERY


def run(rng, name, seed, *, event=None, planted=False):
    """Noise with a drift; rows of norms that know nothing. Planted: a second direction LEAD rows before the event."""
    history = (
        mode_switch_on(ROWS, event - LEAD, strength=3.0, n_parameters=100, rng=rng)
        if planted and event is not None
        else constant_drift(ROWS, drift=2.0, n_parameters=100, rng=rng)
    )
    rows = history.updates / np.linalg.norm(history.updates, axis=1, keepdims=True)
    rows = rows * np.exp(0.1 * rng.normal(size=(ROWS, 1)))
    at = np.arange(EVALUATION, ROWS * EVERY + 1, EVALUATION)
    accuracy = np.where(at >= (np.inf if event is None else event * EVERY), 1.0, 0.0)
    metrics = {"test_accuracy": (at, accuracy), "train_loss": (at, np.exp(rng.normal(size=len(at))))}
    step = None if event is None else float(at[np.argmax(accuracy)])
    group = "task" if event is not None else ("placebo" if rng.random() < 0.5 else "no decay")
    return Subject(name, recording_of({"a": rows}, metrics=metrics, every=EVERY), group, step, seed)


def world(seed, *, planted, events, n_train=6, n_held=9):
    rng = np.random.default_rng(seed)
    subjects = []
    for s, n in ((42, n_train), (7, n_held)):
        for i in range(n):
            subjects.append(run(rng, f"p{s}-{i}", s, event=events(rng), planted=planted))
            subjects.append(run(rng, f"n{s}-{i}", s))
    return subjects


def random_event(rng):
    return int(rng.integers(95, 140))


@pytest.fixture(scope="module")
def planted():
    subjects = world(0, planted=True, events=random_event)
    return subjects, evaluate(subjects, n_boot=400)


@pytest.fixture(scope="module")
def null():
    return evaluate(world(1, planted=False, events=random_event), n_boot=400)


def named(found):
    return {signal.name: signal for signal in found.signals}


def test_a_planted_direction_is_what_announces_the_event(planted):
    _, found = planted
    signals = named(found)
    detector, clock = signals["mode2-emergence"], signals["fixed clock"]
    assert detector.auc.value > 0.95
    assert detector.auc.low > 0.5
    assert (clock.auc.value, clock.auc.low, clock.auc.high) == (0.5, 0.5, 0.5)
    assert "mode2-emergence" in found.comparisons[0].beating
    row = next(row for row in detector.operating if row.label == "5 %")
    assert row.table.sensitivity > 0.8
    # The direction was planted 12 rows of 5 steps before the event, which is known at an evaluation up to 20 later.
    assert 0 < row.lead.median <= LEAD * EVERY + EVALUATION
    assert detector.timing.low > 0.0
    assert detector.timing.error < 0.5 * detector.timing.clock
    assert found.split.kind == "seeds"


def test_signals_are_sorted_by_their_area(planted):
    values = [signal.auc.value for signal in planted[1].signals]
    assert values == sorted(values, reverse=True)


def test_what_was_not_recorded_is_not_available(planted):
    assert {"commutator onset", "W_Q g23", "gradient norm"} <= set(planted[1].unavailable)


def test_groups_share_the_pairs(planted):
    _, found = planted
    for signal in found.signals:
        assert sum(area.pairs for area in signal.auc_by_group.values()) == signal.auc.pairs


def test_thresholds_and_sides_never_look_at_runs_held_out(planted):
    subjects, found = planted
    rng = np.random.default_rng(5)
    changed = [s for s in subjects if s.seed == 42]
    # Other runs, other events, other numbers of them, evaluated as often or not.
    changed += [run(rng, f"x{i}", 7, event=100 if i < 2 else None, planted=i == 0) for i in range(5)]
    other = named(evaluate(changed, n_boot=20))
    for name, signal in named(found).items():
        assert other[name].direction == signal.direction
        assert other[name].train_auc == signal.train_auc
        assert [row.thresholds for row in other[name].operating] == [row.thresholds for row in signal.operating]


def test_where_only_time_matters_the_clock_wins():
    found = evaluate(world(2, planted=False, events=lambda rng: 120), n_boot=400)
    clock = named(found)["fixed clock"]
    assert clock.timing.error == 0.0
    others = [s for s in found.signals if s.name != "fixed clock"]
    assert all(s.timing.gain <= 0.0 for s in others)
    row = next(row for row in clock.operating if row.label == "fixed")
    assert row.table.sensitivity == 1.0
    assert row.table.false_alarm_rate == 1.0  # it strikes everywhere, which its area of 1/2 says
    assert any("No signal says WHEN" in sentence for sentence in found.sentences)


def test_without_a_signal_nothing_beats_anything(null):
    free = [s for s in null.signals if not s.outcome]
    covering = [s.auc.low <= 0.5 <= s.auc.high for s in free]
    # 95 % intervals by resampling 9 + 9 runs keep about 90 %; 16 correlated signals then miss 4 in 1 of 15 worlds.
    assert sum(covering) >= len(covering) - 4
    assert null.comparisons[0].beating == ()
    assert null.comparisons[1].beating == ()


def test_findings_are_sentences(null):
    text = " ".join(null.sentences)
    assert "no detector and no published rule beats it" in text
    assert "9 judged runs with the event, 9 without" in text
    assert "66 % or more" in text  # 0.025 ** (1 / 9)
    table = null.as_dict()
    assert {"split", "signals", "comparisons", "sentences", "unavailable"} <= set(table)


def test_one_seed_is_in_sample_and_says_so():
    rng = np.random.default_rng(3)
    subjects = [run(rng, f"r{i}", 1, event=120 if i < 2 else None) for i in range(4)]
    found = evaluate(subjects, n_boot=20)
    assert found.split.kind == "in sample"
    assert "IN SAMPLE" in found.sentences[0]
    assert found.train == found.held_out
    assert "decide nothing" in " ".join(found.sentences)


@pytest.mark.parametrize("event", [None, 120])
def test_runs_of_one_kind_are_refused(event):
    rng = np.random.default_rng(4)
    subjects = [run(rng, f"r{i}", 42 + i, event=event) for i in range(3)]
    with pytest.raises(DataError, match="an evaluation takes runs with the event and runs without; got"):
        evaluate(subjects)
