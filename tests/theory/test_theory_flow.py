from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from spectraledge.errors import SettingError
from spectraledge.theory.gap_flow import collapse_time, gap_closed_form, gap_terms, integrate_pair, term_shares
from spectraledge.theory.rotation_flow import conservative_coupling, measured_injection, rotation_rates
from spectraledge.theory.signal_flow import flow_coefficients, integrate_flow, linear_flow, signal_terms

ETA, W, S, OMEGA = 0.05, 8, 20, 0.3


def measured(seed=0, shape=(5, 4)):
    rng = np.random.default_rng(seed)
    d = np.sort(rng.uniform(1.0, 3.0, shape), axis=-1)[..., ::-1]
    h, g, n, s = rng.standard_normal((4, *shape))
    return d, h, g, n, s


def test_strict_terms_are_the_formula():
    d, h, g, n, s = measured()
    terms = signal_terms(
        d, h, g, n, learning_rate=ETA, window=W, stride=S, weight_decay=OMEGA, coupling=s, lr_rate=-0.01
    )
    expected = -2 * ETA * (h + OMEGA) * d**2 + (ETA * S) ** 2 * W * (s + 2 * g * n) - 0.02 * d**2
    np.testing.assert_allclose(terms.total, expected, rtol=1e-13)
    rate, source = flow_coefficients(
        h, g, n, learning_rate=ETA, window=W, stride=S, weight_decay=OMEGA, coupling=s, lr_rate=-0.01
    )
    np.testing.assert_allclose(source - rate * d**2, expected, rtol=1e-12)


def test_settings_may_differ_between_windows():
    d, h, g, n, _ = measured()
    eta = np.linspace(0.01, 0.05, len(d))
    whole = signal_terms(d, h, g, n, learning_rate=eta, window=W, stride=S).total
    for row in range(len(d)):
        one = signal_terms(d[row], h[row], g[row], n[row], learning_rate=eta[row], window=W, stride=S).total
        np.testing.assert_array_equal(whole[row], one)


def test_quasi_static_window_obeys_the_strict_flow():
    """y = W (eta s G)^2 with dG/dt = -eta (h + omega) G + Omega G + N and eta' = r eta has exactly these terms."""
    rng = np.random.default_rng(1)
    g, h, n = rng.standard_normal((3, 4))
    skew = rng.standard_normal((4, 4))
    skew -= skew.T
    rate = 0.003
    velocity = -ETA * (h + OMEGA) * g + skew @ g + n
    expected = 2 * W * (ETA * S) ** 2 * g * velocity + 2 * rate * W * (ETA * S * g) ** 2
    s = conservative_coupling(g, skew)
    d = np.sqrt(W) * ETA * S * np.abs(g)
    got = signal_terms(
        d, h, g, n, learning_rate=ETA, window=W, stride=S, weight_decay=OMEGA, coupling=s, lr_rate=rate
    )
    np.testing.assert_allclose(got.total, expected, rtol=1e-12)
    assert s.sum() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("eta_h", [0.08, 0.04, 0.02])
def test_gradient_descent_on_a_quadratic_needs_no_injection(eta_h):
    # theta shrinks by 1 - eta h per step, d^2 of any window by its square: -2 eta h + (eta h)^2. The flow has
    # the first term; what it misses is the second, exactly.
    h = eta_h / ETA
    theta = (1 - eta_h) ** np.arange(W + 2)
    updates = np.diff(theta)
    d2 = [np.sum(updates[i : i + W] ** 2) for i in (0, 1)]
    g = -updates[W - 1] / ETA
    predicted = signal_terms(np.sqrt(d2[0]), h, g, 0.0, learning_rate=ETA, window=W).total
    assert d2[1] - d2[0] - predicted == pytest.approx(eta_h**2 * d2[0], rel=1e-9)


