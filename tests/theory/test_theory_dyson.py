from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import hadamard
from scipy.stats import kstest

from spectraledge.errors import DataError, SettingError
from spectraledge.theory import sample_gram, synthetic
from spectraledge.theory.avoided_crossing import (
    crossing_test,
    find_crossings,
    gram_crossings,
    predicted_mixing,
    two_levels,
)
from spectraledge.theory.dyson import kappa_squared, simulate_gap, wishart_drift
from spectraledge.theory.gap_law import stationary_density, stationary_gap
from spectraledge.theory.perturbation import cyclic_change
from spectraledge.theory.spacing import GOE_MEAN, POISSON_MEAN, spacing_ratio
from spectraledge.theory.spacing_null import spacing_test
from spectraledge.theory.window_series import full_gram_windows, window_series

LAWS = [
    {"kappa2": 0.5, "pull": -0.2},
    {"kappa2": 0.5, "pull": -0.2, "damping": 0.1},
    {"kappa2": 2.0, "pull": 0.0, "damping": 0.1},
    {"kappa2": 0.02, "pull": 3.0, "damping": 0.5},
    {"kappa2": 1.0, "pull": -1.0, "damping": 1e-9},
]


def test_r4_mode_median_and_mean_of_the_stationary_gap():
    law = stationary_gap(kappa2=0.3, pull=-0.05)
    unit = 0.3 / 0.05
    assert law.mode == pytest.approx(2.0 * unit, rel=1e-12)
    assert law.median == pytest.approx(3.3567 * unit, rel=1e-5)  # Gamma of shape 2: median 1.67835 scales
    assert law.mean == pytest.approx(4.0 * unit, rel=1e-8)
    assert law.scale == pytest.approx(2.0 * unit)


@pytest.mark.parametrize("law", LAWS)
def test_stationary_density_is_normalised_and_carries_no_flux(law):
    centre = stationary_gap(**law)
    ends = [0.0, centre.mode, 2 * centre.mode, 200 * centre.mean]
    total = sum(
        quad(lambda g: float(stationary_density(g, **law)), a, b, limit=400)[0] for a, b in itertools.pairwise(ends)
    )
    assert total == pytest.approx(1.0, rel=1e-6)
    below = quad(lambda g: float(stationary_density(g, **law)), 0, centre.median, points=[centre.mode], limit=400)[0]
    assert below == pytest.approx(0.5, rel=1e-6)
    # Fokker-Planck: p'/p = (2 kappa^2 / g + pull - damping g) / (2 kappa^2).
    g = centre.mean
    step = 1e-5 * g
    p = stationary_density(np.array([g - step, g, g + step]), **law)
    drift = 2 * law["kappa2"] / g + law["pull"] - law.get("damping", 0.0) * g
    assert (p[2] - p[0]) / (2 * step * p[1]) == pytest.approx(drift / (2 * law["kappa2"]), rel=1e-5, abs=1e-5)
    assert stationary_density(-1.0, **law) == 0.0


def test_free_gap_is_exact_at_any_step():
    # g^2 of a Brownian motion in the plane grows by 8 kappa^2 t; its sd over 20,000 paths is below 1 %.
    g = simulate_gap(1.0, [3.0], kappa2=0.5, pull=0.0, n_paths=20_000, rng=np.random.default_rng(0))[:, 0]
    assert np.mean(g**2) == pytest.approx(1.0 + 8 * 0.5 * 3.0, rel=0.03)
    assert g.min() > 0.0


@pytest.mark.parametrize("law", [LAWS[0], LAWS[1]])
def test_simulated_gap_reaches_its_stationary_law(law):
    n = 4000
    start = stationary_gap(**law).mean
    time = 40 * law["kappa2"] / law["pull"] ** 2
    g = simulate_gap(start, [time], n_paths=n, rng=np.random.default_rng(1), **law)[:, 0]
    grid = np.linspace(0.0, 20 * start, 20_001)
    cumulated = np.concatenate(
        [[0.0], np.cumsum(0.5 * np.diff(grid) * (lambda p: p[1:] + p[:-1])(stationary_density(grid, **law)))]
    )
    # Kolmogorov-Smirnov at n = 4000 sees deviations of 0.02; that of the splitting is below 0.005.
    assert kstest(g, lambda x: np.interp(x, grid, cumulated)).pvalue > 0.01
    assert g.min() > 0.0


