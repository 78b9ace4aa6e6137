from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_reference import wishart

from spectraledge.errors import SettingError
from spectraledge.theory import fit_null, momentum_row_correlation, sample_gram
from spectraledge.theory.alpha import alpha_groups, stability_coefficients, subspace_coefficients
from spectraledge.theory.alpha_null import AlphaNull, alpha_null, block_size, ordering_margin
from spectraledge.theory.worst_cases import sharp_rotation, unchanged_spectrum

EXACT = 2.0**-53
W, P = 6, 30
quick = settings(max_examples=20, deadline=None, derandomize=True)


def right_vectors(rows):
    return np.linalg.svd(rows, full_matrices=False)[2].T


def drifting(n, m, rng, rows=11, p=1e8):
    """Grams of rows m e + noise of energy about 1, norms not rescaled."""
    along = rng.standard_normal((n, rows)) / np.sqrt(p)
    return wishart(n, rows, p, rng) + m * m + m * (along[:, :, None] + along[:, None, :])


@quick
@given(seed=st.integers(0, 2**32 - 1))
def test_overlap_kinds_against_explicit_vectors(seed):
    x = np.random.default_rng(seed).standard_normal((2 * W, P))
    d = x @ x.T
    for kind, lag in (("overlap2_lag1", 1), ("overlap2_lagW", W)):
        v, v2 = right_vectors(x[:W]), right_vectors(x[lag : lag + W])
        block = d[: W + lag, : W + lag]
        # Near-degenerate pairs amplify rounding by at most 1e4 here.
        np.testing.assert_allclose(stability_coefficients(block, W, kind), np.sum(v * v2, axis=0) ** 2, atol=1e-9)
        shared = [np.linalg.norm(v[:, :k].T @ v2[:, :k]) ** 2 / k for k in range(1, W + 1)]
        np.testing.assert_allclose(subspace_coefficients(block, W, kind), shared, atol=1e-9)
    # None is the lag-W overlap.
    np.testing.assert_array_equal(stability_coefficients(d, W), stability_coefficients(d, W, "overlap2_lagW"))


@pytest.mark.parametrize("w", [4, 5, 10])
def test_half_cos_is_the_authors(w):
    x = np.random.default_rng(w).standard_normal((w + 1, P)) + 0.5
    half = w // 2
    v, v2 = right_vectors(x[:half]), right_vectors(x[half:w])
    alpha = stability_coefficients(x @ x.T, w, "half_cos", mode="author")
    np.testing.assert_allclose(alpha[:half], np.abs(np.sum(v * v2[:, :half], axis=0)), atol=1e-9)
    assert np.isnan(alpha[half:]).all()
    np.testing.assert_array_equal(stability_coefficients(x[:w] @ x[:w].T, w, "half_cos", mode="author"), alpha)


@quick
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, W), drift=st.sampled_from([0.0, 1.0, 4.0]))
def test_dk_is_a_lower_bound_of_the_squared_cosine(seed, m, drift):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4, W + m, P)) / np.sqrt(P) * np.exp(rng.standard_normal((4, W + m, 1)))
    x[..., 0] += drift
    block = x @ x.swapaxes(1, 2)
    for i in range(4):
        v, v2 = right_vectors(x[i, :W]), right_vectors(x[i, m:])
        assert np.all(stability_coefficients(block[i], W, "dk") <= np.sum(v * v2, axis=0) ** 2 + 1e-9)
        shared = [np.linalg.norm(v[:, :k].T @ v2[:, :k]) ** 2 / k for k in range(1, W + 1)]
        guaranteed = subspace_coefficients(block[i], W, "dk")
        assert np.all(guaranteed <= np.array(shared) + 1e-9)
        # A span of one direction is promised what the direction is, at any m.
        np.testing.assert_allclose(guaranteed[0], stability_coefficients(block[i], W, "dk")[0], atol=1e-6)


def test_author_formula_and_its_gap():
    lam, lam2 = np.array([9.0, 4.0, 1.0]), np.array([9.0, 4.0, 1.5])
    # Orthogonal updates: the one of energy 1 leaves, one of 1.5 enters.
    block = np.diag([1.0, 9.0, 4.0, 1.5])
    change = np.linalg.norm(lam2 - lam)
    # The last gap is to the neighbour above, 2.5, not the 1.5 to zero.
    expected = 1 - (change / np.array([5.0, 2.5, 2.5])) ** 2
    np.testing.assert_allclose(stability_coefficients(block, 3, mode="author"), expected)
    operator = np.hypot(1.0, 1.5)
    expected = 1 - (operator / np.array([5.0, 2.5, 2.5])) ** 2
    np.testing.assert_allclose(stability_coefficients(block, 3, "dk_f", mode="author"), expected)
    # Strict: spread 2.5 over the gaps 5, 3, 1 of the earlier window.
    np.testing.assert_allclose(stability_coefficients(block, 3, "dk"), [0.75, 1 - (2.5 / 3) ** 2, 0.0], atol=1e-12)


