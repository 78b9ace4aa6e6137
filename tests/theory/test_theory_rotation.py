from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectraledge.errors import SettingError
from spectraledge.theory import gram_spectrum, mode_overlaps, subspace_overlap
from spectraledge.theory.rotation import (
    independent_survival,
    match_modes,
    paired_overlaps,
    principal_angles,
    sine_floor,
    span_sines,
    survival_bound,
    tightness,
    vacuous_share,
    vector_sines,
)
from spectraledge.theory.stability import span_bound

W, P = 6, 30
quick = settings(max_examples=25, deadline=None, derandomize=True)


def frame(rng, k=W, p=P):
    return np.linalg.qr(rng.standard_normal((p, k)))[0]


def overlaps_of(x, w, lag):
    d = x @ x.swapaxes(-1, -2)
    a, b = gram_spectrum(d[..., :w, :w]), gram_spectrum(d[..., lag : lag + w, lag : lag + w])
    cross = d[..., :w, lag : lag + w]
    return mode_overlaps(
        cross, a.time_profiles, a.singular_values, b.time_profiles, b.singular_values
    ), a, b  # fmt: skip


@quick
@given(seed=st.integers(0, 2**32 - 1), lag=st.integers(1, W))
def test_sines_and_angles_against_explicit_projectors(seed, lag):
    x = np.random.default_rng(seed).standard_normal((W + lag, P))
    overlaps, _, _ = overlaps_of(x, W, lag)
    v, v2 = (np.linalg.svd(rows, full_matrices=False)[2].T for rows in (x[:W], x[lag:]))
    # The root of 1 - cos^2 turns an error of 1e-13 in the overlap into at most 5e-7, near 0 only.
    explicit = np.linalg.norm(v2 - v * np.sum(v * v2, axis=0), axis=0)
    np.testing.assert_allclose(vector_sines(overlaps), explicit, atol=1e-6)
    sines = span_sines(overlaps)
    for k in range(1, W + 1):
        a, b = v[:, :k], v2[:, :k]
        assert sines[k - 1] == pytest.approx(np.linalg.norm(a @ a.T - b @ b.T) / np.sqrt(2), abs=1e-6)
        angles = principal_angles(overlaps, k)
        assert np.all(np.diff(angles) >= 0)
        assert np.linalg.norm(np.sin(angles)) == pytest.approx(sines[k - 1], abs=1e-6)
        assert subspace_overlap(overlaps, k) == pytest.approx(np.mean(np.cos(angles) ** 2), abs=1e-9)


def test_signs_and_rounding_do_not_matter():
    c = np.array([[1.0 + 1e-15, 0.0], [0.0, -1.0 - 1e-15]])
    assert vector_sines(c).tolist() == [0.0, 0.0]
    assert span_sines(c).tolist() == [0.0, 0.0]
    assert principal_angles(c, 2).tolist() == [0.0, 0.0]


def test_matching_undoes_a_permutation_and_survives_gaps():
    rng = np.random.default_rng(0)
    overlaps = np.empty((5, W, W))
    for i in range(5):
        order = rng.permutation(W)
        noisy = np.eye(W)[order] + 0.2 * rng.standard_normal((W, W)) / np.sqrt(W)
        overlaps[i] = noisy * rng.choice([-1.0, 1.0], (1, W))
        np.testing.assert_array_equal(match_modes(overlaps[i]), order)
    assert match_modes(overlaps).shape == (5, W)
    paired = paired_overlaps(overlaps, match_modes(overlaps))
    assert np.abs(paired).min() > 0.5
    np.testing.assert_allclose(vector_sines(overlaps, match_modes(overlaps)), np.sqrt(np.maximum(1 - paired**2, 0)))

    c = np.eye(3)[[1, 0, 2]]
    c[2] = np.nan  # an unresolved mode has no partner
    assert match_modes(c).tolist() == [1, 0, -1]
    assert np.isnan(paired_overlaps(c, match_modes(c))).tolist() == [False, False, True]
    assert match_modes(np.full((2, 2), np.nan)).tolist() == [-1, -1]
    assert match_modes([[0.0, 0.1, 0.9], [0.8, 0.0, 0.0]]).tolist() == [2, 0]
    assert match_modes([[0.2], [0.9]]).tolist() == [-1, 0]  # more modes than partners


def test_matching_follows_a_crossing():
    """Two directions whose strengths cross: by index they turn by 90 degrees, matched they do not turn."""
    axes = frame(np.random.default_rng(1), 2)
    # Rows alternate between the axes; the first axis weakens, the second grows.
    strength = np.stack([np.linspace(3.0, 1.0, 20), np.linspace(1.0, 3.0, 20)], axis=-1)
    x = np.stack([strength[t, t % 2] * axes[:, t % 2] for t in range(20)])
    overlaps, _, _ = overlaps_of(x, 4, 14)
    overlaps = overlaps[:2, :2]
    # Exactly orthogonal rows: sines are 1 or 0 up to the floor of about 1e-7.
    np.testing.assert_allclose(vector_sines(overlaps), 1.0, atol=1e-6)
    np.testing.assert_allclose(vector_sines(overlaps, match_modes(overlaps)), 0.0, atol=1e-6)