def test_gap_never_crosses_under_a_strong_pull():
    paths = simulate_gap(
        0.5, np.arange(50.0), kappa2=1e-4, pull=-1.0, n_paths=50, rng=np.random.default_rng(2), max_step=0.05
    )
    assert paths.shape == (50, 50)
    assert paths.min() > 0.0
    assert paths[:, 0] == pytest.approx(0.5)


def test_kappa_is_the_mean_square_of_the_coupling():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 40))
    grams, blocks = full_gram_windows(x @ x.T, 5)
    u = window_series(grams, blocks).time_profiles[:-1]
    got = kappa_squared(blocks, u)
    seen = np.array(
        [[u[n, :, k] @ cyclic_change(blocks[n], 5) @ u[n, :, k + 1] for k in range(4)] for n in range(len(u))]
    )
    np.testing.assert_allclose(got.kappa2, np.mean(seen**2, axis=0), rtol=1e-12)
    np.testing.assert_allclose(kappa_squared(blocks, -u).kappa2, got.kappa2, rtol=1e-12)
    blocks[4, 0, 0] = np.nan
    fewer = kappa_squared(blocks, u)
    np.testing.assert_allclose(fewer.kappa2, np.mean(np.delete(seen, 4, axis=0) ** 2, axis=0), rtol=1e-12)
    assert fewer.n.tolist() == [len(u) - 1] * 4


def test_white_noise_has_the_diagonal_noise_of_the_dyson_model():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2000, 500)) / np.sqrt(500)
    grams, blocks = full_gram_windows(x @ x.T, 10)
    got = kappa_squared(blocks, window_series(grams, blocks).time_profiles[:-1])
    # About 200 independent windows: a variance is known to sqrt(2 / 200) = 0.1, the ratio to 0.14; 4 of these,
    # over 9 pairs.
    assert np.all(np.abs(got.diagonal_ratio - 1.0) < 0.55)
    assert np.all(got.standard_error < 0.2 * got.kappa2)


def test_bru_drift_is_the_mean_change_of_wishart_eigenvalues():
    rng = np.random.default_rng(5)
    x = np.zeros((3, 30))
    x[np.arange(3), np.arange(3)] = [5.0, 3.0, 1.5]
    noise, n = 1e-2, 40_000
    lam0 = np.array([25.0, 9.0, 2.25])
    grams = np.empty((n, 3, 3))
    for i in range(0, n, 4000):
        y = x + noise * rng.standard_normal((4000, 3, 30))
        grams[i : i + 4000] = y @ y.swapaxes(-1, -2)
    change = np.linalg.eigvalsh(grams)[:, ::-1] - lam0
    error = change.std(axis=0) / np.sqrt(n)
    predicted = wishart_drift(lam0, noise**2, 30)
    assert np.all(np.abs(change.mean(axis=0) - predicted) < 4 * error)
    assert predicted.sum() == pytest.approx(noise**2 * 30 * 3)  # repulsion cancels in the trace


def test_f16_asymptotic_spacing_ratios():
    rng = np.random.default_rng(6)
    a = rng.standard_normal((60, 150, 150))
    goe = spacing_ratio(np.linalg.eigvalsh(a + a.swapaxes(-1, -2))).mean()
    poisson = spacing_ratio(rng.random((60, 150))).mean()
    # sd of one ratio 0.25 to 0.29, 8880 of them: 0.003; the size effect at n = 150 is of the same order.
    assert goe == pytest.approx(GOE_MEAN, abs=0.012)
    assert poisson == pytest.approx(POISSON_MEAN, abs=0.012)


def test_spacing_test_passes_noise_and_finds_independent_levels():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((600, 400)) * rng.uniform(0.99, 1.01, (600, 1))
    grams, _ = full_gram_windows(x @ x.T, 8)
    white = spacing_test(grams, p_eff=400, n_draws=200, rng=rng)
    assert white.p_value > 0.05
    assert white.n_windows == 75
    # Independent levels with rows of equal norm: a Hadamard basis spreads each level evenly over the rows.
    basis = hadamard(8) / np.sqrt(8)
    levels = rng.uniform(0.8, 1.2, (600, 1, 8))
    planted = spacing_test((basis * levels) @ basis.T, p_eff=400, n_draws=200, rng=rng)
    assert planted.p_value < 0.01
    assert planted.observed < planted.null_mean - 4 * planted.null_sd


