"""Cuts, events and matched comparisons: planted effects are found, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.event_study import event_study
from spectraledge.theory.local_projection import local_projection
from spectraledge.theory.maximality import collapse_events, cut_learning_rates, cut_stability, progress_change
from spectraledge.theory.overlap import subspace_overlap
from spectraledge.theory.sign_flip import sign_flip_p


def test_cut_stability_is_the_overlap_of_every_span() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.linalg.qr(rng.standard_normal((3, 30, 5)))[0] for _ in range(2))
    cosines = np.swapaxes(first, -1, -2) @ second
    found = cut_stability(cosines)
    for k in range(1, 6):
        # Sums of at most 25 squares below 1: rounding of some 1e-16 each.
        np.testing.assert_allclose(found[:, k - 1], subspace_overlap(cosines, k), atol=1e-14)
    cosines[0, 2, :] = np.nan
    assert np.isfinite(cut_stability(cosines)[0]).tolist() == [True, True, False, False, False]
    assert np.isfinite(cut_stability(cosines)[1]).all()
    with pytest.raises(SettingError, match="equal size"):
        cut_stability(np.zeros((2, 3)))


def test_rates_of_a_cut_do_not_see_a_mix_within_its_span() -> None:
    rng = np.random.default_rng(1)
    g, h = rng.standard_normal((2, 6))
    turn = np.eye(6)
    c, s = np.cos(0.7), np.sin(0.7)
    turn[1:3, 1:3] = [[c, -s], [s, c]]  # mixes modes 2 and 3: only cut 2 may change
    change = cut_learning_rates(turn @ g, turn @ h) - cut_learning_rates(g, h)
    np.testing.assert_allclose(np.delete(change, 1), 0.0, atol=1e-14)
    assert abs(change[1]) > 0.01


def test_events_need_a_descent_and_keep_their_distance() -> None:
    gaps = np.array([0.5, 2, 0.5, 2, 0.5, np.nan, 0.5, 2, 2, 0.5])[:, None]
    assert np.flatnonzero(collapse_events(gaps, [1.0])[:, 0]).tolist() == [2, 4, 9]
    assert np.flatnonzero(collapse_events(gaps, [1.0], separation=3)[:, 0]).tolist() == [2, 9]
    # Leading axes and thresholds that vary in time.
    stacked = np.stack([gaps, gaps + 10.0])
    assert collapse_events(stacked, [1.0]).sum(axis=(1, 2)).tolist() == [3, 0]
    assert collapse_events(gaps, np.full(gaps.shape, 3.0)).sum() == 0
    with pytest.raises(SettingError, match="separation"):
        collapse_events(gaps, [1.0], separation=0)


def test_change_of_progress() -> None:
    y = np.array([5.0, 4.0, 3.0, 3.0, 3.0, 3.0])
    np.testing.assert_allclose(progress_change(y, 2)[2:4], [2.0, 1.0])
    np.testing.assert_allclose(progress_change(y, 2, relative_to_past=False)[:4], [-2.0, -1.0, 0.0, 0.0])
    assert np.isnan(progress_change(y, 9)).all()


def records(n_runs: int, effect: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Runs of 60 windows and 5 cuts: rare events at random, progress that a collapse at k* changes."""
    n, cuts = 60, 5
    run = np.repeat(np.arange(n_runs), n)
    events = rng.random((n_runs * n, cuts)) < 0.08
    k_star = 1 + rng.integers(0, cuts, n_runs).repeat(n)
    level = np.exp(0.2 * rng.standard_normal((n_runs * n, cuts)))
    hit = events[np.arange(len(run)), k_star - 1]
    change = rng.standard_normal(len(run)) + effect * hit
    time = np.tile(np.arange(n, dtype=np.float64), n_runs)
    return {"events": events, "change": change, "k_star": k_star, "level": level, "time": time, "run": run}


def test_event_study_finds_a_planted_effect() -> None:
    rng = np.random.default_rng(2)
    found = event_study(**records(8, 3.0, rng), n_permutations=199, rng=rng)
    # sd of one run's mean: some 5 events each with 3 matches, sqrt((1 + 1/3) / 5) = 0.52; over 8 runs 0.18. Where
    # k* fires beside the match the match carries the effect too: at 8 % of matches, so 3 * 0.92 is expected.
    assert abs(found.effect - 2.76) < 3 * 0.2
    assert found.low > 1.0
    assert found.p_value <= 0.01
    assert found.n_runs == 8
    assert np.abs(found.imbalance).max() < 0.5
    assert len(found.differences) == found.n_events


def test_event_study_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    p = [event_study(**records(3, 0.0, rng), n_permutations=39, rng=rng).p_value for _ in range(60)]
    # At level 0.1: 6 of 60 expected, sd sqrt(60 * .1 * .9) = 2.3; 3 sd above is 13.
    assert sum(x <= 0.1 for x in p) <= 13
    assert 0.3 < np.mean(p) < 0.7  # uniform: sd of the mean 0.29 / sqrt(60) = 0.037


def test_event_study_takes_no_match_from_the_same_window() -> None:
    events = np.array([[True, True], [False, False], [False, True]])
    change = np.array([1.0, 0.0, 5.0])
    arguments = (events, change, np.ones(3, dtype=int), np.ones((3, 2)), np.array([0.0, 0.5, 1.0]))
    found = event_study(*arguments, caliper=9.0, n_permutations=9, rng=np.random.default_rng(0))
    assert found.differences.tolist() == [-4.0]
    assert np.isnan(found.low)
    none = event_study(*arguments, caliper=1e-9, n_permutations=9, rng=np.random.default_rng(0))
    assert np.isnan(none.effect)
    assert none.n_unmatched == 1
    with pytest.raises(SettingError, match="1-indexed"):
        event_study(events, change, np.full(3, 3), *arguments[3:], rng=np.random.default_rng(0))


def test_local_projection_finds_the_lead_and_only_it() -> None:
    rng = np.random.default_rng(4)
    n = 400
    gap, alpha = np.zeros(n), np.zeros(n)
    for t in range(1, n):
        gap[t] = 0.8 * gap[t - 1] + rng.standard_normal()
        alpha[t] = 0.5 * alpha[t - 1] + 0.4 * gap[t - 1] + 0.3 * rng.standard_normal()
    norms = rng.standard_normal((n, 2))
    forward = local_projection(alpha, gap, [1, 2], controls=norms, hac_lag=4)
    # h = 1: 0.4. h = 2: 0.4 (0.8 + 0.5) = 0.52; residual sd / (sd of x given y, sqrt(n)): errors of about 0.01, 0.03.
    np.testing.assert_allclose(forward.response, [0.4, 0.52], atol=0.1)
    assert (forward.low > 0).all()
    back = local_projection(gap, alpha, [1, 2], controls=norms, hac_lag=4)
    assert (back.low < 0).all()
    assert (back.high > 0).all()
    with pytest.raises(SettingError, match="horizons"):
        local_projection(gap, alpha, [0], hac_lag=4)


def test_sign_flips_exact_and_drawn() -> None:
    rng = np.random.default_rng(5)
    assert sign_flip_p([1.0] * 8, rng=rng) == 2 / 256
    assert sign_flip_p([1.0, -1.0], rng=rng) == 1.0
    # 13 units of one sign: drawn patterns reach the mean with chance 2 / 2^13.
    assert sign_flip_p([1.0] * 13, n_draws=999, rng=rng) <= 4 / 1000
    assert np.isnan(sign_flip_p([np.nan, 1.0], rng=rng))
    with pytest.raises(SettingError):
        sign_flip_p([], rng=rng)
