from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_reference import svd

from spectraledge.errors import SettingError
from spectraledge.theory import gram_spectrum
from spectraledge.theory.loss import (
    coverage,
    in_sample_contributions,
    loss_decomposition,
    out_of_sample_contributions,
    predicted_contributions,
    published_contributions,
    second_order_term,
)
from spectraledge.theory.projections import (
    chance_coverage,
    coverage_p_value,
    mode_coefficients,
    mode_projections,
    span_coverage,
)

W, P = 6, 40


def rows_and_vector(seed, window=W, p=P):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((window, p)), rng.standard_normal(p)


def ill_conditioned(kind):
    """Windows whose singular values span from 6 to all available digits."""
    rng = np.random.default_rng(5)
    if kind == "graded":
        return np.geomspace(1.0, 1e-9, W)[:, None] * rng.standard_normal((W, P))
    if kind == "smooth":
        return np.exp(-0.01 * np.outer(np.arange(W), np.linspace(0.1, 1.0, P))) * rng.standard_normal(P)
    repeated = rng.standard_normal((W, P))
    repeated[3] = repeated[1]
    repeated[5] = 2.0 * repeated[0]
    return repeated


# --- projections ------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_projections_equal_explicit_directions(seed):
    x, vector = rows_and_vector(seed)
    s = gram_spectrum(x @ x.T)
    v = x.T @ mode_coefficients(s.singular_values, s.time_profiles, s.floor)
    # sigma_1 / sigma_6 is below 30 here; products carry about 1e-15 of the norms.
    np.testing.assert_allclose(v.T @ v, np.eye(W), atol=1e-11)
    projected = mode_projections(x @ vector, s.singular_values, s.time_profiles, s.floor)
    np.testing.assert_allclose(projected, vector @ v, atol=1e-11)
    _, _, explicit = svd(x)
    np.testing.assert_allclose(np.abs(projected), np.abs(vector @ explicit), atol=1e-10)
    inside = span_coverage(projected, vector @ vector, 3)
    expected = np.linalg.norm(explicit[:, :3].T @ vector) ** 2 / (vector @ vector)
    assert inside == pytest.approx(expected, abs=1e-10)


def test_unresolved_and_missing_values_stay_where_they_are():
    x, vector = rows_and_vector(0)
    gram = np.stack([x @ x.T] * 3)
    gram[1, 0, 2] = np.nan
    products = np.stack([x @ vector] * 3)
    products[2, 4] = np.inf
    s = gram_spectrum(gram)
    projected = mode_projections(products, s.singular_values, s.time_profiles, s.floor)
    assert np.isfinite(projected[0]).all()
    assert not np.isfinite(projected[1:]).any()
    floor = s.singular_values[0, 3]
    first = mode_projections(products[0], s.singular_values[0], s.time_profiles[0], floor)
    assert np.isfinite(first).tolist() == [True] * 3 + [False] * 3
    coefficients = mode_coefficients(s.singular_values[0], s.time_profiles[0], floor)
    assert np.isfinite(coefficients).all(axis=0).tolist() == [True] * 3 + [False] * 3
    assert np.isnan(span_coverage(first, 1.0, 4))
    assert np.isnan(span_coverage(first, 0.0, 1))


def test_coverage_by_chance():
    rng = np.random.default_rng(1)
    k, p, n = 3, 50, 4000
    basis = np.linalg.qr(rng.standard_normal((p, k)))[0]
    vectors = rng.standard_normal((n, p))
    share = span_coverage(vectors @ basis, np.square(vectors).sum(axis=-1), k)
    # Beta(1.5, 23.5) has sd 0.047: 4 sd of the mean of 4000 is 0.003.
    assert share.mean() == pytest.approx(float(chance_coverage(k, p)), abs=0.003)
    values = coverage_p_value(share, k, p)
    # Uniform: 4 sd of a proportion is 4 sqrt(q (1 - q) / 4000) < 0.032.
    for q in (0.05, 0.25, 0.5):
        assert np.mean(values <= q) == pytest.approx(q, abs=0.032)
    assert chance_coverage(5, 2.0) == 1.0
    assert np.isnan(chance_coverage(5, np.nan))
    assert np.isnan(coverage_p_value([0.5, np.nan, 0.5], 5, [np.nan, 10.0, 5.0])).all()


# --- I5: in sample ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [-1, 0, 3])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_i5_is_exact_in_a_well_conditioned_window(row, seed):
    x, g = rows_and_vector(seed)
    c, rest = in_sample_contributions(x @ g, x @ x.T, row=row)
    scale = np.linalg.norm(g) * np.linalg.norm(x)
    assert rest == 0.0
    assert c.sum() == pytest.approx(x[row] @ g, abs=1e-12 * scale)
    _, _, v = svd(x)
    np.testing.assert_allclose(c, (v.T @ g) * (v.T @ x[row]), atol=1e-10 * scale)


