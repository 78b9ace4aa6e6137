from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory import gram_spectrum
from spectraledge.theory.synthetic import (
    avoided_crossing,
    coherence_loss,
    constant_drift,
    curvature_change,
    mode_switch_on,
    norm_decay,
    white_noise,
)

W, T, STEP = 10, 80, 45


def spectra(history, normalise=False):
    """Index of the last update, and singular values, of every window."""
    x = history.updates
    if normalise:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = x @ x.T
    ends = np.arange(W - 1, len(d))
    grams = np.stack([d[e - W + 1 : e + 1, e - W + 1 : e + 1] for e in ends])
    return ends, gram_spectrum(grams).singular_values


def second_mode(history):
    ends, sigma = spectra(history, normalise=True)
    return ends, sigma[:, 1] / sigma[:, 2]


def dominance(history):
    ends, sigma = spectra(history, normalise=True)
    return ends, sigma[:, 0] ** 2 / W


def quiet(seed):
    rng = np.random.default_rng(seed)
    return [white_noise(T, rng=rng), constant_drift(T, drift=2.0, rng=rng), norm_decay(T, drift=2.0, rng=rng)]


@pytest.mark.parametrize("seed", range(5))
def test_switch_on_shows_as_mode_two_of_the_windows_that_hold_it(seed):
    history = mode_switch_on(T, STEP, rng=np.random.default_rng(seed))
    assert history.step == STEP
    ends, ratio = second_mode(history)
    threshold = max(second_mode(h)[1].max() for s in range(20, 30) for h in quiet(s))
    fired = ends[ratio > threshold]
    assert fired[0] in range(STEP, STEP + W - 1)
    assert fired[-1] < STEP + W
    assert ends[ratio.argmax()] in range(STEP + 2, STEP + W - 2)


def test_a_threshold_from_quiet_runs_stays_silent_on_quiet_runs():
    limit = 1.5 * max(second_mode(h)[1].max() for s in range(20, 30) for h in quiet(s))
    for seed in range(40, 50):
        for history in quiet(seed):
            assert history.step is None
            assert second_mode(history)[1].max() < limit


def test_norm_decay_changes_norms_only():
    history = norm_decay(T, decay=0.05, rng=np.random.default_rng(1))
    same = constant_drift(T, rng=np.random.default_rng(1))
    _, decayed = spectra(history, normalise=True)
    _, steady = spectra(same, normalise=True)
    np.testing.assert_allclose(decayed, steady, rtol=1e-9)
    norms = np.linalg.norm(history.updates, axis=1) / np.linalg.norm(same.updates, axis=1)
    np.testing.assert_allclose(norms[1:] / norms[:-1], 0.95, rtol=1e-12)


def test_avoided_crossing_has_its_smallest_width_at_the_step_and_swaps_directions():
    slow = avoided_crossing(400, 200, rate=0.01, noise=0.0, rng=np.random.default_rng(2))
    ends, sigma = spectra(slow)
    width = sigma[:, 0] - sigma[:, 1]
    centre = ends - (W - 1) / 2
    # Directions turn by 0.025 per update at the crossing: the window's cosine of 0.1 rad costs about a percent, and
    # windows that start on the other mode shift the two strengths by one update each.
    expected = np.sqrt(W / 2) * 2 * np.hypot(0.01 * (centre - 200), 0.2)
    np.testing.assert_allclose(width, expected, rtol=0.06)
    assert abs(centre[width.argmin()] - 200) <= 3

    history = avoided_crossing(T, STEP, noise=0.0, rng=np.random.default_rng(2))
    ends, sigma = spectra(history)
    centre = ends[(sigma[:, 0] - sigma[:, 1]).argmin()] - (W - 1) / 2
    assert abs(centre - STEP) <= 2
    unit = history.updates / np.linalg.norm(history.updates, axis=1, keepdims=True)
    assert abs(unit[0] @ unit[T - 2]) < 0.1  # both updates of the upper mode, far on either side
    assert abs(unit[0] @ unit[T - 1]) > 0.99  # the upper mode became the lower one
    np.testing.assert_allclose(np.sum(unit[:-1] * unit[1:], axis=1), 0.0, atol=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_avoided_crossing_is_found_in_noise(seed):
    ends, sigma = spectra(avoided_crossing(T, STEP, rng=np.random.default_rng(seed)))
    end = ends[(sigma[:, 0] - sigma[:, 1]).argmin()]
    assert STEP <= end <= STEP + W


@pytest.mark.parametrize("seed", range(5))
def test_coherence_loss_is_found(seed):
    history = coherence_loss(T, STEP, rng=np.random.default_rng(seed))
    unit = history.updates
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-12)
    overlaps = np.sum(unit[1:] * unit[:-1], axis=1)
    np.testing.assert_allclose(overlaps[: STEP - 1], 0.99, rtol=1e-9)
    np.testing.assert_allclose(overlaps[STEP - 1 :], 0.5, rtol=1e-9)
    ends, share = dominance(history)
    fired = ends[share < 0.85]  # AR(1) at .99 has 9.68 of 10 in its first mode, at .5 2.68
    assert STEP <= fired[0] < STEP + W
    assert share[ends < STEP].min() > 0.9


def test_curvature_change_shows_in_the_energy_of_the_window():
    history = curvature_change(T, STEP, rng=np.random.default_rng(3))
    energy = np.sum(history.updates**2, axis=1)
    jump = energy[1:] / energy[:-1]
    assert jump.argmax() + 1 == STEP


def test_gram_is_that_of_the_updates_and_draws_are_reproducible():
    one, two = (mode_switch_on(20, 10, rng=np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.updates, two.updates)
    np.testing.assert_allclose(one.gram, one.updates @ one.updates.T)
    assert one.gram.shape == (20, 20)


def test_wrong_settings():
    rng = np.random.default_rng(0)
    with pytest.raises(SettingError, match="planted step must lie in"):
        mode_switch_on(20, 20, rng=rng)
    with pytest.raises(SettingError, match="at least 1 update"):
        white_noise(0, rng=rng)
