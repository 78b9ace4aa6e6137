"""Closed forms of linear dynamics, against explicit iteration, simulation and the fixtures' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.deep_linear import deep_linear_descent, deep_linear_flow, learning_time
from spectraledge.theory.gap import gap_position
from spectraledge.theory.hankel import (
    effective_rank_bound,
    hankel_gram,
    hankel_rows,
    hankel_singular_values,
    lazy_profiles,
    one_minus_power,
    profile_bound,
    slow_modes,
)
from spectraledge.theory.hierarchy import hierarchy_exponent, inverted_hierarchy_slope
from spectraledge.theory.horizon import active_modes, effective_lr, stability_limit
from spectraledge.theory.linear_descent import (
    collapse_time,
    decay_time,
    descent_gram,
    descent_path,
    free_strengths,
    rest_point,
)
from spectraledge.theory.linear_maps import (
    LinearMap,
    joint_map,
    linear_gram,
    linear_path,
    momentum_map,
    preconditioned_modes,
    rest_covariance,
)
from spectraledge.theory.stationary import expected_gram, stationary_gram, stationary_strengths

F7_H = np.array([0.05, 0.1, 0.3, 1.0, 3.0, 10.0])
F7_WHITE = [0.6653, 0.6275, 0.5094, 0.3160, 0.1840, 0.1026]
F7_PROPORTIONAL = [0.1488, 0.1984, 0.2790, 0.3160, 0.3186, 0.3244]
F7_EVERY_STEP = [0.0316, 0.0316, 0.0316, 0.0317, 0.0319, 0.0324]

F10_KAPPA = 1.0 / np.arange(1, 2001)


def iterate(theta, h, lr, steps, *, optimum=0.0, weight_decay=0.0):
    path = [np.array(theta, dtype=float)]
    for _ in range(steps):
        path.append(path[-1] - lr * (h * (path[-1] - optimum) + weight_decay * path[-1]))
    return np.stack(path)


def gram_of(path, stride, window, start=0):
    rows = np.diff(path[start : start + stride * window + 1 : stride], axis=0)
    return rows @ rows.T


# Gradient descent


def test_descent_with_decay_and_a_shifted_optimum_is_the_iteration() -> None:
    rng = np.random.default_rng(0)
    h, theta, c = np.array([1.9, 1.0, 0.3, 0.01, 0.0]), rng.standard_normal(5), rng.standard_normal(5)
    path = iterate(theta, h, 0.9, 60, optimum=c, weight_decay=0.1)
    # 60 steps, each with a rounding of 2^-53 of numbers of order 1.
    np.testing.assert_allclose(
        descent_path(theta, h, 0.9, np.arange(61), optimum=c, weight_decay=0.1), path, atol=60 * 2.0**-52
    )
    gram = descent_gram(theta, h, 0.9, 3, 6, start=4, optimum=c, weight_decay=0.1)
    np.testing.assert_allclose(gram, gram_of(path, 3, 6, start=4), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(rest_point(h, c, 0.1)[-1], 0.0)
    np.testing.assert_array_equal(rest_point([0.0], 3.0), [3.0])


def test_one_minus_power_keeps_its_digits() -> None:
    assert one_minus_power(1e-18, 25) == pytest.approx(2.5e-17, rel=1e-12)
    np.testing.assert_allclose(one_minus_power([0.3, 1.0, 1.7], 3), 1 - np.array([0.7, 0.0, -0.7]) ** 3, rtol=1e-14)


def test_strengths_along_eigenvectors_decay_as_the_strict_flow_says() -> None:
    h, lr = np.array([0.5, 0.05]), 0.2
    path = iterate([1.0, 2.0], h, lr, 100, weight_decay=0.1)
    updates = np.diff(path, axis=0)
    strengths = np.sqrt(np.lib.stride_tricks.sliding_window_view(updates**2, 10, axis=0).sum(axis=-1))
    # Differences of numbers up to 2 with rounding 2^-53, over 1e-4 left of the first mode after 100 steps.
    found = free_strengths(strengths[0], h, lr, np.arange(90), weight_decay=0.1)
    np.testing.assert_allclose(found, strengths[:90], rtol=1e-10)
    slope = np.polyfit(np.arange(90), np.log(strengths[:90]), 1)[0]
    np.testing.assert_allclose(-1 / slope, decay_time(h, lr, weight_decay=0.1), rtol=1e-9)
    np.testing.assert_array_equal(decay_time([0.0, np.nan], 0.1), [np.inf, np.nan])


def test_the_gap_of_two_free_modes_closes_when_it_should() -> None:
    h, lr = np.array([1.0, 0.2]), 0.02
    d = free_strengths([3.0, 1.0], h, lr, np.arange(200))
    crossing = int(np.argmax(d[:, 0] < d[:, 1]))
    assert crossing - 1 <= float(collapse_time([3.0, 1.0], h, lr)) <= crossing
    assert collapse_time([3.0, 1.0], h[::-1], lr) == np.inf
    assert np.isnan(collapse_time([np.nan, 1.0], h, lr))
    with pytest.raises(SettingError, match="must hold two modes"):
        collapse_time([1.0, 2.0, 3.0], h, lr)


# Windows of decaying exponentials


def test_f10_ratios_of_a_noise_free_window() -> None:
    sigma = hankel_singular_values(F10_KAPPA, np.exp(-0.2 * F10_KAPPA), 10)
    # Fixture values carry three decimals; the fourth is 65.5455 in exact arithmetic.
    np.testing.assert_allclose(sigma[:5] / sigma[1:6], [8.789, 13.576, 33.661, 65.546, 111.15], rtol=4e-5)
    # To 40 digits: the sixth is still right, which a Gram in float64 does not even resolve.
    assert sigma[5] / sigma[6] == pytest.approx(175.62579, rel=1e-6)


def test_f11_noise_floor_decides_the_position() -> None:
    gram = hankel_gram(F10_KAPPA, np.exp(-0.5 * F10_KAPPA), 10)
    noise = np.array([0.1, 0.01, 0.001, 0.0001])[:, None, None] * np.trace(gram) / 10 * np.eye(10)
    sigma = np.sqrt(np.linalg.eigvalsh(gram + noise)[..., ::-1])
    assert gap_position(sigma, rule="plain").tolist() == [1, 1, 1, 3]
    assert gap_position(sigma, rule="weighted").tolist() == [1, 1, 1, 1]


def test_singular_values_agree_with_the_gram_and_pad_with_zeros() -> None:
    rng = np.random.default_rng(1)
    w, rho = rng.random((3, 2)), rng.uniform(-1, 1, (3, 2))
    sigma = hankel_singular_values(w, rho, 4)
    np.testing.assert_allclose(sigma[:, :2] ** 2, np.linalg.eigvalsh(hankel_gram(w, rho, 4))[:, :1:-1], rtol=1e-9)
    np.testing.assert_array_equal(sigma[:, 2:], 0.0)
    w[1, 0] = np.nan
    assert np.isnan(hankel_singular_values(w, rho, 4)).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(profile_bound(w, rho, 4)).all(axis=1).tolist() == [False, True, False]


def test_lazy_limit_predicts_the_window_and_its_gap() -> None:
    # A linear model under squared error has a kernel that stays: 12 outputs, 40 parameters.
    rng = np.random.default_rng(2)
    jacobian = rng.standard_normal((12, 40)) * np.geomspace(1, 0.01, 12)[:, None] / np.sqrt(40)
    theta, targets, lr, stride, window = np.zeros(40), rng.standard_normal(12), 0.5, 4, 8
    path = [theta]
    for _ in range(stride * (window + 3)):
        path.append(path[-1] - lr * jacobian.T @ (jacobian @ path[-1] - targets))
    measured = gram_of(np.stack(path), stride, window, start=12)
    kappa, q = np.linalg.eigh(jacobian @ jacobian.T)
    residual = q.T @ (jacobian @ path[12] - targets)
    weights, rates = lazy_profiles(kappa, residual, lr, stride)
    predicted = hankel_gram(weights, rates, window)
    np.testing.assert_allclose(predicted, measured, rtol=1e-9)
    sigma = np.sqrt(np.abs(np.linalg.eigvalsh(measured)[::-1]))
    exact = hankel_singular_values(weights, rates, window)
    # sigma_5 is 1e-4 of sigma_1, so its square carries 1e-16 / 1e-8 of relative rounding.
    np.testing.assert_allclose(exact[:4], sigma[:4], rtol=1e-6)
    assert gap_position(sigma, rule="guarded") == gap_position(exact, rule="guarded")
    assert lazy_profiles([0.0], [2.0], lr, stride)[0] == 0.0


def test_profile_bound_holds_for_any_decaying_modes() -> None:
    rng = np.random.default_rng(3)
    for n in (1, 4, 30):
        w = rng.exponential(size=(400, n)) ** 3
        rates = np.exp(-(10.0 ** rng.uniform(-3, 0.5, (400, n))))
        rates[::7, 0] *= -1.0
        sigma, bound = hankel_singular_values(w, rates, 10), profile_bound(w, rates, 10)
        # SVD rounding is below 10 * 2^-52 of the largest.
        assert np.all(sigma <= bound + 1e-14 * sigma[:, :1])
    w, slow = np.ones(50), np.exp(-np.linspace(0.001, 1 / 9, 50))
    assert slow_modes(slow, 10).all()
    np.testing.assert_allclose(profile_bound(w, slow, 10)[1:4] / np.sqrt(10 * 50), [1 / 2, 1 / 16, 1 / 192])
    assert effective_rank_bound([0, 3], 1 / 16).tolist() == [2, 5]


def test_bad_windows_are_refused() -> None:
    with pytest.raises(SettingError, match="window must be at least 1; got 0"):
        hankel_rows([1.0], [0.5], 0)
    with pytest.raises(SettingError, match="weights must not be negative; got -1"):
        hankel_gram([-1.0], [0.5], 3)
    with pytest.raises(SettingError, match="level must be greater than 0"):
        effective_rank_bound(1, 0.0)
    with pytest.raises(SettingError, match="stride must be at least 1"):
        descent_gram([1.0], [1.0], 0.1, 0, 3)


# Reach of a window


def test_active_modes_strict_and_author() -> None:
    # The published thresholds: 1 / (lr s W) = 0.5 in place of 1 / (lr W) = 100.
    h = np.array([[200.0, 60.0, 0.6, 0.4], [np.nan, 1.0, 1.0, 1.0]])
    assert active_modes(h, 1e-3, 200, 10, thresholds=[1.0])[0] == 3
    assert active_modes(h, 1e-3, 200, 10, thresholds=[1.0], mode="author")[0] == 1
    assert np.isnan(active_modes(h, 1e-3, 200, 10)).all(axis=1).tolist() == [False, True]
    with pytest.raises(SettingError, match="mode must be strict or author; got both"):
        active_modes(h, 1e-3, 200, 10, mode="both")


@pytest.mark.parametrize(
    ("kind", "beta", "decay"), [("gd", 0.0, 0.2), ("sgd", 0.9, 0.0), ("sgd", 0.5, 0.3), ("adamw", 0.9, 0.5)]
)
def test_the_map_turns_unstable_at_the_limit(kind: str, beta: float, decay: float) -> None:
    limit = float(stability_limit(kind, 0.1, beta, decay))
    linear = momentum_map(kind, 1.0, limit * np.array([0.999, 1.001]), 0.1, beta, weight_decay=decay)
    radius = np.abs(np.linalg.eigvals(linear.step)).max(axis=-1)
    assert radius[0] < 1 < radius[1]


@pytest.mark.parametrize(("kind", "beta"), [("sgd", 0.9), ("adamw", 0.9), ("gd", 0.0)])
def test_slow_modes_relax_at_the_effective_rate(kind: str, beta: float) -> None:
    linear = momentum_map(kind, 1.0, 0.01, 0.01, beta)
    radius = np.abs(np.linalg.eigvals(linear.step)).max()
    # The next order of the slow root is eta_eff h beta / (1 - beta) = 9e-3 of it at most.
    assert -np.log(radius) == pytest.approx(float(effective_lr(kind, 0.01, beta)) * 0.01, rel=0.02)


def test_half_the_limit_is_where_noise_free_steps_reverse() -> None:
    for kind, beta in (("sgd", 0.9), ("adamw", 0.9), ("gd", 0.0)):
        half = 0.5 * float(stability_limit(kind, 0.1, beta))
        linear = momentum_map(kind, 1.0, half * np.array([0.9, 1.1]), 0.1, beta)
        steps = np.diff(linear_path(linear, 60)[..., 0], axis=-1)
        lag_1 = (steps[:, 1:] * steps[:, :-1]).sum(axis=-1)
        assert lag_1[0] > 0 > lag_1[1]


def test_unknown_optimizers_and_momenta_are_refused() -> None:
    with pytest.raises(SettingError, match="kind must be one of gd, sgd"):
        effective_lr("lion", 0.1)
    with pytest.raises(SettingError, match=r"momentum must lie in \[0, 1\); got 1"):
        stability_limit("sgd", 0.1, 1.0)


# SGD with known noise


def test_f7_closed_forms() -> None:
    # Four decimals were given: half a unit of the last is 5e-5.
    white = stationary_strengths(F7_H, 0.01, 1.0, 500, 10)
    np.testing.assert_allclose(white, F7_WHITE, atol=5.1e-5)
    np.testing.assert_allclose(stationary_strengths(F7_H, 0.01, F7_H, 500, 10), F7_PROPORTIONAL, atol=5.1e-5)
    np.testing.assert_allclose(stationary_strengths(F7_H, 0.01, 1.0, 1, 10), F7_EVERY_STEP, atol=5.1e-5)
    continuous = stationary_strengths(F7_H, 0.01, 1.0, 500, 10, time="continuous")
    # V differs by 1 - eta h / 2: 5 % of d^2 at h = 10.
    np.testing.assert_allclose(continuous, white * np.sqrt(1 - 0.01 * F7_H / 2), rtol=1e-2)


@pytest.mark.parametrize(
    ("exponent", "stride", "expected"), [(0, 500, F7_WHITE), (1, 500, F7_PROPORTIONAL), (0, 1, F7_EVERY_STEP)]
)
def test_f7_simulated(exponent: int, stride: int, expected: list[float]) -> None:
    rng, lr, n = np.random.default_rng(7), 0.01, 1000 if stride > 1 else 20_000
    r, scale = 1 - lr * F7_H, lr * F7_H ** (exponent / 2)
    x = scale / np.sqrt(1 - r**2) * rng.standard_normal((n, 6))
    energy = np.zeros(6)
    for _ in range(10):
        before = x
        for _ in range(stride):
            x = r * x + scale * rng.standard_normal((n, 6))
        energy += ((x - before) ** 2).mean(axis=0)
    # Of n * 10 nearly independent squares, d has a standard error of 0.5 / sqrt(n * 5) = 0.7 % at most.
    np.testing.assert_allclose(np.sqrt(energy), expected, rtol=0.02)


def test_a_mode_without_curvature_diffuses_and_an_unstable_one_has_no_rest() -> None:
    found = stationary_strengths([0.0, 1e-13, 20.0, 25.0, -1.0, np.nan], 0.1, 4.0, 30, 10)
    # W eta^2 sigma^2 s.
    np.testing.assert_allclose(found[:2], np.sqrt(10 * 0.01 * 4 * 30), rtol=1e-9)
    assert np.isnan(found[2:]).all()
    assert np.isnan(stationary_gram([[1.0, 25.0]], 0.1, 1.0, 3, 4)).all()
    with pytest.raises(SettingError, match="mode must be strict or author"):
        stationary_strengths(1.0, 0.1, 1.0, 1, 10, mode="strct")
    with pytest.raises(SettingError, match="stride and window must be at least 1; got 0"):
        stationary_strengths(1.0, 0.1, 1.0, 0, 10)


def test_author_strengths_are_the_published_hierarchy() -> None:
    found = stationary_strengths([1.0, 4.0], 0.01, 9.0, 500, 10, mode="author", weight_decay=1.0)
    np.testing.assert_allclose(found, np.sqrt(10 * 9.0 / np.array([2.0, 5.0])))


def covariance_gram(h, lr, variance, theta_0, stride, window, start):
    """By the covariance of every snapshot with every other, and differences of it."""
    r = 1 - lr * h
    at = start + stride * np.arange(window + 1)
    total = np.zeros((window + 1, window + 1))
    for j in range(len(h)):
        for a, t in enumerate(at):
            for b, u in enumerate(at):
                m = min(t, u)
                noise = lr**2 * variance[j] * sum(r[j] ** (t + u - 2 * i) for i in range(1, m + 1))
                total[a, b] += r[j] ** (t + u) * theta_0[j] ** 2 + noise
    difference = np.eye(window + 1)[1:] - np.eye(window + 1)[:-1]
    return difference @ total @ difference.T


def test_expected_gram_on_the_way_and_at_rest() -> None:
    h, variance, theta = np.array([0.0, 0.3, 1.5, -0.05]), np.array([1.0, 2.0, 0.5, 0.3]), np.array([1, -2, 0.3, 0.1])
    found = expected_gram(theta, h, 1.0, variance, 3, 5, start=7)
    # Sums of some 100 terms of order 10, differenced: 1e-13.
    np.testing.assert_allclose(found, covariance_gram(h, 1.0, variance, theta, 3, 5, 7), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        expected_gram(theta, h, 1.0, 0.0, 3, 5, start=7), descent_gram(theta, h, 1.0, 3, 5, start=7), rtol=1e-12
    )
    late = expected_gram(theta[1:3], h[1:3], 1.0, variance[1:3], 3, 5, start=300)
    np.testing.assert_allclose(late, stationary_gram(h[1:3], 1.0, variance[1:3], 3, 5), rtol=1e-12)
    diagonal = stationary_gram(h[1:3], 1.0, variance[1:3], 3, 5)[0, 0]
    assert 5 * diagonal == pytest.approx((stationary_strengths(h[1:3], 1.0, variance[1:3], 3, 5) ** 2).sum())
    with pytest.raises(SettingError, match="start must be at least 0"):
        expected_gram(theta, h, 1.0, 0.0, 3, 5, start=-1)


# Momentum


@pytest.mark.parametrize(("kind", "decay"), [("sgd", 0.2), ("adamw", 0.2)])
def test_momentum_maps_are_the_optimizers(kind: str, decay: float) -> None:
    h, c, lr, beta = np.array([2.0, 0.1]), np.array([1.0, -1.0]), 0.1, 0.8
    theta, m, path = np.array([0.5, 2.0]), np.zeros(2), []
    for _ in range(41):
        path.append(theta)
        gradient = h * (theta - c)
        if kind == "sgd":
            m = beta * m + gradient + decay * theta
            theta = theta - lr * m
        else:
            m = beta * m + (1 - beta) * gradient
            theta = (1 - lr * decay) * theta - lr * m
    linear = momentum_map(kind, path[0], h, lr, beta, optimum=c, weight_decay=decay)
    np.testing.assert_allclose(linear_path(linear, 40)[..., 0].T, path, atol=1e-13)
    gram = linear_gram(linear, 4, 6, start=5).sum(axis=0)
    np.testing.assert_allclose(gram, gram_of(np.stack(path), 4, 6, start=5), rtol=1e-11)


def test_without_momentum_the_map_is_plain_sgd() -> None:
    h, theta, variance = np.array([0.3, 1.5]), np.array([1.0, -2.0]), np.array([2.0, 0.5])
    for kind in ("sgd", "adamw"):
        linear = momentum_map(kind, theta, h, 1.0, 0.0, noise_variance=variance)
        np.testing.assert_allclose(
            linear_gram(linear, 3, 5, start=7).sum(axis=0), expected_gram(theta, h, 1.0, variance, 3, 5, start=7)
        )
        np.testing.assert_allclose(
            linear_gram(linear, 3, 5, start=None).sum(axis=0), stationary_gram(h, 1.0, variance, 3, 5)
        )


def test_rest_covariance_solves_its_equation() -> None:
    linear = momentum_map("sgd", 0.0, np.array([1e-6, 0.5, 30.0]), 0.1, 0.9, noise_variance=1.0)
    s = rest_covariance(linear)
    again = linear.step @ s @ linear.step.swapaxes(-1, -2) + linear.noise
    np.testing.assert_allclose(again, s, rtol=1e-9, atol=1e-9)
    unstable = momentum_map("sgd", 0.0, np.array([1.0, 40.0]), 0.1, 0.9, noise_variance=1.0)
    assert np.isnan(rest_covariance(unstable)).all(axis=(1, 2)).tolist() == [False, True]


def test_joint_map_with_a_preconditioner_is_the_recursion_in_parameters() -> None:
    rng = np.random.default_rng(5)
    q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    hessian, p = (q * [3.0, 1.0, 0.3, 0.1]) @ q.T, np.array([0.3, 1.0, 2.0, 5.0])
    theta, c, lr, beta, decay = rng.standard_normal(4), rng.standard_normal(4), 0.1, 0.7, 0.1
    h, b = preconditioned_modes(hessian, p)
    np.testing.assert_allclose(b @ np.diag(h) @ np.linalg.inv(b), hessian / p[:, None], atol=1e-12)
    inverse = np.linalg.inv(b)
    linear = momentum_map(
        "adamw", inverse @ theta, h, lr, beta, noise_variance=1.0, optimum=inverse @ c, weight_decay=decay
    )
    covariance = rng.standard_normal((4, 4))
    covariance = covariance @ covariance.T
    joint = joint_map(linear, b.T @ covariance @ b)
    found = linear_gram(joint, 3, 4, start=2, metric=b.T @ b)
    # The same in parameters, where nothing is diagonal.
    step = np.block(
        [
            [(1 - lr * decay) * np.eye(4) - lr * (1 - beta) * hessian / p[:, None], -lr * beta * np.diag(1 / p)],
            [(1 - beta) * hessian, beta * np.eye(4)],
        ]
    )
    kick = np.vstack([-lr * (1 - beta) * np.diag(1 / p), (1 - beta) * np.eye(4)])
    rest = np.linalg.solve(hessian + decay * np.diag(p), hessian @ c)
    initial = np.r_[theta - rest, decay * p * rest]
    direct = LinearMap(step, kick @ covariance @ kick.T, initial, np.r_[rest, -decay * p * rest])
    np.testing.assert_allclose(found, linear_gram(direct, 3, 4, start=2), rtol=1e-10)
    np.testing.assert_allclose(
        linear_gram(joint, 3, 4, start=None, metric=b.T @ b), linear_gram(direct, 3, 4, start=None), rtol=1e-10
    )
    with pytest.raises(SettingError, match="preconditioner must be positive; got 0"):
        preconditioned_modes(hessian, [0.0, 1, 1, 1])


# Hierarchy


def test_slope_of_the_hierarchy_by_regime() -> None:
    h = np.geomspace(1e-4, 10, 200)
    for exponent in (0.0, 1.0):
        strengths = stationary_strengths(h, 0.01, h**exponent, 500, 10)
        local = np.gradient(np.log(strengths), np.log(h))
        # Central differences over steps of 0.06 in log h.
        found = hierarchy_exponent(h, 0.01, 500, noise_exponent=exponent)
        np.testing.assert_allclose(found[1:-1], local[1:-1], atol=2e-4)
    # eta h s = 5e-4, 2.5, 50 at the first, and small steps of 1 at the last.
    assert hierarchy_exponent(1e-4, 0.01, 500) == pytest.approx(0, abs=2e-4)
    assert hierarchy_exponent(1.0, 0.01, 5000) == pytest.approx(-0.5, abs=3e-3)
    assert hierarchy_exponent(1.0, 0.01, 5000, noise_exponent=1.0) == pytest.approx(0, abs=3e-3)
    assert np.isnan(hierarchy_exponent([0.0, 300.0, np.nan], 0.01, 5)).all()


def test_fitted_slope_covers_the_truth_at_its_level() -> None:
    rng = np.random.default_rng(11)
    h = np.geomspace(0.1, 100, 12)
    d = h**-0.5 * np.exp(0.2 * rng.standard_normal((2000, 12)))
    slope = inverted_hierarchy_slope(d, h)
    covered = ((slope.low <= -0.5) & (slope.high >= -0.5)).mean()
    # Standard error of a share of 0.95 in 2000: 0.5 %.
    assert covered == pytest.approx(0.95, abs=0.02)
    flawed = np.where(np.arange(12) < 9, d[0], 0.0)
    assert np.isfinite(inverted_hierarchy_slope(flawed, h).value)
    assert np.isnan(inverted_hierarchy_slope(d[0, :2], h[:2]).value)
    assert np.isnan(inverted_hierarchy_slope([1.0, np.nan, 1.0, 1.0], h[:4]).value)


# Deep linear networks


def test_two_layers_follow_the_logistic() -> None:
    s, times = np.array([3.0, 1.0, 0.2]), np.linspace(0, 6, 50)
    closed = deep_linear_flow(s, 0.01, 2, times)
    rate = np.gradient(closed, times, axis=0, edge_order=2)
    np.testing.assert_allclose(rate[1:-1, 2], (2 * closed * (s - closed))[1:-1, 2], rtol=2e-3)
    half = learning_time(s, 0.01)
    np.testing.assert_allclose(np.diagonal(deep_linear_flow(s, 0.01, 2, half)), s / 2)
    with pytest.raises(SettingError, match="must be positive for 2 layers"):
        deep_linear_flow([1.0], 0.0, 2, [1.0])


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_descent_in_small_steps_is_the_flow(layers: int) -> None:
    s, lr, steps = np.array([2.0, 0.7]), 1e-3, 4000
    path = deep_linear_descent(s, 0.05, layers, lr, steps)
    flow = deep_linear_flow(s, 0.05, layers, lr * np.arange(steps + 1))
    # Euler's error is of the order of lr times the fastest rate, L s^(2 - 2/L), relative to s.
    np.testing.assert_allclose(path, flow, atol=2.0 * lr * layers * 2 * 2.0**2)


def test_more_layers_agree_with_the_implicit_solution_of_three() -> None:
    # da/dt = 3 a^(4/3) (s - a) in t(a), by quadrature.
    from scipy.integrate import quad

    found = deep_linear_flow([2.0], 0.1, 3, [0.5])[0, 0]
    assert quad(lambda a: 1 / (3 * a ** (4 / 3) * (2 - a)), 0.1, found)[0] == pytest.approx(0.5, rel=1e-7)
