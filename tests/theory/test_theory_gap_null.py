from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory import effective_dimension, gap_null, gap_null_statistics, gap_p_value, gram_spectrum
from spectraledge.theory.gap_null import gap_scores, largest_score
from spectraledge.theory.noise import momentum_row_correlation
from spectraledge.theory.surrogates import sample_gram

N, DRAWS = 1500, 399


def p_values(gram, p_eff, rule="guarded", row_correlation=None, n_draws=DRAWS, seed=7):
    spectrum = gram_spectrum(gram)
    return gap_p_value(
        gram,
        spectrum.singular_values,
        p_eff=p_eff,
        row_correlation=row_correlation,
        rule=rule,
        floor=spectrum.floor,
        n_draws=n_draws,
        rng=np.random.default_rng(seed),
    )


def assert_uniform(p):
    # All windows share the draws, so the level has the sampling error of the windows and of the draws together.
    for level in (0.05, 0.2, 0.5, 0.8):
        sd = np.sqrt(level * (1 - level) * (1 / len(p) + 1 / DRAWS))
        assert (p <= level).mean() == pytest.approx(level, abs=3.5 * sd)


@pytest.mark.parametrize(
    ("rule", "window", "p_eff", "beta", "jitter"),
    [
        ("guarded", 5, 300.0, 0.0, 0.0),
        ("guarded", 5, 1e8, 0.0, 0.0),
        ("guarded", 5, 60.5, 0.0, 0.3),
        ("guarded", 6, 300.0, 0.9, 0.1),
        ("plain", 5, 300.0, 0.0, 0.2),
        ("weighted", 5, 300.0, 0.9, 0.0),
        ("difference", 4, 300.0, 0.0, 0.1),
        ("guarded", 6, 4.0, 0.0, 0.0),
    ],
)
def test_p_values_are_uniform_under_their_own_null(rule, window, p_eff, beta, jitter):
    rng = np.random.default_rng(11)
    rho = momentum_row_correlation(beta, 10, window)
    norms = np.exp(jitter * rng.standard_normal((N, window)))
    cosines = sample_gram(np.ones(window), p_eff, row_correlation=rho, n_draws=N, rng=rng)
    gram = cosines * norms[:, :, None] * norms[:, None, :]
    assert_uniform(p_values(gram, p_eff, rule, rho))


@pytest.mark.parametrize("steps", [None, 10])
def test_p_values_keep_their_level_when_the_dimension_is_estimated(steps):
    """The whole chain on noise: 20 updates, P_eff from all of them, the p-value of the last window of 8."""
    rng = np.random.default_rng(17)
    rho = np.eye(20)[0] if steps is None else momentum_row_correlation(0.9, steps, 20)
    block = sample_gram(np.ones(20), 300.0, row_correlation=rho, n_draws=800, rng=rng)
    reach = max(1, int(np.sum(rho[1:] > 0.02)))
    p_eff = effective_dimension(block, beyond=reach, row_correlation=rho)
    p = p_values(block[:, 12:, 12:], p_eff, row_correlation=rho, n_draws=199)
    for level in (0.05, 0.2):
        # 800 windows and 199 shared draws; a P_eff that errs by 12-20 % adds a point or so at the 5 % level.
        sd = np.sqrt(level * (1 - level) * (1 / 800 + 1 / 199))
        assert (p <= level).mean() == pytest.approx(level, abs=3 * sd + 0.01)


def test_independent_rows_would_reject_momentum_noise():
    rng = np.random.default_rng(12)
    rho = momentum_row_correlation(0.9, 10, 10)
    gram = sample_gram(np.ones(10), 300.0, row_correlation=rho, n_draws=200, rng=rng)
    assert (p_values(gram, 300.0, n_draws=99) <= 0.05).mean() > 0.95


def test_a_drift_is_found():
    rng = np.random.default_rng(13)
    gram = sample_gram(np.ones(10), 300.0, coherence=0.5, n_draws=100, rng=rng)
    assert p_values(gram, 300.0).max() == 1 / (DRAWS + 1)


def test_bounds_save_work_and_change_nothing():
    rng = np.random.default_rng(14)
    norms = np.exp(0.2 * rng.standard_normal((40, 6)))
    gram = sample_gram(np.ones(6), 2000.0, coherence=0.02, n_draws=40, rng=rng)
    gram = gram * norms[:, :, None] * norms[:, None, :]
    sigma = gram_spectrum(gram).singular_values
    for rule in ("guarded", "plain", "weighted"):
        p_eff = float(np.exp(round(np.log(2000.0) / 0.05) * 0.05))  # the bucket's own dimension
        p = gap_p_value(gram, sigma, p_eff=p_eff, rule=rule, n_draws=50, rng=np.random.default_rng(3))
        draws = gap_null_statistics(
            np.sqrt(np.diagonal(gram, axis1=1, axis2=2)),
            p_eff,
            rule=rule,
            n_draws=50,
            rng=np.random.default_rng(3),
        )
        observed = largest_score(gap_scores(sigma, rule))
        np.testing.assert_allclose(p, (1 + (draws >= observed[:, None]).sum(axis=1)) / 51)


def test_chunks_do_not_change_the_answer(monkeypatch):
    rng = np.random.default_rng(15)
    gram = sample_gram(np.ones(5), 100.0, n_draws=30, rng=rng)
    whole = p_values(gram, 100.0)
    monkeypatch.setattr(gap_null, "_CHUNK", 7 * 25)
    np.testing.assert_array_equal(whole, p_values(gram, 100.0))


def test_a_window_keeps_its_p_value_whatever_the_company():
    rng = np.random.default_rng(16)
    gram = sample_gram(np.ones(5), 100.0, n_draws=3, rng=rng)
    together = p_values(gram, np.array([100.0, 1e4, np.nan]))
    np.testing.assert_array_equal(together[0], p_values(gram[:1], 100.0)[0])
    assert np.isnan(together[2])


def test_no_p_value_without_what_it_needs():
    gram = np.stack([np.eye(5)] * 4)
    gram[1, 0] = gram[1, :, 0] = 0.0  # a zero update
    gram[2] = np.nan
    p = p_values(gram, np.array([100.0, 100.0, 100.0, -1.0]), n_draws=9)
    assert np.isnan(p).tolist() == [False, True, True, True]
    assert p_values(np.eye(5), np.inf, n_draws=9).shape == ()


def test_wrong_settings():
    with pytest.raises(SettingError, match="gram must have shape"):
        gap_p_value(np.eye(4), np.ones(5), p_eff=10.0, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="p_eff must be positive"):
        gap_null_statistics(np.ones(5), np.nan, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="row_correlation must hold at least 5 lags"):
        p_values(np.eye(5), 10.0, row_correlation=np.ones(3))
    with pytest.raises(SettingError, match="positive semi-definite"):
        p_values(np.eye(5), 10.0, row_correlation=[1.0, 0.9, 0.0, 0.0, 0.0])
    with pytest.raises(SettingError, match="1 at lag 0"):
        p_values(np.eye(5), 10.0, row_correlation=[2.0, 0.1, 0.0, 0.0, 0.0])