@pytest.mark.parametrize(("drive", "factor"), [("printed", 1.0), ("consistent", ETA)])
def test_f8_reduced_flow_has_its_closed_form(drive, factor):
    h, g = np.array([0.4, 2.0]), np.array([0.7, -0.2])
    rate, source = flow_coefficients(
        h, g, learning_rate=ETA, window=W, weight_decay=OMEGA, stride=S, mode="author", drive=drive
    )
    times = np.array([0.0, 1.0, 10.0, 300.0])
    limit = factor * W * g**2 / (h + OMEGA)
    exact = limit + (1.0 - limit) * np.exp(-2 * ETA * (h + OMEGA) * times[:, None])
    np.testing.assert_allclose(linear_flow(1.0, rate, source, times[:, None]), exact, rtol=1e-12)
    exponential = integrate_flow([1.0, 1.0], lambda t: (rate, source), times)
    np.testing.assert_allclose(exponential, exact, rtol=1e-12)
    # LSODA holds its local error at 1e-9; 1e-7 leaves its sum over some hundred steps.
    np.testing.assert_allclose(
        integrate_flow([1.0, 1.0], lambda t: (rate, source), times, method="ode"), exact, rtol=1e-7
    )


def test_published_drive_cannot_balance_with_a_measured_gradient():
    # In a quasi-static window d^2 = W (eta G)^2 the "consistent" drive eta^2 W G^2 / d equals d itself, per step.
    g, h = np.array([0.7]), np.array([0.4])
    d = np.sqrt(W) * ETA * np.abs(g)
    terms = signal_terms(d, h, g, learning_rate=ETA, window=W, mode="author")
    np.testing.assert_allclose(terms.injection / (2 * d), d, rtol=1e-13)
    assert terms.injection / -terms.dissipation == pytest.approx(1 / (ETA * 0.4), rel=1e-12)
    printed = signal_terms(d, h, g, learning_rate=ETA, window=W, mode="author", drive="printed")
    np.testing.assert_allclose(printed.injection * ETA, terms.injection, rtol=1e-13)


def test_exponential_integrator_is_of_second_order():
    # Coefficients of the known solution y = 2 + sin t; the slope of log error on log step is the order.
    def coefficients(t):
        a = 1.0 + 0.5 * np.cos(3.0 * t)
        return a, np.cos(t) + a * (2.0 + np.sin(t))

    steps = 2.0 / np.array([8, 16, 32, 64])
    error = [abs(integrate_flow(2.0, coefficients, [0.0, 2.0], max_step=h)[-1, 0] - 2 - np.sin(2.0)) for h in steps]
    slope = np.polyfit(np.log(steps), np.log(error), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)  # the next order is step^2 smaller: below 0.06 here


@pytest.mark.parametrize("method", ["exponential", "ode"])
def test_a_drained_mode_stops_at_zero(method):
    y = integrate_flow(
        [1.0, 1.0], lambda t: (np.array([0.1, 0.1]), np.array([-1.0, 0.5])), np.arange(0.0, 9.0), method=method
    )
    assert np.all(y >= 0.0)
    assert y[-1, 0] == pytest.approx(0.0, abs=1e-7)  # the source fades out below 1e-9


def test_rotation_rates_recover_a_constant_rotation():
    rng = np.random.default_rng(2)
    omega = rng.standard_normal((3, 5, 5))
    omega -= omega.swapaxes(-1, -2)
    omega *= 0.1 / np.linalg.norm(omega, axis=(-2, -1), keepdims=True)
    flips = np.sign(rng.standard_normal((3, 1, 5)))
    overlaps = np.stack([expm(-10.0 * o) for o in omega]) * flips  # v' = exp(10 Omega) v, signs arbitrary
    np.testing.assert_allclose(
        rotation_rates(0.9 * overlaps, steps=10.0), omega, atol=1e-12
    )  # shrunk: noise left the span
    near = np.stack([expm(-0.1 * o) for o in omega])
    # The first difference errs by the cube of the angle, below 0.01 rad here, over 6.
    np.testing.assert_allclose(rotation_rates(near, steps=0.1, method="difference"), omega, atol=0.01**3 / 6 / 0.1)


def test_rotation_rates_give_up_on_exchanged_modes_and_missing_values():
    exchanged = np.array([[0.0, 1.0], [1.0, 0.0]])
    overlaps = np.stack([np.eye(2), exchanged, np.full((2, 2), np.nan)])
    assert np.isnan(rotation_rates(overlaps, steps=1.0)).all(axis=(-2, -1)).tolist() == [False, True, True]


