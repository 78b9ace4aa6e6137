"""Rates over repetitions are compared with their nominal value within 3 sd of a proportion, sqrt(q (1 - q) / R),
plus the bias that is derived beside each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import spearmanr

from spectraledge.errors import SettingError
from spectraledge.theory.bootstrap import (
    block_bootstrap,
    cluster_bootstrap,
    moving_block_indices,
    stationary_indices,
)
from spectraledge.theory.calibration import calibrate, nested_test
from spectraledge.theory.permutation import (
    benjamini_hochberg,
    circular_shift_p,
    holm,
    lagged_correlations,
    max_statistic_p,
)
from spectraledge.theory.regression import (
    ar1_fit,
    bartlett_long_run,
    effective_n,
    gap_damping_correlation,
    lagged_design,
    ols_hac,
)


def ar1(phi, shape, rng):
    """Stationary AR(1) series of unit variance along the last axis."""
    noise = rng.standard_normal((*shape[:-1], shape[-1] + 100))
    return lfilter([np.sqrt(1.0 - phi**2)], [1.0, -phi], noise, axis=-1)[..., 100:]


def mean(x):
    return x.mean(axis=-1)


def within(rate, nominal, repetitions, bias=0.0):
    """Whether a rate over repetitions is nominal - bias .. nominal, within 3 sd."""
    sd = np.sqrt(nominal * (1.0 - nominal) / repetitions)
    return nominal - bias - 3.0 * sd <= rate <= nominal + 3.0 * sd


# --- least squares with Newey-West errors -----------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, 3])
def test_ols_hac_equals_explicit_sums(lag):
    rng = np.random.default_rng(0)
    n = 40
    x, y = rng.standard_normal((n, 2)) * [1.0, 1e4], rng.standard_normal(n)
    fit = ols_hac(y, x, lag=lag)
    design = np.c_[np.ones(n), x]
    b = np.linalg.lstsq(design, y, rcond=None)[0]
    e = y - design @ b
    meat = np.zeros((3, 3))
    for t in range(n):
        for u in range(n):
            if abs(t - u) <= lag:
                meat += (1 - abs(t - u) / (lag + 1)) * e[t] * e[u] * np.outer(design[t], design[u])
    bread = np.linalg.inv(design.T @ design)
    width = (lag + 1) / n
    factor = n / (n - 3) / (1 - width + width**2 / 3 if lag else 1.0)
    np.testing.assert_allclose(fit.coefficients, b, rtol=1e-10)
    np.testing.assert_allclose(fit.covariance, factor * bread @ meat @ bread, rtol=1e-8)
    np.testing.assert_allclose(fit.residuals, e, atol=1e-12)
    assert fit.r_squared == pytest.approx(1 - e @ e / np.sum((y - y.mean()) ** 2), rel=1e-12)
    assert fit.dof == min(n - 3, 1.5 * n / (lag + 1))
    # One coefficient: the F test is the square of the t test.
    np.testing.assert_allclose(fit.wald([1]), fit.p_values[1], rtol=1e-9)


def test_ols_hac_missing_rows_keep_their_place():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 3, 50))
    y[1, 10:13] = np.nan
    x[1, 30] = np.inf
    y[2] = np.nan
    fit = ols_hac(y, x, lag=4)
    single = ols_hac(y[0], x[0][:, None], lag=4)
    np.testing.assert_allclose(fit.coefficients[0], single.coefficients, rtol=1e-12)
    assert fit.n.tolist() == [50, 46, 0]
    assert np.isnan(fit.coefficients[2]).all()
    assert np.isnan(fit.wald([0, 1])[2])
    kept = np.isfinite(y[1]) & np.isfinite(x[1])
    design = np.c_[np.ones(50), np.where(kept, x[1], 0.0)] * kept[:, None]
    b = np.linalg.lstsq(design[kept], y[1][kept], rcond=None)[0]
    np.testing.assert_allclose(fit.coefficients[1], b, rtol=1e-10)
    scores = design * np.where(kept, y[1] - design @ b, 0.0)[:, None]
    bread = np.linalg.inv(design.T @ design)
    width = 5 / 46
    factor = 46 / 44 / (1 - width + width**2 / 3)
    expected = factor * bread @ bartlett_long_run(scores, 4) @ bread
    np.testing.assert_allclose(fit.covariance[1], expected, rtol=1e-9)


def test_ols_hac_without_intercept_and_without_a_solution():
    x = np.linspace(1.0, 2.0, 20)
    fit = ols_hac(3.0 * x, x, lag=2, intercept=False)
    np.testing.assert_allclose(fit.coefficients, [3.0], rtol=1e-12)
    assert fit.r_squared == pytest.approx(1.0)
    twice = ols_hac(np.sin(x), np.c_[x, 2.0 * x], lag=2)
    assert np.isnan(twice.coefficients).all()
    assert np.isnan(twice.wald([1, 2]))
    assert twice.condition > 1e8
    assert np.isnan(ols_hac([1.0, 2.0], [[1.0, 2.0, 3.0]] * 2, lag=0).coefficients).all()
    # Columns of very different size are no ill-conditioning.
    sized = ols_hac(x, np.c_[np.cos(x), 1e12 * np.sin(7 * x)], lag=2)
    assert sized.condition < 100


def test_newey_west_intervals_cover_under_autocorrelation():
    rng = np.random.default_rng(2)
    repetitions, n, lag, phi = 4000, 400, 20, 0.5
    x, e = ar1(phi, (repetitions, n), rng), ar1(phi, (repetitions, n), rng)
    y = 1.0 + 0.5 * x + e
    low, high = ols_hac(y, x, lag=lag).interval()
    rates = np.mean((low <= [1.0, 0.5]) & (high >= [1.0, 0.5]), axis=0)
    # Truncation loses 2 rho / ((1 - rho^2)(lag + 1)) of the variance, rho = .5 for the scores of the intercept
    # (6.3 %) and .25 for those of the slope (2.5 %): a coverage of .95 falls by half of that share times
    # 2 z phi(z) = .229, that is by .007 and .003.
    assert within(rates[0], 0.95, repetitions, bias=0.0073)
    assert within(rates[1], 0.95, repetitions, bias=0.0029)
    low, high = ols_hac(y, x, lag=0).interval()
    assert np.mean((low[:, 0] <= 1.0) & (high[:, 0] >= 1.0)) < 0.80


def test_wald_keeps_its_level_for_several_coefficients():
    rng = np.random.default_rng(3)
    repetitions, n = 3000, 200
    x = ar1(0.4, (repetitions, 3, n), rng).swapaxes(-1, -2)
    y = ar1(0.4, (repetitions, n), rng)
    rate = np.mean(ols_hac(y, x, lag=10).wald([1, 2, 3]) < 0.05)
    # Scores have rho = .16: truncation of 3.0 % of each variance; 3 F falls on a chi^2 of 3 where the share
    # moves the tail by .03 * x f(x) = .03 * 7.81 * .0377 = .009.
    assert within(1.0 - rate, 0.95, repetitions, bias=0.009)


def test_regression_wrong_settings():
    with pytest.raises(SettingError, match="x must be"):
        ols_hac([1.0, 2.0], [1.0, 2.0, 3.0], lag=0)
    with pytest.raises(SettingError, match=r"lag must lie in 0\.\.1"):
        ols_hac([1.0, 2.0], [1.0, 2.0], lag=2)
    with pytest.raises(SettingError, match="at least one column"):
        ols_hac([1.0, 2.0], np.zeros((2, 0)), lag=0, intercept=False)
    fit = ols_hac([1.0, 3.0, 2.0], [1.0, 2.0, 3.0], lag=0)
    with pytest.raises(SettingError, match="level must lie"):
        fit.interval(95)
    with pytest.raises(SettingError, match="at least one coefficient"):
        fit.wald([])


# --- a series and its past --------------------------------------------------------------------------------


def test_effective_n_and_ar1():
    rng = np.random.default_rng(4)
    x = ar1(0.6, (400, 500), rng)
    # n (1 - phi) / (1 + phi) = 125; the kernel truncates 2 phi / ((1 - phi^2) 31) = 6.0 % of the variance. Its
    # estimate has 24 degrees of freedom: an sd of 29 %, 1.4 % for the mean of 400, of which 3 are 4.3 %.
    assert np.mean(1.0 / effective_n(x, 30)) == pytest.approx((1 - 0.060) / 125.0, rel=0.043)
    short = ar1(0.9, (2000, 74), rng)
    fit = ar1_fit(short)
    # sd of phi about .06, of its mean .0013; terms of order 1/n^2 leave .01.
    assert fit.phi.mean() == pytest.approx(0.9, abs=0.015)
    assert ar1_fit(short, unbiased=False).phi.mean() == pytest.approx(0.9 - (1 + 2.7) / 74, abs=0.015)
    assert fit.innovation_sd.mean() == pytest.approx(np.sqrt(1 - 0.81), rel=0.02)
    x[0, 5] = np.nan
    fit = ar1_fit(np.vstack([x[:1, :50], np.full((1, 50), np.nan), np.ones((1, 50))]))
    assert np.isfinite(fit.phi).tolist() == [True, False, False]
    assert fit.n.tolist() == [47, 0, 49]
    with pytest.raises(SettingError, match="at least 2 values"):
        ar1_fit([1.0])


def test_lagged_design():
    design = lagged_design(np.arange(4.0), [0, 2, 9])
    np.testing.assert_array_equal(design[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(design[:, 1], [np.nan, np.nan, 0, 1])
    assert np.isnan(design[:, 2]).all()
    with pytest.raises(SettingError, match="use the future"):
        lagged_design([1.0], [-1])


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_f6_gap_damping_correlations_say_nothing(phi):
    rng = np.random.default_rng(5)
    x = ar1(phi, (1000, 400), rng)
    centred = gap_damping_correlation(x)
    forward = gap_damping_correlation(x, difference="forward")
    # The numerator is a difference of two end products over a sum of n: sd about 1/n up to the ratio of the
    # sizes of level and change, at most 1 / sqrt((1 - phi^2) / 2) here.
    assert centred.mean() == pytest.approx(0.0, abs=0.002)
    assert centred.std() < 6.0 / 400 / np.sqrt((1 - phi**2) / 2)
    # The sample rho_1 is low by about 4/n, a shift of 4/n / (4 |corr|) at most .012.
    assert forward.mean() == pytest.approx(-np.sqrt((1 - phi) / 2), abs=0.013)


def test_f6_numerator_telescopes_and_moving_averages_obey_it():
    rng = np.random.default_rng(6)
    noise = rng.standard_normal((1000, 309))
    ma = np.stack([noise[:, i : i + 300] for i in range(10)]).sum(axis=0)  # rho_1 = 9/10
    assert gap_damping_correlation(ma).mean() == pytest.approx(0.0, abs=0.003)
    forward = gap_damping_correlation(ma, difference="forward").mean()
    assert forward == pytest.approx(-np.sqrt(0.05), abs=0.02)
    g = ma[0]
    ends = g[-2] * g[-1] - g[0] * g[1]
    assert np.sum(g[1:-1] * (g[2:] - g[:-2])) == pytest.approx(ends, abs=1e-10)
    missing = np.stack([g, g])
    missing[1, 7] = np.nan
    assert np.isfinite(gap_damping_correlation(missing)).tolist() == [True, False]
    with pytest.raises(SettingError, match="difference must be"):
        gap_damping_correlation(g, difference="backward")
    with pytest.raises(SettingError, match="at least 4"):
        gap_damping_correlation([1.0, 2.0, 3.0])


# --- bootstrap --------------------------------------------------------------------------------------------


def test_block_indices():
    rng = np.random.default_rng(7)
    index = moving_block_indices(23, 5, 200, rng)
    assert index.shape == (200, 23)
    assert index.min() == 0
    assert index.max() == 22
    inside = np.arange(1, 23) % 5 != 0
    assert (np.diff(index, axis=1)[:, inside] == 1).all()
    index = stationary_indices(500, 20, 200, rng)
    assert index.shape == (200, 500)
    jumps = (np.diff(index, axis=1) % 500 != 1).mean()
    # Every step is a jump with probability 1/20 (1 in 500 of them lands next): sd sqrt(.05 .95 / 99800).
    assert jumps == pytest.approx(1 / 20, abs=0.0022)
    counts = np.bincount(index.ravel(), minlength=500)
    # All places are equally likely, the ends too: mean 200, blocks of 20 make its sd about sqrt(200 * 39).
    assert counts[:20].mean() == pytest.approx(200, rel=0.3)


def test_block_bootstrap_of_stacks_equals_one_by_one():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((60, 3)), rng.standard_normal(60)

    def one(x, y):
        return x.T @ y

    def stacked(x, y):
        return np.einsum("bti,bt->bi", x, y)

    a = block_bootstrap(one, x, y, block=6, n_boot=100, rng=np.random.default_rng(1))
    b = block_bootstrap(stacked, x, y, block=6, n_boot=100, rng=np.random.default_rng(1), vectorized=True)
    for first, second in ((a.value, b.value), (a.low, b.low), (a.high, b.high)):
        np.testing.assert_allclose(first, second, rtol=1e-10, atol=1e-12)
    assert a.n_units == 10.0
    basic = block_bootstrap(one, x, y, block=6, n_boot=100, rng=np.random.default_rng(1), interval="basic")
    np.testing.assert_allclose(basic.low, 2 * a.value - a.high)


def test_block_bootstrap_intervals_cover_under_autocorrelation():
    rng = np.random.default_rng(9)
    repetitions, n, block = 500, 400, 20
    hits = {"t": 0, "percentile": 0, "single": 0}
    for x in ar1(0.5, (repetitions, n), rng):
        for kind in hits:
            length, interval = (1, "percentile") if kind == "single" else (block, kind)
            b = block_bootstrap(mean, x, block=length, n_boot=200, rng=rng, interval=interval, vectorized=True)
            hits[kind] += int(b.low <= 0.0 <= b.high)
    # Cut blocks lose 2 rho / ((1 - rho^2) block) = 6.7 % of the variance: .229 / 2 of it in coverage, .0077.
    # `percentile` also lacks the 5 % of block / n (.0057), the width of t over the normal law at 30 degrees
    # of freedom (4 %, .0096), and some .005 for the ends of 200 resamples.
    assert within(hits["t"] / repetitions, 0.95, repetitions, bias=0.0077)
    assert within(hits["percentile"] / repetitions, 0.95, repetitions, bias=0.0077 + 0.0057 + 0.0096 + 0.005)
    assert hits["single"] / repetitions < 0.83


def test_statistics_without_a_value_give_no_interval():
    x = np.random.default_rng(10).standard_normal(40)

    def two(x):
        return np.array([x.mean(), np.nan])

    for interval in ("percentile", "basic", "t"):
        b = block_bootstrap(two, x, block=4, n_boot=50, rng=np.random.default_rng(0), interval=interval)
        assert b.low[0] < b.value[0] < b.high[0]
        assert np.isnan([b.value[1], b.low[1], b.high[1]]).all()


def test_cluster_bootstrap_keeps_runs_whole():
    rng = np.random.default_rng(11)
    runs = [rng.standard_normal(int(length)) + rng.standard_normal() for length in rng.integers(5, 50, 30)]

    def statistic(clusters):
        assert all(any(c is run for run in runs) for c in clusters)
        return np.mean([c.mean() for c in clusters])

    b = cluster_bootstrap(statistic, runs, n_boot=2000, rng=rng, interval="t")
    means = np.array([run.mean() for run in runs])
    # t interval of 30 means; 2000 resamples give an sd to sqrt(1 / 4000) = 1.6 %.
    half = 2.045 * means.std(ddof=1) / np.sqrt(30)
    assert b.value == pytest.approx(means.mean())
    assert float(b.high - b.low) == pytest.approx(2 * half, rel=0.05)
    assert b.n_units == 30


def test_bootstrap_wrong_settings():
    rng = np.random.default_rng(0)
    with pytest.raises(SettingError, match="same length"):
        block_bootstrap(mean, [1.0, 2.0], [1.0], block=1, rng=rng)
    with pytest.raises(SettingError, match="block must lie"):
        block_bootstrap(mean, [1.0, 2.0], block=3, rng=rng)
    with pytest.raises(SettingError, match="block must lie"):
        stationary_indices(5, 0.5, 10, rng)
    with pytest.raises(SettingError, match="interval must be one of"):
        block_bootstrap(mean, [1.0, 2.0], block=1, n_boot=2, rng=rng, interval="bca")
    with pytest.raises(SettingError, match="level must lie"):
        block_bootstrap(mean, [1.0, 2.0], block=1, n_boot=2, rng=rng, level=95)
    with pytest.raises(SettingError, match="at least 2 runs"):
        cluster_bootstrap(len, [1], rng=rng)


# --- shifts and multiple tests ----------------------------------------------------------------------------


def correlation(x, y):
    u, v = x - x.mean(), y - y.mean()
    return abs(u @ v) / np.sqrt((u @ u) * (v @ v))


def scan(x, y):
    return np.abs(lagged_correlations(x, y, range(-2, 3)))


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_circular_shifts_keep_their_level_and_find_dependence(phi):
    rng = np.random.default_rng(12)
    repetitions = 300
    rejected = found = 0
    for _ in range(repetitions):
        x, y = ar1(phi, (2, 120), rng)
        rejected += circular_shift_p(correlation, x, y, 999) <= 0.05
        found += circular_shift_p(correlation, x, y + x, 999) <= 0.05
    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert found / repetitions > 0.8


def test_scans_keep_their_level_and_name_the_lag():
    rng = np.random.default_rng(13)
    repetitions = 100
    p = [max_statistic_p(scan, *ar1(0.5, (2, 120), rng), 59, rng).p for _ in range(repetitions)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
    x, noise = ar1(0.5, (2, 400), rng)
    test = max_statistic_p(scan, x, np.roll(x, 2) + 0.5 * noise, 199, rng)
    assert test.observed.argmax() == 4
    assert test.p == test.p_adjusted[4] <= 0.05
    assert test.n_shifts == 199
    assert (test.p_adjusted >= circular_shift_p(lambda x, y: scan(x, y)[4], x, np.roll(x, 2), 399)).all()


def test_entries_of_a_scan_that_cannot_be_are_left_out():
    x = np.sin(np.arange(40.0))
    test = max_statistic_p(lambda x, y: np.array([np.nan, correlation(x, y)]), x, x)
    assert np.isnan(test.p_adjusted[0])
    assert test.p == test.p_adjusted[1] == 1 / 40
    assert np.isnan(circular_shift_p(lambda x, y: np.nan, x, x))
    assert np.isnan(lagged_correlations(x, np.zeros(40), [0])).all()


def test_shift_wrong_settings():
    x = np.arange(10.0)
    with pytest.raises(SettingError, match="series in step"):
        circular_shift_p(correlation, x, x[1:])
    with pytest.raises(SettingError, match="at least 2"):
        circular_shift_p(correlation, x[:1], x[:1])
    with pytest.raises(SettingError, match="rng must be given"):
        circular_shift_p(correlation, x, x, 5)
    with pytest.raises(SettingError, match="at least 3 pairs"):
        lagged_correlations(x, x, [8])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(p=st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=8))
def test_adjusted_p_values_equal_their_definitions(p):
    p = np.array(p)
    made = np.flatnonzero(np.isfinite(p))
    k = len(made)
    order = made[np.argsort(p[made], kind="stable")]
    by_holm, by_bh = np.full(len(p), np.nan), np.full(len(p), np.nan)
    for rank, i in enumerate(order):
        by_holm[i] = min(1.0, max((k - r) * p[order[r]] for r in range(rank + 1)))
        by_bh[i] = min(1.0, min(k * p[order[r]] / (r + 1) for r in range(rank, k)))
    np.testing.assert_allclose(holm(p), by_holm, rtol=1e-12)
    np.testing.assert_allclose(benjamini_hochberg(np.stack([p, p]))[1], by_bh, rtol=1e-12)


def test_p_values_must_be_p_values():
    for wrong in ([1.5], [-0.1], 0.5):
        with pytest.raises(SettingError, match="p must be"):
            holm(wrong)


# --- calibration ------------------------------------------------------------------------------------------


def test_calibration_values_equal_their_definitions():
    rng = np.random.default_rng(14)
    p, noise = rng.standard_normal((2, 300))
    y = 0.3 + 0.7 * p + 0.2 * noise
    missing = rng.choice(300, 20, replace=False)
    y[missing[:10]] = np.nan
    p[missing[10:]] = np.nan
    baseline = np.zeros(300)
    fit = calibrate(np.c_[p, baseline], y, block=10, n_boot=200, rng=rng)
    kept = np.isfinite(p) & np.isfinite(y)
    a, b = p[kept], y[kept]
    slope, intercept = np.polyfit(a, b, 1)
    assert fit.n == 280
    assert fit.status == "ok"
    assert fit.slope.value[0] == pytest.approx(slope)
    assert fit.intercept.value[0] == pytest.approx(intercept)
    assert fit.slope_zero.value[0] == pytest.approx(a @ b / (a @ a))
    assert fit.r2_mean.value[0] == pytest.approx(1 - np.sum((b - a) ** 2) / np.sum((b - b.mean()) ** 2))
    assert fit.r2_zero.value[0] == pytest.approx(1 - np.sum((b - a) ** 2) / np.sum(b**2))
    assert fit.spearman.value[0] == pytest.approx(spearmanr(a, b).statistic)
    # "No change" as a baseline has no slope and explains nothing against itself.
    assert np.isnan(fit.slope.value[1])
    assert np.isnan(fit.slope.low[1])
    assert fit.r2_zero.value[1] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(fit.advantage.value, [0.0, fit.r2_zero.value[0]], atol=1e-12)
    assert fit.advantage.low[1] > 0.0
    assert fit.slope.low[0] < 0.7 < fit.slope.high[0]
    assert 100 < fit.n_effective[0] <= 280


def test_a_right_prediction_has_slope_one():
    rng = np.random.default_rng(15)
    repetitions, n, block = 200, 300, 20
    hits = np.zeros(3)
    for _ in range(repetitions):
        p, e = ar1(0.5, (2, n), rng)
        fit = calibrate(p, p + e, block=block, n_boot=400, rng=rng, interval="t")
        for i, (b, truth) in enumerate([(fit.slope, 1.0), (fit.slope_zero, 1.0), (fit.intercept, 0.0)]):
            hits[i] += int(b.low[0] <= truth <= b.high[0])
    rates = hits / repetitions
    # Cut blocks lose 2.7 % and 6.7 % of the variance of scores with rho .25 and .5; the fit takes (3 + 1.7) / 300
    # = 1.6 % out of the residuals (mean and slope, each times its correlation time). Half of the sum times .229:
    # .0049 for both slopes and .0095 for the intercept. (2500 repetitions give .943, .944 and .938; with 100
    # resamples in place of 400 they give .938, .936 and .935.)
    assert within(rates[0], 0.95, repetitions, bias=0.0049)
    assert within(rates[1], 0.95, repetitions, bias=0.0049)
    assert within(rates[2], 0.95, repetitions, bias=0.0095)


def test_calibration_says_when_there_is_too_little():
    rng = np.random.default_rng(16)
    y = rng.standard_normal(60)
    assert calibrate(y, y, block=20, n_boot=20, rng=rng).status == "few blocks"
    short = calibrate(y[:30], y[:30], block=20, rng=rng)
    assert short.status == "too few windows"
    assert short.slope.value[0] == pytest.approx(1.0)
    assert np.isnan(short.slope.low[0])
    nothing = calibrate(np.full(60, np.nan), y, block=20, rng=rng)
    assert (nothing.status, nothing.n) == ("too few windows", 0)
    assert np.isnan(nothing.r2_zero.value[0])
    with pytest.raises(SettingError, match="predicted must be"):
        calibrate(y[1:], y, block=5, rng=rng)
    with pytest.raises(SettingError, match=r"block must lie in 1\.\.60"):
        calibrate(y, y, block=61, rng=rng)


def weighted_history(n, planted, rng):
    """Changes of a loss with or without a part in the stability coefficients, and both predictions."""
    contributions = ar1(0.6, (5, n), rng) * np.array([2.0, 1.0, 0.5, 0.3, 0.2])[:, None] - 0.5
    alpha = np.array([0.9, 0.5, 0.3, 0.1, 0.05])[:, None] + 0.3 * ar1(0.6, (5, n), rng)
    weighted = np.clip(alpha, 0.0, 1.0) * contributions
    change = (weighted if planted else contributions).sum(axis=0) + 0.5 * ar1(0.6, (n,), rng)
    return change, contributions.sum(axis=0), weighted.sum(axis=0)


def test_nested_test_keeps_its_level_and_finds_what_matters():
    rng = np.random.default_rng(17)
    repetitions, n, block = 200, 200, 20
    improves, wald = np.zeros(2), np.zeros(2)
    for planted in (0, 1):
        for _ in range(repetitions):
            y, small, weighted = weighted_history(n, planted, rng)
            test = nested_test(y, small, np.c_[small, weighted], block=block, n_boot=100, rng=rng)
            improves[planted] += test.improves
            wald[planted] += test.wald_p < 0.05
    improves, wald = improves / repetitions, wald / repetitions
    # Scores have rho = .36: 3.9 % of their variance is cut, .0045 in level. Out of sample the full model pays
    # for one more coefficient, so that the joint rule rejects less often than either.
    assert within(1.0 - wald[0], 0.95, repetitions, bias=0.0045)
    assert improves[0] <= 0.05
    assert improves[1] > 0.9


def test_nested_test_of_an_exact_case():
    rng = np.random.default_rng(18)
    x, z = rng.standard_normal((2, 120))
    y = 2.0 * x + z
    y[40], x[90] = np.nan, np.nan
    test = nested_test(y, x, np.c_[x, z], block=10, n_boot=100, rng=rng)
    assert test.gain == pytest.approx(1.0, abs=1e-12)
    assert test.improves
    np.testing.assert_allclose(test.fit.coefficients, [0.0, 2.0, 1.0], atol=1e-12)
    # 80 windows lie ahead of the first 40; two of them lack a value.
    assert test.n_test == 78


def test_nested_test_never_looks_ahead():
    rng = np.random.default_rng(19)
    y, x, z = rng.standard_normal((3, 90))
    first = nested_test(y, x, np.c_[x, z], block=10, n_boot=10, rng=np.random.default_rng(0))
    changed = y.copy()
    changed[-1] = 1e6
    second = nested_test(changed, x, np.c_[x, z], block=10, n_boot=10, rng=np.random.default_rng(0))
    # The last window enters no fit, and its own squared error only: both models predict it as before.
    small_then_full = [ols_hac(y[:75], m[:75], lag=0).coefficients for m in (x[:, None], np.c_[x, z])]
    predictions = [b @ np.r_[1.0, v] for b, v in zip(small_then_full, ([x[-1]], [x[-1], z[-1]]), strict=True)]
    moved = [(1e6 - p) ** 2 - (y[-1] - p) ** 2 for p in predictions]
    expected = (moved[0] - moved[1]) / 60
    assert float(second.difference.value - first.difference.value) == pytest.approx(expected, rel=1e-6)


def test_nested_wrong_settings():
    rng = np.random.default_rng(0)
    y, x, z = rng.standard_normal((3, 60))
    with pytest.raises(SettingError, match="must add columns"):
        nested_test(y, x, x, block=5, rng=rng)
    with pytest.raises(SettingError, match="first 1 columns of x_full"):
        nested_test(y, x, np.c_[z, x], block=5, rng=rng)
    with pytest.raises(SettingError, match="two blocks"):
        nested_test(y, x, np.c_[x, z], block=25, rng=rng)
