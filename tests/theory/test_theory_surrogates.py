from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory import effective_dimension, fit_null, momentum_row_correlation, sample_gram
from spectraledge.theory.unit_rows import chi_square_quantile

N = 8
LAG = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
OFF = ~np.eye(N, dtype=bool)
KERNELS = [0.0, 0.4, 0.5 * 0.8**LAG]


@pytest.mark.parametrize("p_eff", [3.0, 7.5, 12.3, 300.0, 1e8, np.inf])
@pytest.mark.parametrize("kernel", KERNELS, ids=["none", "constant", "smooth"])
def test_samples_are_psd_with_the_given_norms(p_eff, kernel):
    norms = np.linspace(1.0, 3.0, N)
    gram = sample_gram(norms, p_eff, coherence=kernel, n_draws=50, rng=np.random.default_rng(0))
    assert gram.shape == (50, N, N)
    assert np.linalg.eigvalsh(gram).min() > -1e-12 * np.sum(norms**2)
    np.testing.assert_allclose(np.diagonal(gram, axis1=1, axis2=2), np.tile(norms**2, (50, 1)), rtol=1e-12)


@pytest.mark.parametrize("p_eff", [4.0, 40.5, 300.0])
def test_moments_of_white_noise(p_eff):
    gram = sample_gram(np.ones(N), p_eff, n_draws=4000, rng=np.random.default_rng(1))
    # Cosines of independent directions have mean 0 and variance 1/q exactly; 4000 x 28 of them (pairs are
    # uncorrelated) give the variance to sqrt(2 / 112000) = 0.4 %, more for the heavier tails at small q.
    assert gram[:, OFF].mean() == pytest.approx(0.0, abs=4 / np.sqrt(4000 * 28 * p_eff))
    assert gram[:, OFF].var() == pytest.approx(1 / p_eff, rel=0.02)


@pytest.mark.parametrize("kernel", KERNELS[1:], ids=["constant", "smooth"])
def test_mean_cosines_follow_kernel_and_momentum(kernel):
    rho = momentum_row_correlation(0.9, 25, N)
    gram = sample_gram(
        np.ones(N), 5000.0, coherence=kernel, row_correlation=rho, n_draws=2000, rng=np.random.default_rng(2)
    )
    k = np.broadcast_to(kernel, (N, N))
    expected = k + (1 - k[0, 0]) * rho[LAG]
    # sd of a mean is below 1/sqrt(5000 * 2000) = 3e-4; normalising rows biases by about 1/5000.
    np.testing.assert_allclose(gram.mean(axis=0)[OFF], expected[OFF], atol=2e-3)


def test_explicit_directions_and_wishart_factor_agree():
    """The same law on both sides of the switch from whole dimensions to Bartlett's factor."""
    rng = np.random.default_rng(3)
    q = 9
    gram = sample_gram(np.ones(N), q, coherence=0.3, n_draws=6000, rng=rng)
    z = rng.standard_normal((6000, N, q)) / np.sqrt(q) * np.sqrt(0.7)
    z[:, :, 0] += np.sqrt(0.3)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    explicit = z @ z.swapaxes(-1, -2)
    mine, theirs = (np.linalg.eigvalsh(g)[:, ::-1] for g in (gram, explicit))
    sd = theirs.std(axis=0) * np.sqrt(2 / 6000)
    np.testing.assert_array_less(np.abs(mine.mean(axis=0) - theirs.mean(axis=0)), 4 * sd + 1e-12)
    np.testing.assert_allclose(np.quantile(mine[:, 0], 0.95), np.quantile(theirs[:, 0], 0.95), rtol=0.02)


def test_leading_axes_share_directions():
    norms = np.array([np.ones(N), np.full(N, 2.0)])
    gram = sample_gram(norms, 100.0, n_draws=5, rng=np.random.default_rng(4))
    assert gram.shape == (2, 5, N, N)
    np.testing.assert_allclose(gram[1], 4 * gram[0])