def test_measured_injection_is_what_the_rest_leaves():
    rng = np.random.default_rng(3)
    g, h, n = rng.standard_normal((3, 4))
    skew = rng.standard_normal((4, 4))
    skew -= skew.T
    after = g + 2.0 * (-ETA * (h + OMEGA) * g + skew @ g + n)
    got = measured_injection(g, after, h, learning_rate=ETA, steps=2.0, weight_decay=OMEGA, rotation=skew)
    np.testing.assert_allclose(got, n, atol=1e-12)


def test_strict_gap_terms_are_the_difference_of_signal_flows():
    d, h, g, n, s = measured()
    position = np.array([1, 2, 3, 1, 0])
    settings = {
        "learning_rate": ETA,
        "window": W,
        "stride": S,
        "weight_decay": OMEGA,
        "coupling": s,
        "lr_rate": -0.01,
    }
    slope = signal_terms(d, h, g, n, **settings).total / (2 * d)
    terms = gap_terms(d, position, h, g, n, **settings)
    for row, k in enumerate(position[:4]):
        assert terms.total[row] == pytest.approx(slope[row, k - 1] - slope[row, k], rel=1e-11)
        width = d[row, k - 1] - d[row, k]
        assert terms.pull[row] - terms.rate[row] * width == pytest.approx(terms.total[row], rel=1e-11)
    assert np.isnan(terms.total[4])
    shares = np.stack(list(term_shares(terms).values()))
    np.testing.assert_allclose(shares.sum(axis=0)[:4], 1.0, rtol=1e-12)


@pytest.mark.parametrize(("drive", "factor"), [("printed", ETA), ("consistent", ETA**2)])
def test_author_gap_terms_are_the_published_three(drive, factor):
    d, h, g, _, _ = measured()
    a, b = d[:, 1], d[:, 2]
    terms = gap_terms(
        d, 2, h, g, learning_rate=ETA, window=W, weight_decay=OMEGA, stride=S, lr_rate=9.0, mode="author", drive=drive
    )
    np.testing.assert_allclose(terms.asymmetry, -ETA * (h[:, 1] - h[:, 2]) * (a + b) / 2, rtol=1e-12)
    np.testing.assert_allclose(terms.damping, -ETA * ((h[:, 1] + h[:, 2]) / 2 + OMEGA) * (a - b), rtol=1e-12)
    np.testing.assert_allclose(terms.drive, factor * W * (g[:, 1] ** 2 / a - g[:, 2] ** 2 / b), rtol=1e-11)
    assert not terms.schedule.any()
    assert not terms.repulsion.any()


def test_a_stiffer_lower_mode_opens_the_gap():
    flat_above = gap_terms([2.0, 1.0], 1, [0.1, 0.5], [0.0, 0.0], [0.0, 0.0], learning_rate=ETA, window=W)
    assert flat_above.asymmetry > 0.0


def test_repulsion_of_widths_is_that_of_eigenvalues():
    d, kappa2 = np.array([2.0, 1.9]), 1e-6
    terms = gap_terms(d, 1, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], learning_rate=ETA, window=W, stride=S, kappa2=kappa2)
    shift = kappa2 / (d[0] ** 2 - d[1] ** 2)  # second-order shift of each eigenvalue per snapshot
    moved = np.sqrt(d[0] ** 2 + shift) - np.sqrt(d[1] ** 2 - shift)
    # The root is expanded to first order: relative error shift / (2 d^2), below 1e-6.
    assert terms.repulsion * S == pytest.approx(moved - (d[0] - d[1]), rel=1e-5)


def test_f9_collapse_time():
    g0, c, gamma = 2.0, -0.03, 0.01
    time = collapse_time(g0, c, gamma)
    assert time == pytest.approx(np.log(1 + gamma * g0 / abs(c)) / gamma, rel=1e-13)
    assert gap_closed_form(g0, c, gamma, time) == pytest.approx(0.0, abs=1e-13)
    assert collapse_time(g0, c, 0.0) == pytest.approx(g0 / abs(c))
    # An unstable gap (gamma < 0) collapses only from below its equilibrium c / gamma = 3.
    assert np.isfinite(collapse_time([2.9, 3.1], -0.03, -0.01)).tolist() == [True, False]
    assert gap_closed_form(2.9, -0.03, -0.01, collapse_time(2.9, -0.03, -0.01)) == pytest.approx(0.0, abs=1e-11)
    assert np.isinf(collapse_time(g0, 0.0, gamma))
    assert np.isnan(collapse_time(np.nan, c, gamma))


