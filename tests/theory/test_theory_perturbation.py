from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_reference import svd

from spectraledge.errors import SettingError
from spectraledge.theory import cyclic_change, gram_change, gram_spectrum, operator_change, shifted_spectrum
from spectraledge.theory.perturbation import second_order_eigenvalues

W, P = 6, 20
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None, derandomize=True)


def rows_of(seed, m=1, w=W, p=P):
    return np.random.default_rng(seed).standard_normal((w + m, p))


def delta_m(x, m, w=W):
    return x[m:].T @ x[m:] - x[:w].T @ x[:w]


@quick
@given(seed=seeds)
def test_i1_the_operator_changes_by_rank_two(seed):
    x = rows_of(seed)
    explicit = np.outer(x[-1], x[-1]) - np.outer(x[0], x[0])
    np.testing.assert_allclose(delta_m(x, 1), explicit, atol=1e-12)


@quick
@given(seed=seeds)
def test_f5_i2_shifted_spectrum_equals_direct_svd(seed):
    x = rows_of(seed)
    d = x @ x.T
    after = shifted_spectrum(d[:W, :W], d[-1, :W], d[-1, -1])
    np.testing.assert_allclose(after, svd(x[1:])[1], rtol=1e-10)


def test_i2_with_leading_axes_rank_deficiency_and_missing_values():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, W + 1, P))
    x[1, 3] = x[1, 2]  # a repeated update: the window has rank W - 1
    d = x @ x.swapaxes(-1, -2)
    d[3, 0, 0] = np.nan
    after = shifted_spectrum(d[:, :W, :W], d[:, -1, :W], d[:, -1, -1])
    expected = np.linalg.svd(x[:, 1:], compute_uv=False)
    # A singular value of zero comes out at the square root of rounding.
    np.testing.assert_allclose(after[:3], expected[:3], rtol=1e-10, atol=1e-6)
    assert np.isnan(after[3]).all()


@quick
@given(seed=seeds, m=st.integers(1, W))
def test_operator_change_equals_the_explicit_matrix(seed, m):
    x = rows_of(seed, m)
    lam = np.linalg.eigvalsh(delta_m(x, m))[::-1]
    change = operator_change(x @ x.T, W)
    scale = np.sum(x**2)
    np.testing.assert_allclose(change.eigenvalues[:m], lam[:m], atol=1e-11 * scale)
    np.testing.assert_allclose(change.eigenvalues[m:], lam[-m:], atol=1e-11 * scale)
    assert change.frobenius == pytest.approx(np.linalg.norm(delta_m(x, m)), rel=1e-10)
    assert change.spectral == pytest.approx(np.abs(lam).max(), rel=1e-10)
    assert change.spread == pytest.approx(lam[0] - lam[-1], rel=1e-10)
    assert not change.lost_digits
    if m == 1:
        closed = np.linalg.norm(x[-1] - x[0]) * np.linalg.norm(x[-1] + x[0])
        assert change.spread == pytest.approx(closed, rel=1e-10)


@quick
@given(seed=seeds, m=st.integers(1, W))
def test_readings_against_explicit_matrices(seed, m):
    x = rows_of(seed, m)
    d = x @ x.T
    before, after = x[:W], x[m:]
    cyclic = np.concatenate([x[W:], x[m:W]])
    expected = {
        "dlam": np.linalg.norm(svd(after)[1] ** 2 - svd(before)[1] ** 2),
        "shift": np.linalg.norm(after @ after.T - before @ before.T),
        "aligned": np.linalg.norm(cyclic @ cyclic.T - before @ before.T),
        "operator": np.linalg.norm(delta_m(x, m)),
    }
    got = {reading: float(gram_change(d, W, reading=reading)) for reading in expected}
    assert got == pytest.approx(expected, rel=1e-9)
    # I6, Hoffman-Wielandt.
    assert got["dlam"] <= min(got["shift"], got["aligned"], got["operator"]) * (1 + 1e-12)


@quick
@given(seed=seeds)
def test_cyclic_change_is_rank_two_with_closed_eigenvalues(seed):
    x = rows_of(seed)
    change = cyclic_change(x @ x.T, W)
    w = change[0].copy()
    w[0] /= 2
    unit = np.eye(W)[0]
    np.testing.assert_allclose(change, np.outer(unit, w) + np.outer(w, unit), atol=1e-12)
    np.testing.assert_allclose(w[1:], x[1:W] @ (x[-1] - x[0]), atol=1e-10)
    assert w[0] == pytest.approx((x[-1] @ x[-1] - x[0] @ x[0]) / 2, abs=1e-10)
    lam = np.linalg.eigvalsh(change)
    np.testing.assert_allclose(lam[[-1, 0]], w[0] + np.array([1, -1]) * np.linalg.norm(w), atol=1e-10)


@quick
@given(seed=seeds)
def test_spread_over_gap_bounds_every_rotation(seed):
    x = rows_of(seed)
    _, s, v = svd(x[:W])
    _, _, v2 = svd(x[1:])
    lam = np.r_[np.inf, s**2, 0.0]
    gap = np.minimum(lam[:-2] - lam[1:-1], lam[1:-1] - lam[2:])
    sine = np.sqrt(np.maximum(1 - np.sum(v * v2, axis=0) ** 2, 0))
    assert np.all(sine <= operator_change(x @ x.T, W).spread / gap + 1e-9)


def test_second_order_prediction_of_a_separated_mode():
    rng = np.random.default_rng(4)
    x = 0.3 * rng.standard_normal((W + 1, 400)) / 20
    x += np.linspace(1.0, 1.05, W + 1)[:, None] * np.eye(400)[0]
    d = x @ x.T
    s = gram_spectrum(d[:W, :W])
    predicted = second_order_eigenvalues(s.singular_values, s.time_profiles, cyclic_change(d, W))
    true = svd(x[1:])[1] ** 2
    change = abs(true[0] - s.singular_values[0] ** 2)
    assert abs(predicted[0] - true[0]) < 0.01 * change


@quick
@given(seed=seeds)
def test_i5_updates_of_the_window_are_their_own_projections(seed):
    x = rows_of(seed)[:W]
    gradient = np.random.default_rng(seed + 1).standard_normal(P)
    s = gram_spectrum(x @ x.T)
    # <v_j, g> = sigma_j^-1 sum_a U_aj <delta_a, g>, and <v_j, delta_i> = sigma_j U_ij.
    on_gradient = s.time_profiles.T @ (x @ gradient) / s.singular_values
    on_updates = s.singular_values * s.time_profiles
    np.testing.assert_allclose(on_updates @ on_gradient, x @ gradient, atol=1e-9)


def test_lost_digits_are_flagged():
    x = np.ones((W + 1, P))
    x[-1] += 1e-12
    assert operator_change(x @ x.T, W).lost_digits
    x[-1] += 1e-3
    assert not operator_change(x @ x.T, W).lost_digits


def test_missing_values_and_wrong_sizes():
    d = np.full((2, W + 1, W + 1), np.nan)
    d[0] = np.eye(W + 1)
    for reading in ("dlam", "shift", "aligned", "operator"):
        assert np.isnan(gram_change(d, W, reading=reading)).tolist() == [False, True]
    change = operator_change(d, W)
    assert np.isnan(change.spread).tolist() == [False, True]
    assert not change.lost_digits[1]
    with pytest.raises(SettingError, match="block must hold"):
        gram_change(np.eye(W), W)
    with pytest.raises(SettingError, match="block must hold"):
        operator_change(np.eye(2 * W + 1), W)
    with pytest.raises(SettingError, match="reading must be one of"):
        gram_change(np.eye(W + 1), W, reading="best")
