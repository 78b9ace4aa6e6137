"""Spectra and gaps of a recording: the numbers of theory, on the right windows, with the right null."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from recording_reference import ExplicitRun, small_run

from spectraledge.errors import SettingError
from spectraledge.recording import Gap, Spectra
from spectraledge.theory.gap import gap_position
from spectraledge.theory.noise import momentum_row_correlation

RECORDING = small_run().recording()


def noise_run(momentum: float | None, n_updates: int = 60, p: int = 400, every: int = 10) -> ExplicitRun:
    """Pure noise through an exponential average of coefficient ``momentum``, seen every ``every`` steps."""
    rng = np.random.default_rng(7)
    beta = momentum or 0.0
    state, updates = rng.normal(size=p) / np.sqrt(1 - beta**2), np.zeros((n_updates, p))
    for t in range(n_updates):
        for _ in range(every):
            state = beta * state + rng.normal(size=p)
            updates[t] += state
    return ExplicitRun(updates, {"all": p}, lags=19, every=every, momentum=momentum)


def test_types_and_shapes():
    spectra = RECORDING.spectra(window=4, block="a.*")
    assert isinstance(spectra, Spectra)
    n = len(spectra.steps)
    assert spectra.singular_values.shape == spectra.resolved.shape == (n, 4)
    assert spectra.time_profiles.shape == spectra.gram.shape == (n, 4, 4)
    assert spectra.floor.shape == spectra.trace.shape == spectra.g23.shape == (n,)
    assert (spectra.window, spectra.stride, spectra.block) == (4, 1, "a.*")
    assert isinstance(spectra.gap(), Gap)
    np.testing.assert_array_equal(spectra.gap().steps, spectra.steps)


@pytest.mark.parametrize("rule", ["guarded", "plain", "weighted", "difference"])
def test_gap_of_every_rule(rule):
    spectra = RECORDING.spectra(window=5)
    gap, s = spectra.gap(rule), spectra.singular_values
    assert gap.rule == rule
    np.testing.assert_array_equal(gap.position, gap_position(s, rule=rule, floor=spectra.floor))
    k = gap.position - 1
    upper, lower = (np.take_along_axis(s, i[:, None], axis=1)[:, 0] for i in (k, k + 1))
    np.testing.assert_array_equal(gap.ratio, upper / lower)
    np.testing.assert_array_equal(gap.width, upper - lower)
    np.testing.assert_allclose(gap.eigen_width, upper**2 - lower**2, rtol=1e-12)


def test_summaries_of_the_spectrum():
    spectra = RECORDING.spectra(window=5)
    s = spectra.singular_values
    np.testing.assert_allclose(spectra.trace, np.trace(spectra.gram, axis1=1, axis2=2), rtol=1e-12)
    np.testing.assert_allclose(spectra.participation_ratio, (s**2).sum(1) ** 2 / (s**4).sum(1), rtol=1e-12)
    np.testing.assert_allclose(spectra.g23, s[:, 1] ** 2 - s[:, 2] ** 2, rtol=1e-12)
    np.testing.assert_allclose(spectra.ratios, s[:, :-1] / s[:, 1:], rtol=1e-12)
    rows = np.linalg.norm(small_run().updates, axis=1)
    np.testing.assert_allclose(spectra.norms[4], rows[4:9], rtol=1e-12)
    np.testing.assert_allclose((spectra.norms**2).sum(axis=1), spectra.trace, rtol=1e-12)


def test_unknown_rule():
    with pytest.raises(SettingError, match="rule must be one of"):
        RECORDING.spectra(3).gap("largest")


def test_floor_follows_the_precision_of_the_updates():
    single = small_run(update_dtype="float32").recording()
    assert single.update_eps == 2.0**-24
    assert RECORDING.update_eps == 2.0**-53
    assert (single.spectra(3).floor >= RECORDING.spectra(3).floor).all()


def test_a_measured_error_of_updates_counts_as_their_rounding():
    single = small_run(update_dtype="float32").recording()
    norm2 = single.products[:, :, 0]
    errors = np.where(np.arange(len(norm2))[:, None] == 2, 1e-4, 1e-6) * norm2
    half = dataclasses.replace(single, error_norm2=errors)
    assert half.update_eps == pytest.approx(1e-2 + 2.0**-24)
    # windows of their own take their own errors, and those of float32 besides
    expected = single.spectra(3).floor + np.sqrt(
        np.lib.stride_tricks.sliding_window_view(errors[:, 0], 3).sum(axis=1)
    )
    np.testing.assert_allclose(half.spectra(3).floor, expected, rtol=1e-12)


def test_an_update_of_zero_leaves_modes_unresolved():
    run = small_run()
    run.updates[3:5] = 0
    spectra = run.recording().spectra(window=2)
    assert spectra.gap().position[3] == 0  # updates 3 and 4
    assert np.isnan(spectra.gap().ratio[3])
    assert not spectra.resolved[3].any()


def test_effective_dimension_of_isotropic_noise():
    # P_eff = P = 400 here; from 20 rows (153 degrees of freedom) its relative sd is sqrt(2/153) = 11 %, and
    # the mean over 41 overlapping windows is better than that.
    spectra = noise_run(None).recording().spectra(window=10)
    assert np.mean(spectra.p_eff[10:]) == pytest.approx(400, rel=0.2)


def test_p_values_know_the_momentum_of_the_optimizer():
    run = noise_run(0.9)
    spectra = run.recording().spectra(window=10)
    np.testing.assert_allclose(spectra.row_correlation[0], momentum_row_correlation(0.9, 10, 20))
    p = spectra.gap().p_value
    assert np.isfinite(p[10:]).all()
    # Pure noise: windows 10 apart share no row, 5 of them; P(all below 0.05) = 3e-7, P(any <= 0.005) = 2.5 %.
    disjoint = p[10::10]
    assert disjoint.max() > 0.05
    # The same updates taken for independent rows look like a signal nearly always (R4b).
    run.momentum = None
    careless = run.recording().spectra(window=10).gap().p_value
    assert np.median(careless[10:]) < 0.05 < np.median(p[10:])


def test_p_values_are_the_same_every_time_and_computed_on_demand():
    recording = noise_run(None, n_updates=24).recording()
    gap = recording.spectra(window=5).gap()
    assert "p_value" not in vars(gap)
    assert gap.p_value is gap.p_value
    np.testing.assert_array_equal(gap.p_value, recording.spectra(window=5).gap().p_value)
    assert not np.array_equal(gap.p_value, recording.spectra(window=5).gap(seed=1).p_value)
    finite = gap.p_value[np.isfinite(gap.p_value)]
    assert finite.min() >= 1 / 200
    assert recording.spectra(window=5).gap(n_draws=19).p_value[12] >= 1 / 20


def test_a_planted_direction_has_a_small_p_value():
    run = noise_run(None)
    run.updates[:, 0] += 30 * np.sign(np.sin(np.arange(60)))  # noise of one update has norm 63
    run.updates[:, 1] += 100
    assert run.recording().spectra(window=10).gap().p_value[20] == 1 / 200


def test_no_effective_dimension_no_p_value():
    spectra = small_run(n_updates=10, lags=3).recording().spectra(window=2)
    assert np.isnan(spectra.p_eff).all()
    assert np.isnan(spectra.gap().p_value).all()
    # with momentum 0.9 at one step an update no pair of rows in the band is independent
    persistent = noise_run(0.9, n_updates=30, every=1).recording().spectra(window=10)
    assert np.isnan(persistent.p_eff).all()


def test_coarse_rows_carry_the_correlation_of_their_own_length():
    recording = noise_run(0.9).recording()
    np.testing.assert_allclose(
        recording.spectra(window=5, stride=2).row_correlation[0], momentum_row_correlation(0.9, 20, 10)
    )


def test_windows_with_a_hole_are_nan_and_nothing_else_is():
    run = small_run()
    recording = run.recording()
    recording.products[10] = np.nan
    spectra = recording.spectra(window=4)
    bad = np.array([10 in range(n, n + 4) for n in range(len(spectra.steps))])
    np.testing.assert_array_equal(np.isnan(spectra.singular_values).all(axis=1), bad)
    np.testing.assert_array_equal(np.isnan(spectra.floor), bad)
    gap = spectra.gap()
    np.testing.assert_array_equal(gap.position == 0, bad)
    assert np.isnan(gap.p_value[bad]).all()
    assert not spectra.resolved[bad].any()
