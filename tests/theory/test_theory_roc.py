from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from spectraledge.errors import SettingError
from spectraledge.theory.roc import auc, roc_curve
from spectraledge.theory.thresholds import operating_point, sensitivity_at, tune_threshold


def test_area_is_mann_whitney_with_ties_and_that_under_the_curve():
    rng = np.random.default_rng(0)
    s = rng.integers(0, 6, 40).astype(float)
    s[:4] = -np.inf
    y = rng.random(40) < 0.4
    found = auc(s, y)
    assert found.value == pytest.approx(mannwhitneyu(s[y], s[~y]).statistic / (y.sum() * (~y).sum()))
    curve = roc_curve(s, y)
    assert np.trapezoid(curve.sensitivity, curve.false_alarm_rate) == pytest.approx(found.value)
    assert (curve.false_alarm_rate[0], curve.sensitivity[-1]) == (0.0, 1.0)


def test_censoring_leaves_pairs_open():
    # Score: minus the alarm time. The negative run ended at 50 without alarm: later than 40, unknown against 70.
    s, y, c = [-40.0, -70.0, -50.0], [True, True, False], [False, False, True]
    found = auc(s, y, censored=c)
    assert found.value == pytest.approx(0.75)
    assert found.open_pairs == pytest.approx(0.5)
    assert (found.smallest, found.largest) == (0.5, 1.0)
    both = auc([-40.0, -50.0], [True, False], censored=[True, True])
    assert both.value == 0.5
    assert both.open_pairs == 1.0
    # A run that ended exactly when the other fired had not fired by then.
    assert auc([-50.0, -50.0], [True, False], censored=[False, True]).value == 1.0
    assert auc([-50.0, -50.0], [True, False], censored=[True, False]).value == 0.0


def test_delong_against_the_definition():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, 9), rng.normal(0, 1, 7)
    s, y = np.r_[a, b], np.r_[np.ones(9), np.zeros(7)].astype(bool)
    won = (a[:, None] > b).astype(float)
    theta = won.mean()
    v10 = sum((won[i].mean() - theta) ** 2 for i in range(9)) / 8
    v01 = sum((won[:, j].mean() - theta) ** 2 for j in range(7)) / 6
    reach = norm.ppf(0.975) * np.sqrt(v10 / 9 + v01 / 7) / (theta * (1 - theta))
    ends = 1 / (1 + np.exp(-(np.log(theta / (1 - theta)) + np.array([-reach, reach]))))
    found = auc(s, y, interval="delong")
    np.testing.assert_allclose([found.low, found.high], ends)


def test_newcombe_solves_its_equation_and_has_a_width_at_one():
    s, y = [4.0, 3.0, 2.0, 1.0], [True, True, False, False]
    found = auc(s, y)
    assert found.value == found.high == 1.0
    a, z2 = found.low, norm.ppf(0.975) ** 2
    variance = a * (1 - a) * (1 + (1 - a) / (2 - a) + a / (1 + a)) / 4
    assert (1 - a) ** 2 == pytest.approx(z2 * variance)
    assert 0.2 < a < 0.5
    assert np.isnan(auc(s, y, interval="delong").low)
    reverse = auc([-v for v in s], y)
    assert (reverse.low, reverse.high) == pytest.approx((0.0, 1 - a))


def test_newcombe_covers_with_six_and_six_runs():
    rng = np.random.default_rng(2)
    y = np.r_[np.ones(6), np.zeros(6)].astype(bool)
    truth, covered = norm.cdf(2 / np.sqrt(2)), 0
    for _ in range(200):
        found = auc(rng.standard_normal(12) + 2 * y, y)
        covered += found.low <= truth <= found.high
    assert covered / 200 > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


def test_bootstrap_over_clusters_is_wider_than_over_copies():
    rng = np.random.default_rng(3)
    y = np.repeat(np.r_[np.ones(8), np.zeros(8)].astype(bool), 10)
    s = np.repeat(rng.standard_normal(16), 10) + y  # ten copies of each run
    label = np.repeat(np.arange(16), 10)
    copies = auc(s, y, interval="bootstrap", n_boot=200, rng=rng)
    runs = auc(s, y, interval="bootstrap", clusters=label, n_boot=200, rng=rng)
    assert runs.high - runs.low > 2 * (copies.high - copies.low)


def test_threshold_keeps_the_rate_it_was_tuned_for():
    rng = np.random.default_rng(4)
    y = np.arange(60) < 20
    s = np.round(rng.standard_normal(60) + y, 1)  # with ties
    for rate in (0.0, 0.05, 0.1, 0.5):
        threshold = tune_threshold(s, y, rate)
        assert np.mean(s[~y] >= threshold) <= rate + 1e-12
        lower = np.max(s[s < threshold])
        assert np.mean(s[~y] >= lower) > rate
    point = sensitivity_at(s, y, 0.05)
    assert point.attainable == 1 / 40
    assert point.table.sensitivity == np.mean(s[y] >= point.threshold)


def test_no_false_alarm_in_few_runs_proves_little():
    for n, upper in ((6, 0.46), (18, 0.19), (72, 0.05)):
        point = operating_point(np.r_[1.0, np.zeros(n)], np.r_[True, np.zeros(n, dtype=bool)], 0.5)
        assert round(point.table.false_alarm_interval[1], 2) == upper


def test_errors():
    s, y = [1.0, 2.0], [True, False]
    for make in (
        lambda: auc([np.nan, 1.0], y),
        lambda: auc(s, [True, True]),
        lambda: auc(s, y, interval="other"),
        lambda: auc(s, y, interval="bootstrap"),
        lambda: auc(s, y, censored=[True]),
        lambda: auc(s, y, level=1.0),
        lambda: auc(s, y, interval="bootstrap", clusters=[1], rng=np.random.default_rng(0)),
        lambda: tune_threshold(s, y, 1.0),
        lambda: roc_curve([1.0], y),
    ):
        with pytest.raises(SettingError):
            make()
