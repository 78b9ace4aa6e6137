from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.equilibrium import brier_score, equilibrium, opening_probability, reliability
from spectraledge.theory.gap_flow_fit import fit_gap_flow


def test_regimes_times_and_interval():
    e = equilibrium(
        1.0, [0.02, -0.02, 0.001, np.nan], 0.01, pull_sd=0.002, damping_sd=0.001, stride=50, run_steps=299
    )
    assert e.regime.tolist() == ["viable", "collapsing", "undetermined", ""]
    np.testing.assert_allclose(e.gap[:3], [2.0, -2.0, 0.1])
    # g* = c / gamma: relative variances add, 0.1^2 + 0.1^2.
    assert (e.high[0] - e.low[0]) / 2 == pytest.approx(1.959964 * 2.0 * np.sqrt(0.02), rel=1e-6)
    np.testing.assert_allclose(e.relaxation_steps, 100.0)
    np.testing.assert_allclose(e.relaxation_snapshots, 2.0)
    assert e.collapse_steps[1] == pytest.approx(np.log(1 + 0.01 / 0.02) / 0.01)
    assert e.collapse_snapshots[1] == pytest.approx(e.collapse_steps[1] / 50)
    assert np.isinf(e.collapse_steps[0])
    assert not e.testable.any()
    assert equilibrium(1.0, 0.02, 0.01, pull_sd=0.0, stride=50, run_steps=300).testable


def test_no_equilibrium_without_damping():
    e = equilibrium(1.0, 0.02, [0.0, -0.01, 0.001], pull_sd=0.001, damping_sd=0.001, stride=1, run_steps=1e9)
    assert np.isnan(e.gap[:2]).all()
    assert np.isinf(e.relaxation_steps[:2]).all()
    assert e.testable.tolist() == [False, False, True]
    assert np.isnan(e.low).all()  # gamma within two errors of zero


def test_delta_interval_covers():
    rng = np.random.default_rng(0)
    c, gamma = 0.02 + 0.001 * rng.standard_normal(4000), 0.01 + 0.0005 * rng.standard_normal(4000)
    e = equilibrium(1.0, c, gamma, pull_sd=0.001, damping_sd=0.0005, stride=1, run_steps=1.0)
    covered = np.mean((e.low < 2.0) & (e.high > 2.0))
    assert covered == pytest.approx(0.95, abs=0.014 + 0.005)  # 4 sd of 4000 trials, and second order in 5 % errors


def test_opening_probability_is_honest_when_the_flow_is_right():
    rng = np.random.default_rng(1)
    n = 5000
    g = rng.uniform(0.0, 4.0, n)
    c, gamma = 0.02 + 0.01 * rng.standard_normal(n), 0.01
    # The true pull given the measured one, under a flat prior, scatters about it with its error.
    true = c + 0.01 * rng.standard_normal(n)
    opened = (true - gamma * g > 0).astype(float)
    p = opening_probability(g, c, gamma, pull_sd=0.01)
    table = reliability(p, opened, n_bins=5)
    error = np.sqrt(0.25 / np.maximum(table.counts, 1))
    assert np.all(np.abs(table.predicted - table.observed) < 4 * error)
    assert table.counts.sum() == n
    score = brier_score(p, opened)
    assert score.skill > 0.3
    assert score.n == n
    assert brier_score(np.full(n, opened.mean()), opened).skill == pytest.approx(0.0, abs=1e-12)


def test_brier_of_certainty_and_of_nothing():
    assert brier_score([1.0, 0.0, np.nan], [1, 0, 1]).score == 0.0
    assert brier_score([1.0, 0.0, np.nan], [1, 0, 1]).n == 2
    assert np.isnan(brier_score([np.nan], [1]).score)
    assert opening_probability(1.0, [0.02, 0.01, 0.0], 0.01, pull_sd=0.0).tolist() == [1.0, 0.5, 0.0]


def series(seed, n=600, noise=0.02, sign=1.0):
    """A gap driven by three slow terms, of which the second is its own damping."""
    rng = np.random.default_rng(seed)
    forcing = np.zeros((n, 2))
    for t in range(1, n):
        forcing[t] = 0.95 * forcing[t - 1] + 0.05 * rng.standard_normal(2)
    g, gamma = np.zeros(n), 0.05
    g[0] = 3.0
    for t in range(n - 1):
        g[t + 1] = g[t] + sign * (0.15 + forcing[t].sum()) - gamma * g[t] + noise * rng.standard_normal()
    terms = np.column_stack([forcing[:, 0], -gamma * g, 0.15 + forcing[:, 1]])
    return g, terms


def test_right_terms_have_coefficients_one():
    fit = fit_gap_flow(*series(2), window=5, horizon=1)
    assert fit.status == "ok"
    assert fit.cure == ""
    np.testing.assert_allclose(fit.coefficients, 1.0, atol=4 * fit.standard_errors.max())
    assert np.all((fit.low < 1.0) & (fit.high > 1.0))
    assert fit.p_all_one > 0.05
    assert fit.p_all_zero < 1e-6
    assert fit.r_squared_flow > 0.5
    assert fit.n == 599


def test_wrong_sign_is_contradicted():
    g, terms = series(3)
    terms[:, [0, 2]] *= -1.0
    fit = fit_gap_flow(g, terms, window=5, horizon=1)
    assert fit.status == "ok"
    assert fit.p_all_one < 1e-6
    assert fit.r_squared_flow < 0.0


def test_level_of_the_test_of_one():
    p = np.array([fit_gap_flow(*series(seed, n=300), window=5, horizon=1).p_all_one for seed in range(100, 200)])
    # At level 0.1 100 trials give 10 +- 3; the covariance estimate, from 300 windows, makes it a few percent more.
    assert np.sum(p <= 0.1) <= 10 + 4 * 3


def test_status_and_cure():
    g, terms = series(4)
    few = fit_gap_flow(g[:50], terms[:50], window=5)
    assert few.status == "too few windows"
    assert "Record more often" in few.cure
    assert np.isnan(few.coefficients).all()
    flat = terms.copy()
    flat[:, 0] = 0.0
    assert fit_gap_flow(g, flat, window=5).status == "no variation"
    same = terms.copy()
    same[:, 2] = same[:, 0] + 1e-4 * terms[:, 2]
    together = fit_gap_flow(g, same, window=5)
    assert together.status == "ill-conditioned"
    assert together.condition > 30.0
    assert "move together" in together.cure
    g[100] = np.nan
    assert fit_gap_flow(g, terms, window=5, horizon=1).n == 597


def test_refusals():
    with pytest.raises(SettingError, match="stride must be at least 1"):
        equilibrium(1.0, 0.0, 0.1, pull_sd=0.1, stride=0, run_steps=1)
    with pytest.raises(SettingError, match="probability must lie"):
        brier_score([1.2], [1])
    with pytest.raises(SettingError, match="n_bins"):
        reliability([0.2], [1], n_bins=0)
    with pytest.raises(SettingError, match="gap must be"):
        fit_gap_flow(np.ones(5), np.ones(5), window=5)