def test_author_coefficients_are_no_bounds():
    still = unchanged_spectrum()
    np.testing.assert_allclose(stability_coefficients(still.block, 3, mode="author")[:2], 1.0)
    assert stability_coefficients(still.block, 3, "overlap2_lag1")[0] < 1e-12
    assert stability_coefficients(still.block, 3, "dk")[0] == 0.0
    # Worst case with ||dM||_F and C = 1: it says 1 - 2 (1/2 + 0.001)^2 where the squared cosine is 0.
    case = sharp_rotation(0.001).reversed
    said = stability_coefficients(case.block, case.window, "dk_f", mode="author")[0]
    assert said == pytest.approx(1 - 2 * 0.501**2, abs=1e-9)
    assert stability_coefficients(case.block, case.window, "overlap2_lag1")[0] < 1e-12
    # C = 2 makes it a bound, and no smaller factor does: the spread is at most sqrt(2) ||dM||_F.
    assert 1 - 2 * (1 - said) < 0.0 < 1 - 1.98 * (1 - said)


@pytest.mark.parametrize(("m", "cosine"), [(0.3, 0.474), (1.0, 0.909)])
def test_f3_disjoint_overlap_is_the_square_of_the_signal_fraction(m, cosine):
    """|cos| of disjoint windows is W m^2 / (W m^2 + 1) at P -> infinity, so alpha is its square."""
    d = sample_gram(np.ones(20), 1e10, coherence=m**2 / (1 + m**2), n_draws=5, rng=np.random.default_rng(0))
    alpha = stability_coefficients(d, 10)
    # Overlaps of two windows scatter by some sqrt(10 / P) = 3e-5; three digits are quoted.
    np.testing.assert_allclose(np.sqrt(alpha[:, 0]), 10 * m**2 / (10 * m**2 + 1), atol=2e-4)
    np.testing.assert_allclose(np.sqrt(alpha[:, 0]), cosine, atol=6e-4)
    assert alpha[:, 1:].max() < 1e-6


def test_published_nulls_of_the_authors_formula():
    """Sections 3.6 and 6.4: .213 .045 .023 in white noise, 1.000 .144 .024 with a drift of 0.3.

    Those are means of at least 60 histories, whose sd per history is .060, .022, .015 (drift .055, .018 for j = 2,
    3): standard errors .008, .003, .002 and .007, .002. Ours over 4000 independent windows of sd below .33, .15,
    .10 are .005, .0024, .0016. Tolerances: 3 of both together, and half the last digit.
    """
    rng = np.random.default_rng(1)
    white = stability_coefficients(drifting(4000, 0.0, rng), 10, mode="author").mean(axis=0)
    assert np.all(np.abs(white[:3] - [0.213, 0.045, 0.023]) < [0.029, 0.012, 0.009])
    drift = stability_coefficients(drifting(4000, 0.3, rng), 10, mode="author").mean(axis=0)
    assert np.all(np.abs(drift[:3] - [1.0, 0.144, 0.024]) < [0.0005, 0.023, 0.009])
    # Step norms that vary log-normally by 0.2: .824 .382 .212 .146 are quoted; sd per window up to .45.
    scale = np.exp(0.2 * rng.standard_normal((4000, 11)))
    jitter = drifting(4000, 0.3, rng) * scale[:, :, None] * scale[:, None, :]
    jitter = stability_coefficients(jitter, 10, mode="author").mean(axis=0)
    np.testing.assert_allclose(jitter[:4], [0.824, 0.382, 0.212, 0.146], atol=0.05)