@pytest.mark.parametrize("share", [0.9, 1e-1, 1e-2, 1e-3])
def test_the_floor_of_a_sine_covers_rounding(share):
    """The same window twice, in two bases of time: every sine is 0, what is measured is rounding."""
    rng = np.random.default_rng(2)
    sigma = np.r_[1.0, share * np.array([1.0, 0.8, 0.6, 0.4])]
    worst, floors = np.zeros(5), np.zeros(5)
    for _ in range(100):
        u, v, q = frame(rng, 5, 5), frame(rng, 5), frame(rng, 5, 5)
        x = u * sigma @ v.T
        y = q @ x
        a, b = gram_spectrum(x @ x.T), gram_spectrum(y @ y.T)
        overlaps = mode_overlaps(x @ y.T, a.time_profiles, a.singular_values, b.time_profiles, b.singular_values)
        worst = np.maximum(worst, np.sqrt(np.maximum(1 - np.diagonal(overlaps) ** 2, 0)))
        floors = sine_floor(a.singular_values, b.singular_values)
    assert np.all(worst <= floors)
    assert floors[0] < 5e-7
    assert np.isinf(sine_floor([1.0, 0.0], [1.0, 0.0])[1])


def test_known_angles():
    for angle in (1e-3, 0.1, 1.0, np.pi / 2):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(vector_sines(turn), np.sin(angle), rtol=1e-9)
        np.testing.assert_allclose(principal_angles(turn[None], 1), angle, rtol=1e-9)
        np.testing.assert_allclose(span_sines(turn), [np.sin(angle), 0.0], atol=1e-7)


def test_unresolved_modes():
    c = np.eye(3)
    c[2, :] = np.nan
    assert np.isnan(vector_sines(c)).tolist() == [False, False, True]
    assert np.isnan(span_sines(c)).tolist() == [False, False, True]
    assert np.isnan(principal_angles(c, 3)).all()
    assert np.isfinite(principal_angles(c, 2)).all()


def test_tightness_and_vacuous_share():
    assert tightness([0.5, 0.5, 0.0], [1.0, np.inf, 0.0])[:2].tolist() == [0.5, 0.0]
    assert np.isnan(tightness(0.0, 0.0))
    bounds = np.array([[0.5, 2.0], [np.inf, 1.5], [np.nan, np.nan]])
    np.testing.assert_allclose(vacuous_share(bounds), [0.5, 1.0])
    np.testing.assert_allclose(vacuous_share(bounds, [1.0, np.sqrt(4.0)]), [0.5, 0.5])
    assert np.isnan(vacuous_share(np.full(2, np.nan)))


def test_survival_is_guaranteed_along_a_chain():
    """R13: the overlap of first and last span is at least the bound; the product of cosines is none."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        k, steps = 2, 5
        spans = [frame(rng, k, 12)]
        for _ in range(steps):
            spans.append(np.linalg.qr(spans[-1] + 0.1 * rng.standard_normal((12, k)))[0])
        angles = [principal_angles(a.T @ b, k)[-1] for a, b in itertools.pairwise(spans)]
        direct = float(subspace_overlap(spans[0].T @ spans[-1], k))
        assert direct >= survival_bound(angles) - 1e-12
        assert independent_survival(angles) >= survival_bound(angles) - 1e-12
    # One fixed plane, one sense of rotation: the bound is reached and the product is too large.
    step = 0.2
    assert survival_bound(np.full(5, step)) == pytest.approx(np.cos(1.0) ** 2)
    assert independent_survival(np.full(5, step)) > np.cos(1.0) ** 2
    # Beyond 90 degrees in total nothing is guaranteed: cos^2(pi / 2) in float64.
    assert np.all(survival_bound(np.full((3, 10), step)) < 1e-30)


def test_survival_from_bounds_alone():
    """A strong drift: the chain of one-row bounds guarantees part of the leading span, and it is there."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((W + 3, 400)) / 20.0
    x[:, 0] += 10.0
    d = x @ x.T
    bounds = [span_bound(d[t : t + W + 1, t : t + W + 1], W)[0] for t in range(3)]
    guaranteed = survival_bound(np.arcsin(np.minimum(bounds, 1.0)))
    overlaps, _, _ = overlaps_of(x, W, 3)
    assert 0.5 < guaranteed <= subspace_overlap(overlaps, 1)


def test_wrong_settings():
    with pytest.raises(SettingError, match="overlaps must have shape"):
        vector_sines(np.ones(3))
    with pytest.raises(SettingError, match="overlaps must have shape"):
        match_modes(np.ones(3))
    with pytest.raises(SettingError, match=r"k must lie in 1\.\.3"):
        principal_angles(np.eye(3), 4)
