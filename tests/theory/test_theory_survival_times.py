from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf

from spectraledge.errors import SettingError
from spectraledge.theory.survival_times import kaplan_meier, lead_times


def sample(n, seed):
    rng = np.random.default_rng(seed)
    t, c = np.ceil(rng.exponential(10, n)), np.ceil(rng.exponential(20, n))
    return np.minimum(t, c), t <= c


def test_curve_is_that_of_scipy():
    t, seen = sample(40, 0)
    curve = kaplan_meier(t, seen)
    theirs = ecdf(CensoredData(uncensored=t[seen], right=t[~seen])).sf
    np.testing.assert_allclose(curve.at(theirs.quantiles), theirs.probabilities, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # theirs has none where the curve has reached 0
        interval = theirs.confidence_interval(0.95, method="log-log")
    inside = np.isin(theirs.quantiles, curve.times[curve.survival > 0])
    np.testing.assert_allclose(curve.low[curve.survival > 0], interval.low.probabilities[inside], atol=1e-12)
    np.testing.assert_allclose(curve.high[curve.survival > 0], interval.high.probabilities[inside], atol=1e-12)
    assert curve.n_censored == np.sum(~seen)


def test_against_statsmodels():
    duration = pytest.importorskip("statsmodels.duration.survfunc")
    t, seen = sample(60, 1)
    theirs, curve = duration.SurvfuncRight(t, seen.astype(int)), kaplan_meier(t, seen)
    np.testing.assert_allclose(curve.survival, theirs.surv_prob, atol=1e-12)
    np.testing.assert_allclose(curve.at_risk, theirs.n_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = theirs.quantile_ci(0.5, method="cloglog")
    assert (curve.median_low, curve.median_high) == ends


def test_without_censoring_it_is_the_share_left():
    curve = kaplan_meier([3.0, 1.0, 2.0, 4.0], [True] * 4)
    np.testing.assert_allclose(curve.survival, [0.75, 0.5, 0.25, 0.0])
    assert curve.median == 2.0
    assert np.isnan(curve.low[-1])
    np.testing.assert_allclose(curve.at([0.0, 1.0, 2.5, 9.0]), [1.0, 0.75, 0.5, 0.0])


def test_median_covers():
    # Exponential times, independent censoring; 200 repetitions of 25.
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        t, c = rng.exponential(1, 25), rng.exponential(2, 25)
        curve = kaplan_meier(np.minimum(t, c), t <= c)
        high = np.inf if np.isnan(curve.median_high) else curve.median_high
        low = np.inf if np.isnan(curve.median_low) else curve.median_low
        covered += low <= np.log(2) <= high
    assert covered / 200 > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


def test_nothing_seen():
    curve = kaplan_meier([5.0, 6.0], [False, False])
    assert len(curve.times) == 0
    assert np.isnan(curve.median)
    assert curve.at(3.0) == 1.0


def test_lead_times_of_all_four_kinds():
    nan = np.nan
    found = lead_times([100, nan, 50, nan, 450], [400, 300, nan, nan, 420], [500] * 5)
    assert found.run.tolist() == [0, 1, 2, 4]
    assert found.lead.tolist() == [300, -200, 450, -30]  # the last alarm came after the event
    assert found.left.tolist() == [False, True, False, False]
    assert found.right.tolist() == [False, False, True, False]


def test_errors():
    for make in (
        lambda: kaplan_meier([1.0, np.nan], [True, True]),
        lambda: kaplan_meier([], []),
        lambda: kaplan_meier([1.0], [True, False]),
        lambda: kaplan_meier([1.0], [True], level=0.0),
        lambda: lead_times([1.0], [2.0], [1.5]),
        lambda: lead_times([1.0], [2.0, 3.0], [5.0]),
        lambda: lead_times([1.0], [2.0], [np.nan]),
    ):
        with pytest.raises(SettingError):
            make()