def test_published_nulls_of_the_strict_bound():
    """0 for white noise and for a drift of 0.3; at drift 1.0: 0.88 for j = 1, 0 for the rest. C = 1: 0.94."""
    rng = np.random.default_rng(2)
    for m, first in ((0.0, 0.0), (0.3, 0.0), (1.0, 0.88)):
        alpha = stability_coefficients(drifting(200, m, rng), 10, "dk").mean(axis=0)
        # At P -> infinity spread^2 = 2 (2 + 4 m^2) and gap_1 = 10 m^2: 1 - 12/100 at m = 1. At P = 1e8 fluctuations
        # of 1e-4 move it by less than 1e-3.
        np.testing.assert_allclose(alpha, [first] + [0.0] * 9, atol=1e-3)
    c_one = stability_coefficients(drifting(200, 1.0, rng), 10, "dk_f", mode="author").mean(axis=0)
    np.testing.assert_allclose(c_one, [0.94] + [0.0] * 9, atol=1e-3)


def test_published_nulls_of_neighbouring_windows():
    """Mean |cos| at lag 1 in white noise: .795 .646 .568; sd below .35, so 3 sd of the mean of 3000 is .02."""
    d = drifting(3000, 0.0, np.random.default_rng(3))
    cosines = np.sqrt(stability_coefficients(d, 10, "overlap2_lag1")).mean(axis=0)
    np.testing.assert_allclose(cosines[:3], [0.795, 0.646, 0.568], atol=0.02)


def test_the_ordering_is_found_in_white_noise():
    null = alpha_null(np.ones(60), 1e8, 10, mode="author", n_draws=60, rng=np.random.default_rng(4))
    assert null.kind == "dk_dlam"
    # 3 standard errors of 60 histories, on means that are a little above those of rows with varying norms.
    np.testing.assert_allclose(null.draws.mean(axis=0)[:3], [0.224, 0.053, 0.027], atol=0.025)
    # alpha_1 > alpha_2 > alpha_3 in nine histories of ten, so it is evidence of nothing.
    assert null.ordering_share(3) > 0.7
    lag1 = alpha_null(np.ones(60), 1e8, 10, "overlap2_lag1", n_draws=60, rng=np.random.default_rng(5))
    assert lag1.ordering_share(3) > 0.8
    assert np.all(np.diff(lag1.draws.mean(axis=0)[:4]) < 0.0)


@pytest.mark.parametrize(
    ("kind", "mode"), [("overlap2_lag1", "strict"), ("overlap2_lagW", "strict"), (None, "author")]
)
def test_p_values_hold_their_level_under_the_null(kind, mode):
    rng = np.random.default_rng(6)
    norms = np.linspace(1.0, 2.0, 20)
    null = alpha_null(norms, 200.0, 5, kind, mode=mode, n_draws=199, rng=rng)
    fresh = alpha_null(norms, 200.0, 5, kind, mode=mode, n_draws=199, rng=rng)
    p, order = null.p_values(fresh.draws), null.ordering_p_value(fresh.draws, 3)
    assert p.shape == (199, 5)
    # 5 % of 199, with the null's own scatter as well: 10 with sd sqrt(2 * 9.5) = 4.4; 4 of them.
    assert np.all(np.sum(p <= 0.05, axis=0) <= 28)
    assert np.sum(order <= 0.05) <= 28
    if mode == "strict":  # the author's are clipped at 0: ties there are p = 1
        # Two samples of 199 from one law: the mean p is 1/2 to sqrt(2 / 12 / 199) = .029; 4 of them.
        assert np.all(np.abs(p.mean(axis=0) - 0.5) < 0.12)
        assert abs(order.mean() - 0.5) < 0.12


def test_a_second_lasting_direction_is_found_and_a_drift_is_not():
    """Two directions in independent proportions persist over disjoint windows; one constant direction is the null."""
    rng = np.random.default_rng(7)
    n, w, p = 24, 6, 500
    noise = rng.standard_normal((n, p)) / np.sqrt(p)
    one = noise.copy()
    one[:, 0] += 2.0
    two = one.copy()
    two[:, 1] += 1.5 * (-1.0) ** np.arange(n)
    for x, significant in ((one, False), (two, True)):
        d = x @ x.T
        model = fit_null("constant_drift", d, 500.0)
        null = alpha_null(
            model.norms, 500.0, w, coherence=model.kernel, row_correlation=model.row_correlation, n_draws=99, rng=rng
        )
        index = np.arange(n - 2 * w + 1)[:, None] + np.arange(2 * w)
        observed = stability_coefficients(d[index[:, :, None], index[:, None, :]], w).mean(axis=0)
        p_value = null.p_values(observed)[1]
        assert (p_value == 0.01) if significant else (p_value > 0.03)


