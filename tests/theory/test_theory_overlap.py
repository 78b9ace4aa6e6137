from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_reference import svd, wishart

from spectraledge.errors import SettingError
from spectraledge.theory import gram_spectrum, mode_overlaps, subspace_overlap


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), lag=st.integers(1, 9))
def test_i4_overlaps_equal_explicit_right_vectors(seed, lag):
    w = 5
    x = np.random.default_rng(seed).standard_normal((w + lag, 30))
    d = x @ x.T
    before, after = gram_spectrum(d[:w, :w]), gram_spectrum(d[lag:, lag:])
    overlaps = mode_overlaps(
        d[:w, lag:],
        before.time_profiles,
        before.singular_values,
        after.time_profiles,
        after.singular_values,
    )
    _, _, v = svd(x[:w])
    _, _, v2 = svd(x[lag:])
    # Signs of singular vectors are free; near-degenerate pairs amplify rounding by at most 1e4 here.
    np.testing.assert_allclose(np.abs(overlaps), np.abs(v.T @ v2), atol=1e-9)
    for k in (1, 3, 5):
        expected = np.linalg.norm(v[:, :k].T @ v2[:, :k]) ** 2 / k
        assert subspace_overlap(overlaps, k) == pytest.approx(expected, abs=1e-9)


def test_signs_follow_the_time_profiles():
    x = np.random.default_rng(1).standard_normal((8, 50))
    s = gram_spectrum(x @ x.T)
    v = x.T @ s.time_profiles / s.singular_values
    y = -x
    overlaps = mode_overlaps(x @ y.T, s.time_profiles, s.singular_values, s.time_profiles, s.singular_values)
    np.testing.assert_allclose(overlaps, v.T @ -v, atol=1e-12)


def test_unresolved_modes_have_no_overlap():
    u, s = np.eye(3), np.array([2.0, 1.0, 1e-9])
    overlaps = mode_overlaps(np.diag(s**2), u, s, u, s, floor=1e-6, other_floor=0.0)
    assert np.isnan(overlaps[2]).all()
    assert np.isfinite(overlaps[:2]).all()
    assert subspace_overlap(overlaps, 2) == 1.0
    assert np.isnan(subspace_overlap(overlaps, 3))


def test_white_noise_overlaps_at_lag_one_come_from_shared_rows():
    """F13 and section 3.5: sampled; two or three digits are quoted."""
    d = wishart(3000, 6, 10**8, np.random.default_rng(2))
    before, after = gram_spectrum(d[:, :5, :5]), gram_spectrum(d[:, 1:, 1:])
    overlaps = mode_overlaps(
        d[:, :5, 1:],
        before.time_profiles,
        before.singular_values,
        after.time_profiles,
        after.singular_values,
    )
    cosines = np.abs(np.diagonal(overlaps, axis1=1, axis2=2))
    angles = np.degrees(np.arccos(np.minimum(cosines, 1.0))).mean(axis=0)
    # sd of an angle is below 27 degrees: 3 sd of the mean of 3000 is 1.5, plus half the last digit.
    np.testing.assert_allclose(angles[:3], [41.7, 55.0, 58.0], atol=2.0)

    d = wishart(3000, 11, 10**8, np.random.default_rng(3))
    before, after = gram_spectrum(d[:, :10, :10]), gram_spectrum(d[:, 1:, 1:])
    overlaps = mode_overlaps(
        d[:, :10, 1:],
        before.time_profiles,
        before.singular_values,
        after.time_profiles,
        after.singular_values,
    )
    cosines = np.abs(np.diagonal(overlaps, axis1=1, axis2=2)).mean(axis=0)
    # sd of |cos| is below 0.35: 3 sd of the mean of 3000 is 0.02.
    np.testing.assert_allclose(cosines[:5], [0.795, 0.646, 0.568, 0.538, 0.510], atol=0.02)


def test_wrong_settings():
    u, s = np.eye(3), np.ones(3)
    with pytest.raises(SettingError, match="cross_gram must be"):
        mode_overlaps(np.eye(4), u, s, u, s)
    with pytest.raises(SettingError, match=r"k must lie in 1\.\.3"):
        subspace_overlap(np.eye(3), 4)