def test_draws_are_reproducible():
    one, two = (sample_gram(np.ones(N), 50.0, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_chi_square_quantile_is_continuous_where_the_formula_changes():
    u = np.linspace(0.001, 0.999, 50)
    low, high = (chi_square_quantile(df, u) for df in (9999.999, 10000.001))
    np.testing.assert_allclose(low, high, rtol=2e-6)


def test_white_and_norm_matched():
    observed = np.diag(np.linspace(1.0, 2.0, N))
    white = fit_null("white", observed, 100.0).sample(3, np.random.default_rng(6))
    np.testing.assert_allclose(np.diagonal(white, axis1=1, axis2=2), 1.5)
    matched = fit_null("norm_matched", observed, 100.0).sample(3, np.random.default_rng(6))
    np.testing.assert_allclose(np.diagonal(matched, axis1=1, axis2=2)[0], np.linspace(1.0, 2.0, N))


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_constant_drift_recovers_its_share(beta):
    rho = momentum_row_correlation(beta, 25, 60)
    gram = sample_gram(np.ones(60), 1e5, coherence=0.4, row_correlation=rho, rng=np.random.default_rng(7))[0]
    null = fit_null("constant_drift", gram, 1e5, rho)
    # The mean over 1770 cosines is known to about 2 m sqrt(1-m^2) / sqrt(60 P_eff) = 4e-4.
    assert null.kernel[0, 1] == pytest.approx(0.4, abs=2e-3)
    assert effective_dimension(null.sample(5, np.random.default_rng(8)), beyond=10).mean() == pytest.approx(
        1e5, rel=0.1
    )


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_smooth_drift_recovers_its_kernel_from_a_band(beta):
    t = 120
    lag = np.abs(np.subtract.outer(np.arange(t), np.arange(t)))
    rho = momentum_row_correlation(beta, 25, t)
    kernel = 0.5 * 0.9**lag + 0.2
    gram = sample_gram(np.ones(t), 1e5, coherence=kernel, row_correlation=rho, rng=np.random.default_rng(9))[0]
    gram[lag > 30] = np.nan
    null = fit_null("smooth_drift", gram, 1e5, rho)
    assert np.all(null.weights >= 0)
    assert null.weights.sum() <= 1 + 1e-12
    assert np.all(np.abs(null.decays) < 1)
    expected = 0.5 * 0.9 ** np.arange(1, 31) + 0.2
    np.testing.assert_allclose(null.kernel[0, 1:31], expected, atol=0.01)
    sample = null.sample(2, np.random.default_rng(10))
    assert np.linalg.eigvalsh(sample).min() > -1e-12 * t


def test_smooth_drift_of_pure_momentum_noise_is_small():
    rho = momentum_row_correlation(0.9, 10, 100)
    gram = sample_gram(np.ones(100), 1e4, row_correlation=rho, rng=np.random.default_rng(11))[0]
    assert fit_null("smooth_drift", gram, 1e4, rho).weights.sum() < 0.02
    assert fit_null("smooth_drift", gram, 1e4).weights.sum() > 0.1


def test_weights_never_exceed_one():
    path = np.cos(0.02 * np.subtract.outer(np.arange(40), np.arange(40)))  # a noise-free turning direction
    null = fit_null("smooth_drift", path, 100.0)
    assert null.weights.sum() <= 1 + 1e-12
    np.testing.assert_allclose(np.diagonal(null.sample(1, np.random.default_rng(0))[0]), 1.0)


def test_nothing_is_drawn_without_a_dimension():
    for p_eff in (None, np.nan, 0.0, -1.0):
        with pytest.raises(SettingError, match="effective dimension"):
            fit_null("white", np.eye(N), p_eff)
    with pytest.raises(SettingError, match="p_eff"):
        sample_gram(np.ones(N), np.nan, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="kind must be one of"):
        fit_null("pink", np.eye(N), 10.0)
    with pytest.raises(SettingError, match="positive diagonal"):
        fit_null("white", np.zeros((N, N)), 10.0)
    with pytest.raises(SettingError, match="coherence"):
        sample_gram(np.ones(N), 10.0, coherence=1.5, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="coherence"):
        sample_gram(np.ones(N), 10.0, coherence=np.eye(3), rng=np.random.default_rng(0))
