from __future__ import annotations

import numpy as np
import pytest
from theory_reference import hankel

from spectraledge.errors import SettingError
from spectraledge.theory import gap_position, gram_spectrum
from spectraledge.theory.kernel_spectrum import kernel_gap, kernel_rotation, kernel_spectrum
from spectraledge.theory.lazy import compare_grams, loss_curve, loss_curve_error, predicted_gram
from spectraledge.theory.power_law import power_law


def orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def test_spectrum_of_a_stack_with_a_bad_one():
    q = orthogonal(6, 0)
    kappa = np.array([9.0, 5.0, 1.0, 0.5, 1e-17, 0.0])
    stack = np.stack([q @ np.diag(kappa) @ q.T, np.full((6, 6), np.nan)])
    found = kernel_spectrum(stack)
    np.testing.assert_allclose(found.eigenvalues[0], kappa, atol=1e-14)
    assert found.resolved.tolist() == [[True] * 4 + [False] * 2, [False] * 6]
    assert np.isnan(found.eigenvalues[1]).all()
    np.testing.assert_allclose(np.abs(np.diag(found.eigenvectors[0].T @ q))[:4], 1.0, atol=1e-12)
    z = np.random.default_rng(1).standard_normal((2, 6))
    np.testing.assert_allclose(np.sum(found.coefficients(z)[0] ** 2), np.sum(z[0] ** 2), rtol=1e-12)
    gap = kernel_gap(found.eigenvalues, floor=found.floor)
    assert gap.position.tolist() == [2, 0]
    assert gap.width[0] == pytest.approx(4.0)
    assert np.isnan([gap.width[1], gap.ratio[1]]).all()
    with pytest.raises(SettingError, match="together"):
        kernel_spectrum(eigenvalues=[1.0])


def test_gap_does_not_see_repeated_inputs_and_can_discount_a_power_law():
    kappa = np.array([9.0, 8.0, 1.0, 0.9, 0.8, 0.7])
    repeated = np.concatenate([kappa, np.zeros(6)])
    assert kernel_gap(repeated).position == kernel_gap(kappa).position == 2
    j = np.arange(1.0, 41.0)
    smooth = j**-2
    assert kernel_gap(smooth).position == 1
    smooth[3:] *= 0.5  # three outliers above a power law
    assert kernel_gap(smooth).position == 1
    assert kernel_gap(smooth, exponent=2.0).position == 3
    imposed = kernel_gap(smooth, position=3)
    assert imposed.ratio == pytest.approx(2 * (4 / 3) ** 2)
    with pytest.raises(SettingError, match="position"):
        kernel_gap(kappa, position=6)
    with pytest.raises(SettingError, match="2 eigenvalues"):
        kernel_gap([1.0])


