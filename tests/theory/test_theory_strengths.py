from __future__ import annotations

import numpy as np
import pytest
from theory_reference import wishart

from spectraledge.errors import SettingError
from spectraledge.theory import (
    critical_strength,
    debiased_strength,
    detected_strengths,
    detection_threshold,
    momentum_row_correlation,
    noise_edge,
    sample_gram,
    signal_fraction,
)

N = 3000
# 3.5 sd of a share of 5 % over 3000 windows is 0.014; the quoted constants add up to a point (c to 0.01).
ALARMS = pytest.approx(0.05, abs=0.014 + 0.01)


@pytest.mark.parametrize("p_eff", [300.0, 1e6])
@pytest.mark.parametrize("window", [2, 3, 5, 10, 20])
def test_false_alarms_of_noise_with_equal_rows_are_five_percent(window, p_eff):
    gram = wishart(N, window, p_eff, np.random.default_rng(0))
    lam = np.linalg.eigvalsh(gram)[:, -1]
    assert (lam > noise_edge(1.0, p_eff, window)).mean() == ALARMS
    replicates = detected_strengths(gram, np.ones(window), p_eff)
    assert (replicates[:, 0] > 0).mean() == ALARMS
    # Row energies scatter by sqrt(2/P_eff) of themselves: below the 10 % at which the table holds.
    assert (detected_strengths(gram, None, p_eff)[:, 0] > 0).mean() == ALARMS


def test_unequal_rows_are_not_signal():
    norms = np.exp(0.3 * np.random.default_rng(1).standard_normal(10))
    gram = sample_gram(norms, 300.0, n_draws=400, rng=np.random.default_rng(2))
    bounded = (detected_strengths(gram, None, 300.0)[:, 0] > 0).mean()
    simulated = (detected_strengths(gram, None, 300.0, rng=np.random.default_rng(3))[:, 0] > 0).mean()
    assert bounded < 0.05
    # 400 windows against a quantile of 999 draws: sd 0.013.
    assert simulated == pytest.approx(0.05, abs=3.5 * 0.013)


def test_momentum_noise_is_not_signal_when_its_correlation_is_given():
    rho = momentum_row_correlation(0.9, 25, 10)
    gram = sample_gram(np.ones(10), 300.0, row_correlation=rho, n_draws=300, rng=np.random.default_rng(4))
    assert (detected_strengths(gram, None, 300.0)[:, 0] > 0).mean() > 0.5
    known = detected_strengths(gram, None, 300.0, row_correlation=rho, rng=np.random.default_rng(5))
    assert (known[:, 0] > 0).mean() == pytest.approx(0.05, abs=3.5 * 0.0145)
    with pytest.raises(SettingError, match="rng must be given"):
        detection_threshold(np.ones(10), 300.0, hollow=True, row_correlation=rho)


def test_a_planted_drift_comes_back_with_its_strength():
    # Signal share 0.3 of every row: d^2 = 10 * 0.3. The relative sd of d over draws is about 1.6 %.
    norms = np.exp(0.2 * np.random.default_rng(6).standard_normal(10))
    gram = sample_gram(np.ones(10), 500.0, coherence=0.3, n_draws=200, rng=np.random.default_rng(7))
    d = detected_strengths(gram, None, 500.0)
    assert np.all(d[:, 0] > 0)
    assert d[:, 0].mean() == pytest.approx(np.sqrt(3.0), rel=0.01)
    assert (d[:, 1] > 0).mean() < 0.1
    unequal = gram * norms[:, None] * norms
    planted = np.sqrt(0.3 * np.sum(norms**2))
    assert detected_strengths(unequal, None, 500.0)[:, 0].mean() == pytest.approx(planted, rel=0.02)
    replicates = detected_strengths(gram, np.full(10, 0.7), 500.0)
    assert replicates[:, 0].mean() == pytest.approx(np.sqrt(3.0), rel=0.02)


def test_two_planted_modes_are_both_found():
    rng = np.random.default_rng(8)
    profile = np.where(np.arange(10) < 5, 1.0, -1.0)
    kernel = 0.3 + 0.3 * np.outer(profile, profile)
    gram = sample_gram(np.ones(10), 1e4, coherence=kernel, n_draws=100, rng=rng)
    d = detected_strengths(gram, None, 1e4)
    np.testing.assert_allclose(d[:, :2].mean(axis=0), np.sqrt(3.0), rtol=0.03)
    assert ((d > 0).sum(axis=1) == 2).mean() > 0.9


def test_debiasing_inverts_the_spiked_model():
    e, p_eff, w = 2.0, 400.0, 10
    aspect = w / p_eff
    d2 = np.array([9.0, 2.0, 0.5])
    lam = (d2 + e * aspect) * (d2 + e) / d2
    sigma = np.sqrt(np.r_[lam, np.full(7, e)])
    d = debiased_strength(sigma, e, p_eff)
    np.testing.assert_allclose(d[:3] ** 2, d2, rtol=1e-12)
    assert not d[3:].any()
    assert critical_strength(e, p_eff, w) == pytest.approx(np.sqrt(e) * aspect**0.25)
    edge = e * (1 + np.sqrt(aspect)) ** 2
    weakest = debiased_strength(np.full(w, np.sqrt(edge * (1 + 1e-12))), e, p_eff)
    assert weakest[0] == pytest.approx(critical_strength(e, p_eff, w), rel=1e-4)
    np.testing.assert_allclose(signal_fraction(d, sigma)[:3], d2 / lam, rtol=1e-12)
    assert np.isnan(debiased_strength(sigma, e, np.nan)).all()


def test_unknown_dimension_or_gram_gives_nan():
    gram = np.stack([np.eye(5), np.eye(5), np.full((5, 5), np.nan)])
    d = detected_strengths(gram, None, np.array([100.0, np.nan, 100.0]))
    assert np.isnan(d).all(axis=1).tolist() == [False, True, True]
