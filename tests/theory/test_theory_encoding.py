from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from spectraledge.errors import SettingError
from spectraledge.theory.encoding import (
    GAUSSIAN_DENSITY,
    coordinate_density,
    direction_profile,
    rank_one_share,
    stable_rank,
    top_share,
)
from spectraledge.theory.event_rank import event_rank_test


def test_rank_one_share():
    rng = np.random.default_rng(0)
    f = rng.standard_normal((3, 4, 7))
    s = np.linalg.svd(f, compute_uv=False)
    np.testing.assert_allclose(rank_one_share(f), s[:, 0] ** 2 / (s**2).sum(axis=1))
    np.testing.assert_allclose(rank_one_share(np.outer(np.arange(4.0), np.arange(9.0))), 1.0)
    f[1] = 0.0
    f[2, 0, 0] = np.nan
    assert np.isnan(rank_one_share(f)).tolist() == [False, True, True]
    with pytest.raises(SettingError, match="updates by outputs"):
        rank_one_share(np.ones(3))


def test_a_smooth_change_is_nearly_rank_one_without_any_event():
    # The claim's null: a path turning by 1 rad over the window has a share of about 0.92.
    t = np.linspace(0, 1, 11)[:, None]
    path = np.c_[np.sin(t), 1 - np.cos(t)] @ np.random.default_rng(1).standard_normal((2, 50))
    assert rank_one_share(np.diff(path, axis=0)) > 0.85


def test_density_of_gaussian_directions():
    rng = np.random.default_rng(2)
    v = rng.standard_normal((20, 50_000))
    # sum v^4 / P has relative sd sqrt(96 / P) / 3 = 1.5 %; the mean of 20 a quarter of that.
    assert coordinate_density(v).mean() == pytest.approx(GAUSSIAN_DENSITY, rel=0.015)
    z = norm.isf(0.005)
    expected = 2 * (z * norm.pdf(z) + norm.sf(z))
    assert expected == pytest.approx(0.0845, abs=5e-5)
    assert top_share(v).mean() == pytest.approx(expected, rel=0.02)
    assert coordinate_density(np.eye(50)[0]) == pytest.approx(1 / 50)
    assert np.isnan(coordinate_density(np.zeros(4)))
    assert np.isnan(top_share(np.zeros(4)))
    with pytest.raises(SettingError, match="fraction"):
        top_share(v, 0.0)


def test_profile_by_tensor():
    rng = np.random.default_rng(3)
    thin = np.outer(rng.standard_normal(8), rng.standard_normal(6))
    found = direction_profile({"thin": thin, "eye": np.eye(4), "bias": np.zeros(4), "conv": np.ones((2, 3, 3))})
    assert found.stable_rank["thin"] == pytest.approx(1.0)
    assert found.stable_rank["eye"] == pytest.approx(4.0)
    assert found.stable_rank["conv"] == pytest.approx(1.0)
    assert "bias" not in found.stable_rank
    assert sum(found.energy.values()) == pytest.approx(1.0)
    assert sum(found.size.values()) == pytest.approx(1.0)
    assert found.energy["bias"] == 0.0
    flat = np.concatenate([thin.ravel(), np.eye(4).ravel(), np.zeros(4), np.ones(18)])
    assert found.density == pytest.approx(float(coordinate_density(flat)))
    assert np.isnan(stable_rank(np.zeros((2, 2))))
    with pytest.raises(SettingError, match="at least one tensor"):
        direction_profile({})


def series(seed, events=(), n=400, outputs=20):
    """A random walk of outputs whose updates go along one direction around events, and are as long elsewhere."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((n, outputs))
    for t in events:
        steps[t - 4 : t + 4] = rng.choice([-1, 1], (8, 1)) * rng.standard_normal(outputs)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    return np.vstack([np.zeros(outputs), np.cumsum(steps, axis=0)])


def test_planted_events_of_rank_one_are_found():
    found = event_rank_test(series(0, (80, 200, 320)), [80, 200, 320], 8, rng=np.random.default_rng(0))
    assert found.event_shares == pytest.approx(1.0)
    assert found.effect > 0.5
    assert found.p_value == pytest.approx(5.0**-3)  # all 125 assignments counted, this one the largest
    assert found.events.tolist() == [76, 196, 316]
    assert np.abs(found.excess_change).max() < 2.0


def test_nothing_is_found_where_there_is_nothing():
    # Level of a discrete test over 150 series: sd at 5 % is 1.8 points.
    p = [
        event_rank_test(series(seed), [60, 150, 250, 350], 8, rng=np.random.default_rng(seed)).p_value
        for seed in range(1, 151)
    ]
    assert np.mean(np.asarray(p) <= 0.05) < 0.05 + 3.5 * 0.018
    assert np.mean(p) == pytest.approx(0.5, abs=3.5 * 0.29 / np.sqrt(150))


def test_controls_are_disjoint_and_matched():
    f = series(4, (100,))
    f[250:] += np.cumsum(5 * np.diff(f, axis=0)[249:], axis=0)  # much larger changes later: bad controls
    found = event_rank_test(f, [100, 399, 2], 8, n_controls=6, rng=np.random.default_rng(0))
    assert found.left_out == (399, 2)  # windows that leave the series
    assert np.abs(found.excess_change).max() < 1.0
    many = event_rank_test(
        series(5), [50, 100, 150, 200, 250, 300], 8, n_permutations=999, rng=np.random.default_rng(1)
    )
    assert 1 / 1000 <= many.p_value <= 1.0
    again = event_rank_test(
        series(5), [50, 100, 150, 200, 250, 300], 8, n_permutations=999, rng=np.random.default_rng(1)
    )
    assert many.p_value == again.p_value
    with pytest.raises(SettingError, match="disjoint control"):
        event_rank_test(series(6, n=20), [10], 8, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="more snapshots"):
        event_rank_test(series(6, n=20), [10], 30, rng=np.random.default_rng(0))
