from __future__ import annotations

import numpy as np
import pytest
from theory_reference import momentum_updates_correlation

from spectraledge.errors import SettingError
from spectraledge.theory import (
    common_part_noise,
    effective_dimension,
    momentum_row_correlation,
    sample_gram,
    von_neumann_noise,
)


def test_estimators_on_constant_drift_plus_noise():
    rng = np.random.default_rng(0)
    x = 0.7 + 0.1 * rng.standard_normal((200, 10, 500))
    gram = x @ x.swapaxes(-1, -2)
    e = 0.01 * 500
    # Relative sd of one window is about sqrt(2/500/9 * 3/2) = 2.6 %, of the mean of 200 windows 0.2 %.
    assert von_neumann_noise(gram).mean() == pytest.approx(e, rel=0.006)
    assert common_part_noise(gram).mean() == pytest.approx(e, rel=0.006)
    assert von_neumann_noise(gram).shape == (200,)
    with pytest.raises(SettingError, match="at least 2"):
        common_part_noise([[1.0]])


def test_von_neumann_corrects_for_momentum():
    rho = momentum_row_correlation(0.9, 10, 10)
    gram = sample_gram(np.ones(10), 1e6, row_correlation=rho, n_draws=50, rng=np.random.default_rng(1))
    assert von_neumann_noise(gram).mean() == pytest.approx(1 - rho[1], rel=1e-3)
    assert von_neumann_noise(gram, rho[1]).mean() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(("steps", "first"), [(1, 0.9), (10, 0.525), (25, 0.252), (100, 0.052), (200, 0.025)])
def test_momentum_row_correlation_against_explicit_weights(steps, first):
    rho = momentum_row_correlation(0.9, steps, 5)
    assert rho[1] == pytest.approx(first, abs=6e-4)
    # The reference cuts the history of gradients at 400 steps: 0.9^400 is 5e-19.
    np.testing.assert_allclose(rho, momentum_updates_correlation(0.9, steps, 5), rtol=1e-9, atol=1e-12)


def test_momentum_row_correlation_limits():
    assert momentum_row_correlation(0.0, 7, 4).tolist() == [1, 0, 0, 0]
    assert momentum_row_correlation(0.9, 7, 1).tolist() == [1]
    for beta, steps, n in ((1.0, 1, 2), (-0.1, 1, 2), (0.9, 0, 2), (0.9, 1, 0)):
        with pytest.raises(SettingError):
            momentum_row_correlation(beta, steps, n)


@pytest.mark.parametrize(("decay", "traces"), [(0.5, 510.2), (1.0, 34.1)])
def test_effective_dimension_of_anisotropic_noise_with_drift(decay, traces):
    rng = np.random.default_rng(2)
    variances = np.arange(1, 1001.0) ** -decay
    x = rng.standard_normal((300, 20, 1000)) * np.sqrt(variances)
    assert variances.sum() ** 2 / np.sum(variances**2) == pytest.approx(traces, abs=0.1)
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosines = (unit @ unit.swapaxes(-1, -2))[:, *np.triu_indices(20, 1)]
    drift = rng.standard_normal(1000)
    drift *= np.sqrt(0.3 * variances.sum()) / np.linalg.norm(drift)
    for updates in (x, x + drift):
        estimate = effective_dimension(updates @ updates.swapaxes(-1, -2), beyond=0)
        # Sampling error of the pooled 1/P_eff over 300 windows is 1 %; with a drift, energies that fluctuate with
        # a few leading axes no longer cancel in the cosines, which costs another 3 % in the second case.
        assert 1 / np.mean(1 / estimate) == pytest.approx(1 / cosines.var(), rel=0.05)
    if decay == 0.5:
        assert 1 / np.mean(1 / estimate) == pytest.approx(traces, rel=0.03)


@pytest.mark.parametrize("coherence", [0.0, 0.3])
@pytest.mark.parametrize("beyond", [0, 1, 4])
def test_effective_dimension_recovers_the_planted_value(coherence, beyond):
    gram = sample_gram(np.ones(20), 300.0, coherence=coherence, n_draws=1000, rng=np.random.default_rng(3))
    estimate = effective_dimension(gram, beyond=beyond)
    # Relative sd of one window 11-13 %, of the pooled mean 0.4 %; normalising rows changes it by 1/300.
    assert 1 / np.mean(1 / estimate) == pytest.approx(300.0, rel=0.02)


@pytest.mark.parametrize("steps", [10, 25, 100])
def test_effective_dimension_under_momentum(steps):
    rho = momentum_row_correlation(0.9, steps, 20)
    gram = sample_gram(
        np.ones(20), 300.0, coherence=0.2, row_correlation=rho, n_draws=1000, rng=np.random.default_rng(4)
    )
    reach = max(1, int(np.sum(rho[1:] > 0.02)))
    estimate = effective_dimension(gram, beyond=reach, row_correlation=rho)
    assert np.median(estimate) == pytest.approx(300.0, rel=0.08)


def test_a_turning_drift_lowers_the_estimate():
    lag = np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    gram = sample_gram(np.ones(20), 300.0, coherence=0.5 * 0.9**lag, n_draws=200, rng=np.random.default_rng(5))
    assert np.median(effective_dimension(gram)) < 300


def test_missing_pairs_and_missing_updates():
    gram = sample_gram(np.ones(20), 300.0, n_draws=500, rng=np.random.default_rng(6))
    banded = gram.copy()
    lag = np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    banded[:, lag > 12] = np.nan
    banded[250:, :5] = np.nan
    banded[250:, :, :5] = np.nan
    estimate = effective_dimension(banded)
    assert 1 / np.mean(1 / estimate[:250]) == pytest.approx(300.0, rel=0.03)
    assert 1 / np.mean(1 / estimate[250:]) == pytest.approx(300.0, rel=0.04)
    banded[0] = np.nan
    assert np.isnan(effective_dimension(banded)[0])


def test_too_few_pairs_or_no_scatter_give_nan():
    assert np.isnan(effective_dimension(np.eye(5)))
    assert np.isnan(effective_dimension(np.ones((20, 20))))
    assert np.isnan(effective_dimension(np.zeros((20, 20))))
    assert effective_dimension(np.zeros((0, 20, 20))).shape == (0,)
    with pytest.raises(SettingError, match="beyond"):
        effective_dimension(np.eye(20), beyond=-1)