@pytest.mark.parametrize("kind", ["graded", "smooth", "repeated"])
def test_i5_is_exact_in_an_ill_conditioned_window(kind):
    x = ill_conditioned(kind)
    g = np.random.default_rng(6).standard_normal(P)
    for row in range(W):
        c, rest = in_sample_contributions(x @ g, x @ x.T, row=row)
        unresolved = np.isnan(c)
        assert 0 < unresolved.sum() < W
        # U is orthogonal to rounding whatever the window, so the sum is good to a few eps of the products.
        assert np.nansum(c) + rest == pytest.approx(x[row] @ g, abs=1e-12 * np.linalg.norm(x @ g))


def test_remainder_is_what_lies_outside_the_resolved_directions():
    x = ill_conditioned("graded")
    g = np.random.default_rng(6).standard_normal(P)
    c, rest = in_sample_contributions(x @ g, x @ x.T)
    v = svd(x)[2][:, np.isfinite(c)]
    # The weakest resolved mode (sigma^2 = 2e-11 sigma_1^2) keeps 5 digits of its profile, and holds a few
    # percent of the smallest update.
    assert rest == pytest.approx(g @ (x[-1] - v @ (v.T @ x[-1])), rel=0.01)


def test_in_sample_over_many_windows_and_missing_ones():
    x, g = rows_and_vector(2, window=12)
    gram = np.stack([(x @ x.T)[i : i + W, i : i + W] for i in range(7)])
    products = np.stack([(x @ g)[i : i + W] for i in range(7)])
    products[3, 1] = np.nan
    c, rest = in_sample_contributions(products, gram)
    assert c.shape == (7, W)
    assert rest.shape == (7,)
    assert np.isnan(c[3]).all()
    others = np.arange(7) != 3
    np.testing.assert_allclose((c.sum(axis=-1) + rest)[others], (x @ g)[W - 1 :][others], atol=1e-12)


# --- out of sample ----------------------------------------------------------------------------------------


def test_out_of_sample_equals_explicit_directions_and_covers_what_is_inside():
    x, g = rows_and_vector(3)
    following = np.random.default_rng(4).standard_normal(P)
    s = gram_spectrum(x @ x.T)
    _, _, v = svd(x)
    c = out_of_sample_contributions(x @ g, x @ following, s)
    np.testing.assert_allclose(c, (v.T @ g) * (v.T @ following), atol=1e-10)
    inside = v @ (v.T @ following)
    c = out_of_sample_contributions(x @ g, x @ inside, s)
    assert coverage(c, g @ inside) == pytest.approx(1.0, abs=1e-10)
    # An in-sample update as the next one gives the in-sample contributions.
    c = out_of_sample_contributions(x @ g, x @ x[-1], s)
    np.testing.assert_allclose(c, in_sample_contributions(x @ g, x @ x.T)[0], atol=1e-10)


class Quadratic:
    """Training and validation loss with one H and two optima; every step is known in closed form."""

    def __init__(self, seed=7):
        rng = np.random.default_rng(seed)
        q = np.linalg.qr(rng.standard_normal((P, P)))[0]
        self.h = (q * np.geomspace(2.0, 0.01, P)) @ q.T
        self.optimum, self.val_optimum = rng.standard_normal((2, P))
        self.theta = rng.standard_normal(P)

    def grad(self, theta):
        return self.h @ (theta - self.optimum)

    def val_grad(self, theta):
        return self.h @ (theta - self.val_optimum)

    def val_loss(self, theta):
        d = theta - self.val_optimum
        return 0.5 * d @ self.h @ d

    def window(self, step, n=W):
        thetas = [self.theta]
        for _ in range(n):
            thetas.append(thetas[-1] + step(thetas[-1]))
        return np.array(thetas)