def test_spacing_test_is_calibrated():
    rng = np.random.default_rng(8)
    p = [
        spacing_test(sample_gram(np.ones(6), 100.0, n_draws=36, rng=rng), p_eff=100.0, n_draws=60, rng=rng).p_value
        for _ in range(60)
    ]
    # Six windows of 36 are used; at level 0.2 60 trials give 12 +- 3.1: four standard deviations.
    assert abs(np.sum(np.asarray(p) <= 0.2) - 12) <= 12.4


def test_planted_crossing_mixes_as_two_levels_do():
    history = synthetic.avoided_crossing(400, 200, rate=0.005, coupling=0.2, noise=0.05, rng=np.random.default_rng(9))
    norms = np.linalg.norm(history.updates, axis=1)
    for half_width in (20, 60):
        found = gram_crossings(history.gram, 4, 1, half_width=half_width)
        assert len(found.index) == 1
        assert abs(found.index[0] + 1.5 - 200) < 10  # middle of the window; noise moves a flat minimum
        # sigma = sqrt(W / 2) d with d = 4 +- 0.2: smallest gap 2 * (4.2^2 - 3.8^2).
        assert found.smallest_gap[0] == pytest.approx(2 * (4.2**2 - 3.8**2), rel=0.03)
        _, before = two_levels(-2 * 0.005 * half_width, 0.2)
        _, after = two_levels(2 * 0.005 * half_width, 0.2)
        assert found.predicted[0] == pytest.approx(before - after, abs=0.05)
        assert found.misfit < 0.03  # noise of 0.05 against a gap of 0.4 turns directions by a few hundredths
        assert found.closure[0] > 0.99
    test = crossing_test(found, norms, 4, 1, half_width=60, p_eff=400, n_draws=40, rng=np.random.default_rng(10))
    assert test.p_value < 0.05


def test_noise_does_not_cross_like_two_levels():
    rng = np.random.default_rng(11)
    gram = sample_gram(np.ones(200), 300.0, rng=rng)[0]
    found = gram_crossings(gram, 4, 1, half_width=10)
    test = crossing_test(found, np.ones(200), 4, 1, half_width=10, p_eff=300.0, n_draws=60, rng=rng)
    assert test.p_value > 0.05
    assert np.nanmedian(found.closure) < 0.1


def test_mixing_angles():
    gap, phi = two_levels([3.0, -3.0], 2.0)
    np.testing.assert_allclose(gap, 5.0)
    np.testing.assert_allclose(np.tan(2 * phi), [4 / 3, -4 / 3])
    assert predicted_mixing(5.0, 4.0, 5.0) == pytest.approx(phi[1] - phi[0])
    assert np.isnan(predicted_mixing(1.0, 2.0, 3.0))


def test_refusals_and_empty_answers():
    with pytest.raises(SettingError, match="kappa2 must be positive"):
        simulate_gap(1.0, [1.0], kappa2=0.0, pull=0.0, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="times must be"):
        simulate_gap(1.0, [2.0, 1.0], kappa2=1.0, pull=0.0, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="pull must be negative"):
        stationary_gap(kappa2=1.0, pull=0.5)
    with pytest.raises(SettingError, match="blocks must be"):
        kappa_squared(np.ones((3, 4, 4)), np.ones((3, 4, 4)))
    with pytest.raises(SettingError, match="skip must leave 3"):
        spacing_test(np.ones((2, 4, 4)), p_eff=10, skip=2, rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="one window must be finite"):
        spacing_test(np.full((2, 4, 4), np.nan), p_eff=10, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="position must lie"):
        find_crossings(np.ones((9, 3)), np.ones((5, 3, 3)), 3, half_width=2)
    with pytest.raises(SettingError, match="overlaps must be"):
        find_crossings(np.ones((9, 3)), np.ones((4, 3, 3)), 1, half_width=2)
    with pytest.raises(SettingError, match="Record more updates"):
        gram_crossings(np.eye(5), 4, 1, half_width=2)
    rising = find_crossings(np.linspace(1, 2, 9)[:, None] * [3.0, 1.0], np.ones((5, 2, 2)), 1, half_width=2)
    assert len(rising.index) == 0
    assert np.isnan(rising.misfit)