def test_rotation_by_a_known_angle_and_its_bound():
    kappa = np.diag([5.0, 3.0, 1.0, 0.5])
    for angle in (1e-9, 1e-3, 0.4):
        r = np.eye(4)
        r[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        found = kernel_rotation(kappa, r @ kappa @ r.T, 2, n_steps=10)
        # An eigenvector is known to eps * ||K|| / gap = 5e-16.
        assert found.angle == pytest.approx(angle, abs=5e-15)
        assert found.rate == pytest.approx(angle / 10, abs=5e-16)
        assert found.sin_theta <= found.bound
    rng = np.random.default_rng(3)
    for _ in range(50):
        a, b = rng.standard_normal((2, 6, 6))
        first = a @ a.T
        found = kernel_rotation(first, first + 0.3 * (b + b.T), 2)
        assert found.sin_theta <= found.bound * (1 + 1e-12)
    assert np.isnan(kernel_rotation(kappa, kappa * np.nan, 1).angle)
    with pytest.raises(SettingError, match="same N"):
        kernel_rotation(kappa, kappa, 4)


def prediction(eta_s, kappa, **options):
    """lr so small that rho = exp(-eta s kappa) within 1e-7, residuals such that w_j = kappa_j."""
    stride = 10_000
    lr = eta_s / stride
    rho = (1 - lr * kappa) ** stride
    residual = kappa / (1 - rho)
    return predicted_gram(kappa, np.eye(len(kappa)), residual, lr, stride, 10, **options)


def test_noise_free_hankel_has_large_ratios_everywhere():
    found = prediction(0.2, 1.0 / np.arange(1, 2001))
    assert compare_grams(found.gram, hankel(0.2)).relative_error < 1e-4  # lr s kappa^2 / 2 at lr = 2e-5
    sigma = gram_spectrum(found.gram).singular_values
    # Stated to five digits; the discrete rho moves the ratios by some 1e-4.
    np.testing.assert_allclose(sigma[:4] / sigma[1:5], [8.789, 13.576, 33.661, 65.546], rtol=5e-4)


def test_the_noise_floor_decides_where_the_gap_is():
    kappa = 1.0 / np.arange(1, 2001)
    energy = np.trace(hankel(0.5)) / 10
    positions = {"plain": [], "weighted": []}
    for percent in (10, 1, 0.1, 0.01):
        for rule in positions:
            found = prediction(0.5, kappa, noise_energy=percent / 100 * energy, rule=rule)
            positions[rule].append(int(found.position))
    assert positions == {"plain": [1, 1, 1, 3], "weighted": [1, 1, 1, 1]}


def test_active_modes_and_limits():
    kappa = np.array([100.0, 10.0, 1.0, 0.0])
    found = predicted_gram(kappa, np.eye(4), [1.0, 1.0, 1.0, 1.0], 0.001, 10, 10)
    assert found.n_active == 2  # lr s W = 0.1: 100 and exactly 10
    converged = predicted_gram(kappa, np.eye(4), [0.0, 1.0, 1.0, 1.0], 0.001, 10, 10)
    assert converged.n_active == 1
    assert converged.weights[0] == 0.0
    assert found.weights[3] == 0.0  # no curvature, no movement of these outputs
    slow = predicted_gram([1e-9], [[1.0]], [2.0], 0.1, 50, 4)
    np.testing.assert_allclose(slow.weights, 1e-9 * 4 * (0.1 * 50) ** 2, rtol=1e-7)
    stack = predicted_gram(np.stack([kappa, kappa * np.nan]), np.eye(4), np.ones(4), 0.001, 10, 10)
    np.testing.assert_array_equal(stack.gram[0], found.gram)
    assert stack.position.tolist() == [int(found.position), 0]
    for options in ({"window": 1}, {"stride": 0}, {"lr": 0.0}):
        with pytest.raises(SettingError, match="window must be"):
            predicted_gram(kappa, np.eye(4), np.ones(4), **{"lr": 0.1, "stride": 1, "window": 5, **options})


def test_comparison():
    gram = hankel(0.5)
    half = compare_grams(0.5 * gram, gram)
    assert half.relative_error == pytest.approx(0.5)
    assert half.shape_error < 1e-14
    assert half.scale == pytest.approx(2.0)
    np.testing.assert_allclose(half.log_ratios[:4], 0.5 * np.log(0.5), atol=1e-7)
    spectrum = gram_spectrum(gram)
    assert half.predicted_position == half.measured_position
    assert half.measured_position == gap_position(spectrum.singular_values, floor=spectrum.floor)
    bad = compare_grams(np.stack([gram, gram * np.nan]), gram)
    assert np.isnan(bad.relative_error).tolist() == [False, True]
    with pytest.raises(SettingError, match="same window"):
        compare_grams(gram, gram[:4, :4])


def test_loss_curves_and_their_error():
    t = np.arange(5)
    np.testing.assert_allclose(loss_curve([2.0], [3.0], 0.1, t, rest=1.0), 1 + 4.5 * 0.8 ** (2 * t))
    np.testing.assert_allclose(loss_curve([2.0], [3.0], 0.1, t, mode="author"), 9 * np.exp(-0.4 * t))
    # Beyond 2 / kappa descent diverges and the printed flow does not notice.
    assert loss_curve([2.0], [1.0], 1.1, [10])[0] > loss_curve([2.0], [1.0], 1.1, [0])[0]
    assert loss_curve([2.0], [1.0], 1.1, [10], mode="author")[0] < 1e-18
    assert loss_curve_error([np.e, 1.0, np.nan], [1.0, 1.0, 1.0]) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(loss_curve_error([-1.0], [1.0]))
    with pytest.raises(SettingError, match="mode"):
        loss_curve([1.0], [1.0], 0.1, t, mode="flow")


def test_power_law_and_its_interval():
    # Eigenvalues of a sampled covariance with kappa_j = j^-1.5, n = 4000 samples of 100: sd of log kappa 2.2 %.
    inside, exponents = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((4000, 100)) * np.arange(1.0, 101.0) ** -0.75
        law = power_law(np.linalg.eigvalsh(x.T @ x / 4000)[::-1], ranks=(2, 60))
        inside += law.low <= 1.5 <= law.high
        exponents.append(law.exponent)
    assert np.mean(exponents) == pytest.approx(1.5, abs=0.02)
    # 95 % nominal; 0.95 - 3.5 sd of a share over 40 is 0.83.
    assert inside / 40 > 0.83
    exact = power_law(2 * np.arange(1.0, 30.0) ** -1.2)
    assert exact.high - exact.low < 1e-12
    assert exact.residual_sd < 1e-12
    np.testing.assert_allclose(exact.predict([1, 10]), [2.0, 2 * 10**-1.2])
    bent = power_law(1 / (1 + np.arange(1.0, 200.0) / 20) ** 2)
    assert bent.high - bent.low > 0.2
    assert np.isnan(power_law([3.0, 2.0, np.nan, 1.0, 0.5]).exponent)
    assert power_law([9.0, 5.0, 4.0, 3.0, 2.0, 1e-20], floor=1e-10).ranks == (2, 5)
    with pytest.raises(SettingError, match="at least 4"):
        power_law([3.0, 2.0, 1.0])
    with pytest.raises(SettingError, match="one spectrum"):
        power_law(np.ones((2, 9)))