@pytest.mark.parametrize("optimizer", ["sgd", "preconditioned"])
def test_alpha_one_is_the_right_forecast(optimizer):
    """R8: with gradients at theta_t along v_j(t-) the unweighted product is exact for one step."""
    world, lr, omega = Quadratic(), 0.1, 0.3
    scale = np.geomspace(0.5, 3.0, P) if optimizer == "preconditioned" else np.ones(P)
    decay = omega if optimizer == "preconditioned" else 0.0

    def direction(theta):
        return world.grad(theta) / scale + decay * theta

    thetas = world.window(lambda theta: -lr * direction(theta), n=W + 1)
    delta = np.diff(thetas, axis=0)
    past, following, now = delta[:W], delta[W], thetas[W]
    s = gram_spectrum(past @ past.T)
    g = world.val_grad(now)
    step, val = (mode_projections(past @ x, s.singular_values, s.time_profiles) for x in (direction(now), g))
    measured = out_of_sample_contributions(past @ g, past @ following, s)
    np.testing.assert_allclose(predicted_contributions(step, val, lr)[s.resolved], measured[s.resolved], rtol=1e-6)
    alpha = np.linspace(1.0, 0.1, W)
    author = published_contributions(alpha, step, val, lr, mode="author")
    np.testing.assert_allclose(author, alpha * published_contributions(None, step, val, lr), rtol=1e-14)
    # The Taylor expansion of a quadratic ends at second order, with opposite signs at the two ends.
    curvature = following @ world.h @ following
    change = world.val_loss(thetas[W + 1]) - world.val_loss(now)
    before = g @ following + second_order_term(curvature)
    after = world.val_grad(thetas[W + 1]) @ following + second_order_term(curvature, gradient_at="end")
    np.testing.assert_allclose([before, after], change, rtol=1e-12)


def test_a_decomposition_adds_up():
    world = Quadratic()
    thetas = world.window(lambda theta: -0.2 * world.grad(theta), n=30)
    delta = np.diff(thetas, axis=0)
    rows, first, curvature, measured = [], [], [], []
    for t in range(W, 30):
        past, g = delta[t - W : t], world.val_grad(thetas[t])
        rows.append(out_of_sample_contributions(past @ g, past @ delta[t], gram_spectrum(past @ past.T)))
        first.append(g @ delta[t])
        curvature.append(delta[t] @ world.h @ delta[t])
        measured.append(world.val_loss(thetas[t + 1]) - world.val_loss(thetas[t]))
    full = loss_decomposition(rows, first, curvature=curvature, measured=measured)
    np.testing.assert_allclose(full.captured + full.remainder, full.first_order, rtol=1e-12)
    np.testing.assert_allclose(full.higher_order, 0.0, atol=1e-12 * np.abs(measured).max())
    np.testing.assert_allclose(full.coverage, full.captured / full.first_order)
    # Gradient descent on a quadratic is smooth: the next update is nearly in the span of the last six.
    assert full.pooled_coverage == pytest.approx(1.0, abs=1e-3)
    one = loss_decomposition(rows, first, k=1)
    assert one.contributions.shape == (24, 1)
    assert np.isnan(one.measured).all()
    assert np.isnan(one.second_order).all()


def test_coverage_edges():
    assert np.isnan(coverage([[1.0, 2.0]], [0.0])).all()
    assert np.isnan(coverage([[np.nan, np.nan]], [1.0])).all()
    empty = loss_decomposition(np.full((2, 3), np.nan), [1.0, 2.0])
    assert np.isnan(empty.pooled_coverage)
    assert np.isnan(empty.remainder).all()


def test_wrong_settings():
    with pytest.raises(SettingError, match="mode must be strict or author"):
        published_contributions([1.0], [1.0], [1.0], 0.1, mode="paper")
    with pytest.raises(SettingError, match="needs alpha"):
        published_contributions(None, [1.0], [1.0], 0.1, mode="author")
    with pytest.raises(SettingError, match="products must end"):
        in_sample_contributions([1.0, 2.0, 3.0], np.eye(2))
    with pytest.raises(SettingError, match="row must be"):
        in_sample_contributions([1.0, 2.0], np.eye(2), row=2)
    with pytest.raises(SettingError, match="gradient_at must be"):
        second_order_term(1.0, gradient_at="middle")
    with pytest.raises(SettingError, match="time_profiles must be"):
        mode_coefficients([1.0, 2.0], np.eye(3))
    with pytest.raises(SettingError, match=r"k must lie in 1\.\.2"):
        span_coverage([1.0, 2.0], 1.0, 3)
    with pytest.raises(SettingError, match="k must be at least 1"):
        chance_coverage(0, 10.0)
    with pytest.raises(SettingError, match="k must be at least 1"):
        coverage_p_value(0.1, 0, 10.0)
    with pytest.raises(SettingError, match="contributions must be"):
        loss_decomposition([1.0], [1.0])
    with pytest.raises(SettingError, match=r"k must lie in 1\.\.1"):
        loss_decomposition([[1.0]], [1.0], k=2)
    with pytest.raises(SettingError, match="measured must hold 1"):
        loss_decomposition([[1.0]], [1.0], measured=[1.0, 2.0])
