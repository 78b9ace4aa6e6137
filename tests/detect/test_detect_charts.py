"""Charts: when they fire, how long they stay quiet, and what a reference is."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.detect.charts import Cusum, Ewma, PageHinkley, sustained_maximum
from spectraledge.detect.detectors import DETECTORS, make_chart
from spectraledge.detect.reference import Reference
from spectraledge.detect.reference_position import PositionReference
from spectraledge.detect.thresholds import threshold
from spectraledge.errors import SettingError


def alarms(chart, values):
    return np.flatnonzero(chart.run(list(values))[1]).tolist()


@pytest.mark.parametrize("kind", [Ewma, Cusum, PageHinkley])
def test_a_step_fires_once_and_again_only_after_it_is_over(kind):
    step = [0.0] * 10 + [30.0] * 20 + [0.0] * 40 + [30.0] * 20
    found = alarms(kind(8.0), step)
    assert len(found) == 2
    assert 12 <= found[0] <= 14
    assert 72 <= found[1] <= 74


@pytest.mark.parametrize("kind", [Ewma, Cusum, PageHinkley])
def test_direction(kind):
    step = [0.0] * 10 + [-30.0] * 10
    assert alarms(kind(8.0), step) == []
    assert len(alarms(kind(8.0, direction="down"), step)) == 1
    assert len(alarms(kind(8.0, direction="both"), step)) == 1


def test_two_rows_are_not_enough_and_a_gap_ends_a_streak():
    assert alarms(Ewma(5.0), [9, 9, 0, 9, 9, float("nan"), 9]) == []
    assert alarms(Ewma(5.0), [9, 9, float("nan"), 9, 9, 9]) == [5]


def test_hysteresis_and_cooldown():
    wobble = [9, 9, 9, 3, 9, 9, 9, 9, 9]  # never below half of the threshold
    assert alarms(Ewma(5.0, cooldown=0), wobble) == [2]
    deep = [9, 9, 9, 0, 9, 9, 9, 0, 9, 9, 9]
    assert alarms(Ewma(5.0, cooldown=0), deep) == [2, 6, 10]
    assert alarms(Ewma(5.0, cooldown=6), deep) == [2]  # still cooling at 7, and not below since


def test_rows_one_by_one_and_from_a_saved_state():
    values = np.random.default_rng(0).normal(0, 4, 200).tolist()
    for make in (lambda: Ewma(3.0, weight=0.5), lambda: Cusum(5.0), lambda: PageHinkley(5.0)):
        whole = make().run(values)
        first, second = make(), make()
        head = first.run(values[:77])
        second.load_state(first.state())
        tail = [second.run([v]) for v in values[77:]]
        assert head[0] + [s[0] for s, _ in tail] == whole[0]
        assert head[1] + [a[0] for _, a in tail] == whole[1]


def test_an_alarm_comes_exactly_where_the_sustained_maximum_passes():
    rng = np.random.default_rng(1)
    for spec in DETECTORS.values():
        for _ in range(50):
            values = rng.normal(0, 3, 40).tolist()
            largest = sustained_maximum(np.array(make_chart(spec, np.inf).run(values)[0]))
            if largest > 0.0:
                assert any(make_chart(spec, 0.9 * largest).run(values)[1])
                assert not any(make_chart(spec, 1.1 * largest).run(values)[1])


def test_a_reference_is_of_windows_that_share_no_update():
    x = np.arange(200.0)
    location, scale = Reference(10, 40, 0.1).extend(0, x)
    assert np.isnan(location[:49]).all()
    assert location[49] == 19.5  # median of 0..39, the last of which ends 10 rows before
    assert scale[49] == pytest.approx(1.4826 * 10.0)
    assert np.allclose((x - location)[49:] / scale[49:], 29.5 / 14.826)  # a straight trend is 2 scales away, no more


def test_a_reference_passes_over_rows_without_a_value():
    x = np.random.default_rng(0).standard_normal(300)
    x[::7] = np.nan
    location, _ = Reference(10, 40, 0.0).extend(0, x)
    for t in (60, 150, 299):
        past = x[: t - 9]
        known = past[np.isfinite(past)][-40:]
        assert location[t] == (np.nan if len(known) < 40 else np.median(known)) or len(known) < 40


def test_the_usual_position_and_its_lead():
    n = 80
    ratios = np.tile([1.0, 0.2, 0.1], (n, 1))
    ratios[70:] = [0.2, 1.0, 0.1]
    lead, location, scale = PositionReference(6, 24, 0.03).extend(0, ratios)
    assert np.isnan(lead[:29]).all()
    assert lead[40] == pytest.approx(-0.8)
    assert lead[75] == pytest.approx(0.8)
    assert location[75] == pytest.approx(-0.8)
    assert scale[75] == 0.03


def test_thresholds_grow_with_the_horizon_and_fall_with_the_level():
    for name in DETECTORS:
        assert threshold(name, horizon=10_000) >= threshold(name) >= threshold(name, horizon=50)
        assert threshold(name, level=0.01) >= threshold(name) >= threshold(name, level=0.1)
        # Away from the W = 10 of the table the threshold is never lower.
        assert threshold(name, window=20) >= threshold(name) <= threshold(name, window=5)
    with pytest.raises(SettingError, match="level"):
        threshold("gap-opening", level=0.2)
    with pytest.raises(SettingError, match="horizon"):
        threshold("gap-opening", horizon=0)