def test_momentum_makes_neighbours_alike():
    """Rows correlated by momentum raise lag-W overlaps of noise through the rows at the seam."""
    rho = momentum_row_correlation(0.9, 10, 10)
    free, bound = (
        alpha_null(np.ones(10), 1e6, 5, row_correlation=c, n_draws=99, rng=np.random.default_rng(8)).draws.mean()
        for c in (None, rho)
    )
    assert bound > 10 * free


def test_null_tools():
    draws = np.array([[0.9, 0.5, 0.1, np.nan], [0.8, 0.6, 0.2, np.nan], [0.7, 0.3, 0.4, np.nan]])
    null = AlphaNull("half_cos", draws)
    np.testing.assert_allclose(null.quantiles([0.0, 0.5])[:, :2], [[0.7, 0.3], [0.8, 0.5]])
    assert np.isnan(null.quantiles(0.5)[0, 3])
    np.testing.assert_allclose(null.p_values([0.85, 0.6, 1.0, 0.5])[:3], [2 / 4, 2 / 4, 1 / 4])
    assert np.isnan(null.p_values([0.85, 0.6, np.nan, 0.5])[2:]).all()
    np.testing.assert_allclose(ordering_margin(draws, 3), [0.4, 0.2, -0.1])
    assert null.ordering_share(3) == pytest.approx(2 / 3)
    assert null.ordering_share(2) == 1.0
    assert null.ordering_p_value([0.9, 0.6, 0.3, 0.0], 3) == pytest.approx(2 / 4)
    assert null.ordering_p_value(np.zeros((2, 4)), 3).shape == (2,)
    assert (block_size("overlap2_lagW", 5), block_size("dk", 5), block_size("half_cos", 5)) == (10, 6, 5)


def test_chunks_do_not_change_the_shape_of_the_draws(monkeypatch):
    monkeypatch.setattr("spectraledge.theory.alpha_null._CHUNK", 1000)
    null = alpha_null(np.ones(14), 100.0, 4, n_draws=7, rng=np.random.default_rng(0))
    assert null.draws.shape == (7, 4)
    assert np.isfinite(null.draws).all()


def test_groups():
    alpha = np.array([[0.9, 0.8, 0.3, 0.1, 0.0], [0.7, 0.6, 0.5, 0.3, np.nan]])
    np.testing.assert_allclose(alpha_groups(alpha, 3), [0.75, 0.3, 0.0])
    np.testing.assert_allclose(alpha_groups(alpha, 1)[1], 0.75)
    assert np.isnan(alpha_groups(alpha, 1)[0])
    assert np.isnan(alpha_groups(alpha, 4)[2])


def test_missing_and_unresolved():
    block = np.stack([np.diag([4.0, 1.0, 9.0, 1.0]), np.full((4, 4), np.nan), np.diag([4.0, 0.0, 4.0, 0.0])])
    for kind, mode in (("overlap2_lagW", "strict"), ("dk", "strict"), ("dk_dlam", "author"), ("dk_f", "author")):
        alpha = stability_coefficients(block, 2, kind, mode=mode)
        assert np.isnan(alpha[1]).all()
        assert np.isfinite(alpha[0]).all()
        assert np.isnan(alpha[2, 1])  # a mode of strength 0
    assert np.isnan(subspace_coefficients(block, 2)).tolist() == [[False] * 2, [True] * 2, [False, True]]


def test_wrong_settings():
    block = np.eye(4)
    with pytest.raises(SettingError, match="mode must be strict or author"):
        stability_coefficients(block, 2, mode="best")
    with pytest.raises(SettingError, match="dk_f exists in mode='author'"):
        stability_coefficients(block, 2, "dk_f")
    with pytest.raises(SettingError, match="dk exists in mode='strict'"):
        stability_coefficients(block, 2, "dk", mode="author")
    with pytest.raises(SettingError, match="Use overlap2_lagW"):
        stability_coefficients(block, 2, "best")
    with pytest.raises(SettingError, match="block must hold 4 updates"):
        stability_coefficients(np.eye(3), 2)
    with pytest.raises(SettingError, match="block must hold 3 updates"):
        subspace_coefficients(block, 2, "overlap2_lag1")
    with pytest.raises(SettingError, match="half_cos needs a window of at least 4"):
        stability_coefficients(block, 3, "half_cos", mode="author")
    with pytest.raises(SettingError, match="norms must hold at least the 4 updates"):
        alpha_null(np.ones(3), 10.0, 2, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match=r"n_modes must lie in 2\.\.4"):
        ordering_margin(np.ones(4), 5)
    with pytest.raises(SettingError, match=r"position must lie in 1\.\.3"):
        alpha_groups(np.ones(4), 4)
