from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.coincidence import event_coincidence


def direct(alarm, event, horizon, delay):
    n = len(alarm)
    return sum(alarm[max(t - horizon, 0) : max(t - delay + 1, 0)].any() for t in range(n) if event[t])


@pytest.mark.parametrize(("horizon", "delay"), [(0, 0), (3, 0), (5, 2), (30, 1)])
def test_against_direct_counting(horizon, delay):
    rng = np.random.default_rng(0)
    alarm, event = rng.random((2, 25)) < 0.2
    counts = [direct(np.roll(alarm, s), event, horizon, delay) for s in range(25)]
    found = event_coincidence([alarm], [event], horizon, delay=delay)
    assert found.n_preceded == counts[0]
    assert found.p == pytest.approx(np.mean(np.array(counts) >= counts[0]))
    assert found.expected == pytest.approx(np.mean(counts) / event.sum())
    after = sum(event[t + delay : t + horizon + 1].any() for t in np.flatnonzero(alarm))
    assert found.trigger_rate == pytest.approx(after / alarm.sum())


def test_runs_multiply():
    # Each run alone has p = 5/100; both preceded: the product.
    alarm, event = np.zeros((2, 100), dtype=bool)
    alarm[57] = event[60] = True
    found = event_coincidence([alarm] * 2, [event] * 2, 5)
    assert found.p == pytest.approx(0.0025)
    assert found.smallest_p == pytest.approx(0.0025)
    assert (found.n_events, found.n_alarms, found.n_preceded) == (2, 2, 2)


def test_always_on_alarm_says_nothing():
    event = np.zeros(50, dtype=bool)
    event[20] = True
    found = event_coincidence([np.ones(50)], [event], 5)
    assert found.precursor_rate == 1.0
    assert found.p == 1.0


def test_exact_size():
    # Alarms turned at random: the p-value is uniform on its lattice, so P(p <= 0.1) <= 0.1.
    rng = np.random.default_rng(1)
    event = np.zeros(40, dtype=bool)
    event[[15, 30]] = True
    alarm = np.zeros(40, dtype=bool)
    alarm[[3, 4, 20]] = True
    ps = [
        event_coincidence([np.roll(alarm, s) for s in rng.integers(0, 40, 3)], [event] * 3, 4).p for _ in range(300)
    ]
    assert np.mean(np.array(ps) <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / 300)


def test_nothing_there_and_errors():
    found = event_coincidence([np.zeros(5)], [np.zeros(5)], 2)
    assert np.isnan(found.precursor_rate)
    assert np.isnan(found.trigger_rate)
    assert found.p == 1.0
    for args in (
        ([np.zeros(5)], [np.zeros(4)], 2),
        ([], [], 2),
        ([np.zeros(5)], [], 2),
        ([np.zeros(5)], [np.zeros(5)], 0),
    ):
        with pytest.raises(SettingError):
            event_coincidence(*args)