def test_pair_without_repulsion_is_two_signal_flows():
    times = np.array([0.0, 5.0, 50.0])
    pair = integrate_pair([2.0, 1.0], [0.02, 0.05], [0.01, 0.2], times)
    np.testing.assert_allclose(pair[:, 0], np.sqrt(linear_flow(4.0, 0.02, 0.01, times)), rtol=1e-13)
    assert pair[-1, 1] > pair[-1, 0]  # they cross


def test_pair_with_repulsion_never_crosses_and_has_its_closed_form():
    times = np.linspace(0.0, 200.0, 50)
    pair = integrate_pair([2.0, 1.0], [0.02, 0.05], [0.01, 0.2], times, kappa2=1e-5)
    assert np.all(pair[:, 0] > pair[:, 1])
    # Repulsion alone: d(gap^2)/dt = 4 kappa^2, and the sum of eigenvalues stays.
    free = integrate_pair([2.0, 1.9], [0.0, 0.0], [0.0, 0.0], times, kappa2=1e-3)
    gap = free[:, 0] ** 2 - free[:, 1] ** 2
    np.testing.assert_allclose(gap**2, 0.39**2 + 4e-3 * times, rtol=1e-6)  # sum of local errors of 1e-9
    np.testing.assert_allclose((free**2).sum(axis=1), 7.61, rtol=1e-9)


def test_pair_with_a_drained_lower_mode_ends_at_zero():
    pair = integrate_pair([2.0, 1.0], [0.01, 0.01], [0.1, -0.1], np.linspace(0.0, 100.0, 5), kappa2=1e-6)
    # What repulsion takes from a vanished mode, kappa^2 / gap per step over its rate 0.01, is below 1e-4.
    assert pair[-1, 1] == pytest.approx(0.0, abs=1e-2)
    assert pair[-1, 0] == pytest.approx(np.sqrt(linear_flow(4.0, 0.01, 0.1, 100.0)), rel=1e-4)


def test_missing_values_stay_where_they_are():
    d, h, g, n, _ = measured()
    h[1, 2] = np.nan
    total = signal_terms(d, h, g, n, learning_rate=ETA, window=W).total
    assert np.argwhere(np.isnan(total)).tolist() == [[1, 2]]
    terms = gap_terms(d, 2, h, g, n, learning_rate=ETA, window=W)
    assert np.flatnonzero(np.isnan(terms.total)).tolist() == [1]


def test_refusals():
    with pytest.raises(SettingError, match="mode must be one of"):
        signal_terms([1.0], [1.0], [1.0], [1.0], learning_rate=ETA, window=W, mode="loose")
    with pytest.raises(SettingError, match="drive must be one of"):
        gap_terms([2.0, 1.0], 1, [1.0, 1.0], [1.0, 1.0], learning_rate=ETA, window=W, mode="author", drive="eta")
    with pytest.raises(SettingError, match="needs the injection"):
        signal_terms([1.0], [1.0], [1.0], learning_rate=ETA, window=W)
    with pytest.raises(SettingError, match="needs the injection"):
        gap_terms([2.0, 1.0], 1, [1.0, 1.0], [1.0, 1.0], learning_rate=ETA, window=W)
    with pytest.raises(SettingError, match="window must be at least 1"):
        flow_coefficients([1.0], [1.0], [1.0], learning_rate=ETA, window=0)
    with pytest.raises(SettingError, match="antisymmetric"):
        conservative_coupling([1.0, 2.0], np.eye(2))
    with pytest.raises(SettingError, match="overlaps must have shape"):
        rotation_rates(np.ones((2, 3)), steps=1.0)
    with pytest.raises(SettingError, match="times must be"):
        integrate_flow([1.0], lambda t: (1.0, 1.0), [1.0, 1.0])
    with pytest.raises(SettingError, match="max_step must be positive"):
        integrate_flow([1.0], lambda t: (1.0, 1.0), [0.0, 1.0], max_step=0.0)
    with pytest.raises(SettingError, match="kappa2 must be"):
        integrate_pair([1.0, 1.0], 0.0, 0.0, [0.0, 1.0], kappa2=1.0)
