from __future__ import annotations

import numpy as np
import pytest
from theory_reference import wishart

from spectraledge.errors import SettingError
from spectraledge.theory import (
    gap_position,
    gram_spectrum,
    legendre_overlaps,
    ratios,
    smooth_path,
    turning_rate,
)

LAG = np.abs(np.subtract.outer(np.arange(10), np.arange(10)))


@pytest.mark.parametrize(("r", "ratio"), [(0.01, 34.82), (0.05, 6.9631), (0.1, 3.482), (0.2, 1.74078)])
def test_f20_linear_drift(r, ratio):
    tau = np.arange(10) - 4.5
    updates = np.stack([np.ones(10), r * tau], axis=1)  # two orthogonal directions
    spectrum = gram_spectrum(updates @ updates.T)
    sigma = spectrum.singular_values
    assert sigma[0] / sigma[1] == pytest.approx(np.sqrt(12) / (r * np.sqrt(99)), rel=1e-12)
    assert sigma[0] / sigma[1] == pytest.approx(ratio, rel=2e-4)
    assert turning_rate(sigma) == pytest.approx(r, rel=1e-12)
    assert not spectrum.resolved[2:].any()
    np.testing.assert_allclose(spectrum.time_profiles[:, 0], 1 / np.sqrt(10), atol=1e-12)
    np.testing.assert_allclose(np.abs(spectrum.time_profiles[:, 1]), np.abs(tau) / np.sqrt(82.5), atol=1e-12)
    np.testing.assert_allclose(legendre_overlaps(spectrum.time_profiles, 2), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "overlaps", "first"),
    [
        (np.exp(-0.5 * (LAG / 5) ** 2), [0.995, 0.995, 0.990, 0.990], [1.97, 2.77, 3.52]),
        (np.exp(-0.5 * (LAG / 2) ** 2), [0.968, 0.949, 0.907, 0.883], [1.21, 1.37, 1.54]),
        (np.exp(-0.5 * (LAG / 3) ** 2), [0.982, 0.977, 0.958, 0.953], [1.42, 1.77, 2.13]),
        (0.9**LAG, [0.998, 0.987, 0.958, 0.912], [2.25, 1.72, 1.42]),
        (0.5**LAG, [0.970, 0.942, 0.882, 0.824], [1.15, 1.19, 1.19]),
    ],
    ids=["rbf5", "rbf2", "rbf3", "ar.9", "ar.5"],
)
def test_f21_population_kernels(kernel, overlaps, first):
    spectrum = gram_spectrum(kernel)
    np.testing.assert_allclose(legendre_overlaps(spectrum.time_profiles), overlaps, atol=6e-4)
    np.testing.assert_allclose(ratios(spectrum.singular_values)[:3], first, atol=6e-3)


def test_f21_where_the_plain_argmax_lands():
    rbf = gram_spectrum(np.exp(-0.5 * (LAG / 5) ** 2)).singular_values
    assert ratios(rbf)[8] == pytest.approx(13.12, abs=0.006)
    assert gap_position(rbf, rule="plain") == 9
    auto = gram_spectrum(0.9**LAG).singular_values
    assert ratios(auto)[8] == pytest.approx(1.04, abs=0.006)
    assert gap_position(auto, rule="plain") == 1


def test_smooth_path_flag():
    assert smooth_path(gram_spectrum(np.exp(-0.5 * (LAG / 5) ** 2)).time_profiles)
    noise = gram_spectrum(wishart(2000, 10, 2000, np.random.default_rng(0))).time_profiles
    assert not smooth_path(noise).any()
    overlaps = legendre_overlaps(noise)
    np.testing.assert_allclose(overlaps.mean(axis=0), 0.26, atol=0.01)  # sd of the mean 0.0045, two digits
    np.testing.assert_allclose(np.quantile(overlaps, 0.95, axis=0), 0.60, atol=0.03)
    assert not smooth_path(np.full((10, 10), np.nan))


def test_short_windows_never_count_as_smooth():
    assert not smooth_path(gram_spectrum(np.ones((3, 3)) + np.eye(3)).time_profiles)
    assert legendre_overlaps(np.eye(3)).shape == (2,)
    with pytest.raises(SettingError, match="at least 2"):
        turning_rate([1.0])
    assert np.isnan(turning_rate([0.0, 0.0]))
