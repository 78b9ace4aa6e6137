from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_reference import P_PUBLISHED, PUBLISHED, hankel, svd

from spectraledge.errors import SettingError
from spectraledge.theory import (
    effective_rank,
    gap_position,
    gram_spectrum,
    mp_edge,
    participation_ratio,
    ratios,
    resolution_floor,
    trace,
)

quick = settings(max_examples=25, deadline=None, derandomize=True)


def rows_of(seed, window=6, p=40):
    return np.random.default_rng(seed).standard_normal((window, p))


def test_spectrum_equals_explicit_svd_with_leading_axes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 7, 50))
    spectrum = gram_spectrum(x @ x.swapaxes(-1, -2))
    assert spectrum.singular_values.shape == (3, 4, 7)
    np.testing.assert_allclose(spectrum.singular_values, np.linalg.svd(x, compute_uv=False), rtol=1e-12)
    assert spectrum.resolved.all()
    u, s, _ = svd(x[1, 2])
    np.testing.assert_allclose(np.abs(np.sum(u * spectrum.time_profiles[1, 2], axis=0)), 1.0, atol=1e-10)
    np.testing.assert_allclose(trace(s), np.sum(x[1, 2] ** 2))


def test_sign_makes_the_largest_entry_positive_and_ties_go_to_the_first():
    u = gram_spectrum(np.diag([4.0, 9.0, 1.0]) * 1.0).time_profiles
    assert np.all(np.take_along_axis(u, np.abs(u).argmax(axis=0)[None], axis=0) > 0)
    tau = np.arange(10.0) - 4.5
    assert gram_spectrum(np.outer(tau, tau)).time_profiles[0, 0] > 0


@quick
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-12, 1e12))
def test_spectrum_is_invariant_to_rotations_and_permutations_and_scales_with_the_rows(seed, scale):
    x = rows_of(seed)
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((40, 40)))
    base = gram_spectrum(x @ x.T)
    for y, factor in ((x @ rotation, 1.0), (x[:, rng.permutation(40)], 1.0), (scale * x, scale)):
        other = gram_spectrum(y @ y.T)
        # sigma^2 carries a relative error of about W eps cond^2, here below 1e-12.
        np.testing.assert_allclose(other.singular_values, factor * base.singular_values, rtol=1e-10)
        np.testing.assert_allclose(other.floor, factor * base.floor, rtol=1e-10)


@quick
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 39))
def test_grams_of_blocks_add(seed, cut):
    x = rows_of(seed)
    parts = x[:, :cut] @ x[:, :cut].T + x[:, cut:] @ x[:, cut:].T
    np.testing.assert_allclose(gram_spectrum(parts).singular_values, np.linalg.svd(x, compute_uv=False), rtol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_entry_gives_nan_for_its_window_only(bad):
    grams = np.stack([np.eye(4), np.eye(4)])
    grams[1, 0, 3] = bad
    spectrum = gram_spectrum(grams)
    assert np.isnan(spectrum.singular_values[1]).all()
    assert np.isnan(spectrum.floor[1])
    assert not spectrum.resolved[1].any()
    assert spectrum.resolved[0].all()
    assert gap_position(spectrum.singular_values, floor=spectrum.floor).tolist() == [1, 0]


def test_an_all_zero_window_is_zero_and_unresolved():
    spectrum = gram_spectrum(np.zeros((5, 5)))
    assert not spectrum.singular_values.any()
    assert not spectrum.resolved.any()
    assert np.isnan(participation_ratio(spectrum.singular_values))
    assert effective_rank(spectrum.singular_values) == 0


def test_no_windows_at_all():
    assert gram_spectrum(np.zeros((0, 5, 5))).singular_values.shape == (0, 5)


def test_a_gram_must_be_square():
    with pytest.raises(SettingError, match=r"shape \(3, 4\)|got \(3, 4\)"):
        gram_spectrum(np.zeros((3, 4)))


def test_f10_floor_resolves_the_fourth_ratio_and_not_the_fifth():
    spectrum = gram_spectrum(hankel(0.2))
    r = ratios(spectrum.singular_values, spectrum.floor)
    # sigma_5^2 / sigma_1^2 is 1.4e-11, its absolute error about 1e-15: four digits of sigma_5.
    np.testing.assert_allclose(r[:4], [8.789, 13.576, 33.661, 65.546], rtol=1e-4)
    assert np.isnan(r[4:]).all()
    assert spectrum.resolved.tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize("window", [3, 10, 20, 100])
def test_float32_updates_resolve_every_sigma_above_1e_5_of_the_largest(window):
    sigma = np.full(window, 1e-5)
    sigma[0] = 1.0
    floor = resolution_floor(np.diag(sigma**2))
    assert floor < 1e-5
    sigma[:-1] = 1.0  # the worst case: all energy in the other modes
    assert resolution_floor(np.diag(sigma**2)) < 1e-5


def test_the_floor_bounds_the_error_of_rounded_updates():
    rng = np.random.default_rng(3)
    u, _, v = svd(rng.standard_normal((10, 300)))
    true = np.geomspace(1.0, 1e-9, 10)
    x = (u * true) @ v.T
    rounded = x.astype(np.float32).astype(np.float64)
    spectrum = gram_spectrum(rounded @ rounded.T)
    kept = spectrum.resolved
    assert 6 <= kept.sum() <= 8
    # At the floor the error of sigma is at most an eighth (see the module) plus the rounding of the rows.
    np.testing.assert_allclose(spectrum.singular_values[kept], true[kept], rtol=0.25)


def test_summaries_of_a_known_spectrum():
    assert participation_ratio(np.ones((2, 7))).tolist() == [7.0, 7.0]
    assert effective_rank([3.0, 1.0, 0.5]) == 2  # shares .878, .976
    assert effective_rank([1.0, 1.0], share=1.0) == 2
    with pytest.raises(SettingError, match="share"):
        effective_rank([1.0], share=0.0)
    assert mp_edge(PUBLISHED, P_PUBLISHED) == pytest.approx(64.8, abs=0.05)
