from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from spectraledge.errors import SettingError
from spectraledge.theory.granger_null import null_series
from spectraledge.theory.lagged_correlation import lagged_scan, polynomial_residual


def test_polynomial_residual_is_that_of_polyfit():
    x = np.random.default_rng(0).standard_normal((3, 30)).cumsum(axis=1)
    t = np.arange(30.0)
    for degree in (0, 1, 3):
        expected = [row - np.polyval(np.polyfit(t, row, degree), t) for row in x]
        np.testing.assert_allclose(polynomial_residual(x, degree), expected, atol=1e-9)
    with pytest.raises(SettingError):
        polynomial_residual(np.arange(4.0), 3)


def test_naive_p_is_pearson():
    x, y = np.random.default_rng(1).standard_normal((2, 40))
    scan = lagged_scan(x, y, [0], mode="author", degree=0)
    theirs = pearsonr(x, y)
    assert scan.r[0] == pytest.approx(theirs.statistic)
    assert scan.p_naive[0] == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("null", ["shift", "phase"])
def test_planted_lag_is_found_and_its_sign_kept(null):
    rng = np.random.default_rng(2)
    x = rng.standard_normal(103)
    y = -x[:100] + 0.5 * rng.standard_normal(100)  # y follows x[3:] at lag 3
    scan = lagged_scan(x[3:], y, null=null, n_draws=199, rng=rng)
    assert scan.lag == 3
    assert scan.peak < -0.8
    assert scan.p == scan.p_adjusted.min()
    assert scan.p <= (0.01 if null == "phase" else scan.resolution)
    assert scan.resolution == (0.005 if null == "phase" else 0.13)
    assert lagged_scan(x[3:], -y, null=null, n_draws=199, rng=rng).peak > 0.8


def test_author_mode_cannot_find_a_positive_relation():
    rng = np.random.default_rng(3)
    x = rng.standard_normal(100)
    scan = lagged_scan(x, x, mode="author")
    assert scan.peak < 0
    assert np.isnan(scan.p_adjusted).all()
    assert lagged_scan(x, x, mode="author", side="both").lag == 0


@pytest.mark.parametrize("null", ["shift", "phase"])
def test_sizes_on_unrelated_overlapping_windows(null):
    rng = np.random.default_rng(4)
    xs, ys = null_series("overlap", 60, 120, rng=rng)
    strict = [lagged_scan(x, y, null=null, n_draws=59, rng=rng).p <= 0.05 for x, y in zip(xs, ys)]
    author = [lagged_scan(x, y, mode="author").p <= 0.05 for x, y in zip(xs, ys)]
    assert np.mean(strict) <= 0.08 + 3 * np.sqrt(0.08 * 0.92 / 60)  # 0.08 at most, measured over 200
    assert np.mean(author) > 0.35


def test_constant_series_and_errors():
    scan = lagged_scan(np.zeros(30), np.arange(30.0), [0, 1], degree=0)
    assert np.isnan(scan.p)
    assert np.isnan(scan.r).all()
    x = np.arange(30.0) % 7
    for kwargs in ({"mode": "other"}, {"null": "other"}, {"side": "left"}, {}, {"null": "shift", "n_draws": 5}):
        with pytest.raises(SettingError):
            lagged_scan(x, x, [0], **kwargs)
    with pytest.raises(SettingError):
        lagged_scan(x, x[1:], [0])
