"""Rates are compared with bounds that leave 3 sd of a proportion over the repetitions."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.autocorrelation import ar1_fit
from spectraledge.theory.granger_null import null_series
from spectraledge.theory.hac import hac_mean, ols_overlap, overlap_lag
from spectraledge.theory.regression import ols_hac


def test_overlap_lag_floor_cap_and_plug_in():
    assert overlap_lag(400, 10) == 20
    assert overlap_lag(60, 10) == 15  # n // 4
    assert overlap_lag(40, 10) == 10  # never below W
    assert overlap_lag(50, 1) == 0
    white = np.random.default_rng(0).standard_normal(400)
    slow = np.cumsum(white)
    assert overlap_lag(400, 10, white) == 20
    assert 20 < overlap_lag(400, 10, slow) <= 100
    assert overlap_lag(400, 10, np.stack([white, slow])) == overlap_lag(400, 10, slow)
    assert overlap_lag(60, 10, slow[:60]) == 15
    assert overlap_lag(400, 1, np.zeros(400)) == 0
    for n, window in ((39, 10), (10, 0)):
        with pytest.raises(SettingError):
            overlap_lag(n, window)


def test_andrews_rule_closed_form():
    # a = 4 rho^2 / (1 - rho^2)^2 with the fitted rho; 1.1447 (a n)^(1/3), rounded up
    x, _ = null_series("ar1", 1, 2000, phi=0.5, rng=np.random.default_rng(1))
    rho = float(ar1_fit(x[0]).phi)
    expected = int(np.ceil(1.1447 * (4 * rho**2 / (1 - rho**2) ** 2 * 2000) ** (1 / 3)))
    assert overlap_lag(2000, 1, x[0]) == expected


def test_against_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.api")
    y, x = null_series("overlap", 1, 200, rng=np.random.default_rng(2))
    fit = ols_overlap(y[0], x[0], window=10)
    theirs = statsmodels.OLS(y[0], statsmodels.add_constant(x[0])).fit(
        cov_type="HAC", cov_kwds={"maxlags": fit.lag, "use_correction": True}
    )
    b = (fit.lag + 1) / 200
    # ours is theirs over 1 - b + b^2/3, the share of variance that fitted scores lose
    np.testing.assert_allclose(fit.covariance * (1 - b + b**2 / 3), theirs.cov_params(), rtol=1e-9)


def test_slopes_of_unrelated_windows():
    y, x = null_series("overlap", 800, 200, rng=np.random.default_rng(3))
    naive = np.mean(ols_hac(y, x, lag=0).p_values[:, 1] < 0.05)
    ours = np.mean(ols_overlap(y, x, window=10).p_values[:, 1] < 0.05)
    assert naive > 0.35
    assert ours < 0.085 + 3 * np.sqrt(0.085 * 0.915 / 800)  # 0.085 measured over 2000


def test_hac_mean_covers():
    y, _ = null_series("overlap", 800, 200, rng=np.random.default_rng(4))
    found = hac_mean(y, window=10)
    covered = np.mean((found.low <= 0) & (found.high >= 0))
    assert covered > 0.9385 - 3 * np.sqrt(0.94 * 0.06 / 800)
    assert 10 < np.median(found.n_effective) < 40  # n / W = 20 disjoint windows
    assert found.value.shape == found.low.shape == found.standard_error.shape == (800,)


def test_missing_values_stay_with_their_item():
    y, _ = null_series("overlap", 2, 100, rng=np.random.default_rng(5))
    y[0] = np.nan
    found = hac_mean(y, window=10)
    assert np.isnan(found.low[0])
    assert np.isfinite(found.low[1])
