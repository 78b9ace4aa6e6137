from __future__ import annotations

import numpy as np
import pytest
from theory_reference import P_PUBLISHED, PUBLISHED, hankel, wishart

from spectraledge.errors import SettingError
from spectraledge.theory import (
    author_bbp_ratio,
    author_noise,
    eigen_width,
    g23,
    gap_position,
    gap_ratio,
    gap_scores,
    gram_spectrum,
    mode_overlaps,
    ratios,
    uniqueness_margin,
    width,
)


def spectrum_of(gram):
    return gram_spectrum(gram, resolution=0.0).singular_values


def test_f1_published_spectrum():
    assert [int(gap_position(PUBLISHED, rule=r)) for r in ("plain", "guarded", "weighted", "difference")] == [
        9,
        2,
        2,
        2,
    ]
    np.testing.assert_allclose(
        ratios(PUBLISHED), [1.174, 1.381, 1.106, 1.042, 1.146, 1.183, 1.278, 1.374, 1.956], atol=6e-4
    )
    np.testing.assert_allclose(gap_scores(PUBLISHED, "weighted")[:2], [0.23168, 0.23188], atol=5e-6)
    assert np.sqrt(author_noise(PUBLISHED, 1)) == pytest.approx(64.77, abs=0.005)
    assert author_bbp_ratio(PUBLISHED, P_PUBLISHED) == pytest.approx(22.96, abs=0.005)


@pytest.mark.parametrize(("p", "expected"), [(163_150_848, 65.24), (51_045_888, 48.79), (131_072, 10.95)], ids=str)
def test_f2_white_noise_attains_the_bound_of_the_author_ratio(p, expected):
    ratio = author_bbp_ratio(spectrum_of(wishart(300, 10, p, np.random.default_rng(1))), p)
    assert ratio.max() <= (p / 9) ** 0.25
    # Two digits are quoted; the mean over 300 draws moves by less than 0.003.
    assert ratio.mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("m", "overlap"), [(0.3, 0.474), (1.0, 0.909)])
def test_f3_constant_drift_in_noise(m, overlap):
    w = 10
    common = np.full((w, w), m**2)
    spectrum = gram_spectrum(common + np.eye(w))
    lam = spectrum.singular_values**2
    np.testing.assert_allclose(lam, [w * m**2 + 1] + [1.0] * (w - 1), rtol=1e-12)
    u, s = spectrum.time_profiles, spectrum.singular_values
    disjoint = mode_overlaps(common, u, s, u, s)[0, 0]
    assert disjoint == pytest.approx(w * m**2 / (w * m**2 + 1), rel=1e-12)
    assert disjoint == pytest.approx(overlap, abs=5e-4)


def test_f4_autoregressive_signal():
    alphas = np.array([0.5, 0.8, 0.9, 0.95, 0.99])
    lag = np.abs(np.subtract.outer(np.arange(10), np.arange(10)))
    sigma = spectrum_of(alphas[:, None, None] ** lag)
    np.testing.assert_allclose(sigma[:, 0] ** 2, [2.683, 5.502, 7.307, 8.514, 9.677], atol=5.1e-4)
    np.testing.assert_allclose(ratios(sigma)[:, 0], [1.153, 1.630, 2.247, 3.148, 7.003], atol=5.1e-4)


def test_f11_a_noise_floor_moves_the_argmax_to_one():
    gram = hankel(0.5)
    floors = np.array([0.1, 0.01, 0.001, 0.0001]) * np.trace(gram) / 10
    sigma = spectrum_of(gram + floors[:, None, None] * np.eye(10))
    assert gap_position(sigma, rule="plain").tolist() == [1, 1, 1, 3]
    assert gap_position(sigma, rule="weighted").tolist() == [1, 1, 1, 1]


def test_f13_weighted_rule_in_white_noise():
    sigma = spectrum_of(wishart(4000, 10, 10**8, np.random.default_rng(2)))
    share = (gap_position(sigma, rule="weighted") == 1).mean()
    # Two digits are quoted (half a unit: 0.005) and the sampling sd of 4000 windows is 0.0062: 3 sd.
    assert share == pytest.approx(0.81, abs=0.005 + 3 * 0.0062)


def test_positions_are_zero_and_values_nan_where_nothing_is_resolved():
    sigma = np.array([[4.0, 2.0, 1.0, 0.1], [np.nan] * 4, [0.0] * 4, [4.0, 1e-9, 1e-9, 1e-9]])
    floor = np.array([0.5, np.nan, 0.0, 1e-3])
    for rule in ("guarded", "plain", "weighted"):
        position = gap_position(sigma, rule=rule, floor=floor)
        assert position[1:].tolist() == [0, 0, 0]
        assert position[0] > 0
        assert np.isnan(gap_ratio(sigma, position)[1:]).all()
        assert np.isnan(width(sigma, position)[1:]).all()
        assert np.isnan(eigen_width(sigma, position)[1:]).all()
    # The width of a gap above an unresolved mode is known to within the floor.
    assert gap_position(sigma, rule="difference", floor=floor).tolist() == [1, 0, 0, 1]


def test_floor_keeps_unresolved_denominators_out():
    sigma = np.array([8.0, 4.0, 3.0, 1e-9])
    assert gap_position(sigma, rule="plain") == 3
    assert gap_position(sigma, rule="plain", floor=1e-6) == 1


def test_guarded_looks_at_the_upper_half_only():
    sigma = np.array([3.0, 2.9, 2.8, 2.0, 0.1])
    assert gap_position(sigma, rule="plain") == 4
    assert gap_position(sigma, rule="guarded") == 2
    assert gap_position([2.0, 1.0], rule="guarded") == 1


def test_widths_name_their_units():
    sigma = np.array([[5.0, 3.0, 1.0]])
    assert width(sigma, [2]).tolist() == [2.0]
    assert eigen_width(sigma, [2]).tolist() == [8.0]
    assert g23(sigma).tolist() == [8.0]
    assert g23([5.0, 3.0]) == 9.0  # two rows: sigma_3 is 0
    np.testing.assert_array_equal(gap_ratio(sigma, [1]), [5 / 3])


def test_uniqueness_margin():
    assert uniqueness_margin([8.0, 4.0, 3.9, 3.8], null_sd=0.1) == pytest.approx((2 - 4 / 3.9) / 0.1)
    assert np.isnan(uniqueness_margin([2.0, 1.0], null_sd=0.1))
    assert np.isnan(uniqueness_margin([[2.0, 1.0, 1e-9]], null_sd=0.1, rule="plain", floor=1e-3)).all()


def test_wrong_settings_say_what_to_do():
    with pytest.raises(SettingError, match="window must be at least 2; got 1"):
        gap_position([1.0])
    with pytest.raises(SettingError, match="rule must be one of"):
        gap_position([2.0, 1.0], rule="largest")
    with pytest.raises(SettingError, match="1-indexed"):
        width([2.0, 1.0], 2)
