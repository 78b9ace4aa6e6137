"""Maximality on a run: thresholds keep their level, rates are projections, and few events are called few."""

from __future__ import annotations

import numpy as np
import pytest
from planted_recordings import noise, planted, probe, svd

from spectraledge.dynamics.cut_study import maximality_verdict
from spectraledge.dynamics.draws import window_draws
from spectraledge.dynamics.maximality import maximality
from spectraledge.dynamics.stretches import stretches
from spectraledge.dynamics.timeline import metric_at, outcome_names, row_rates
from spectraledge.errors import DataError, SettingError
from spectraledge.recording import Recording
from spectraledge.theory.event_study import EventStudy
from spectraledge.theory.gap import gap_position
from spectraledge.theory.maximality import collapse_events, cut_stability

W = 6


def drifting(n: int = 150, seed: int = 0, size: int = 300) -> np.ndarray:
    return noise(n, size, np.random.default_rng(seed)) + 0.8 * np.eye(size)[0]


def recorded(x: np.ndarray, **options: object) -> Recording:
    n = len(x)
    return planted(x, lags=11, metrics={"test_loss": np.exp(-np.arange(n + 1) / n)}, **options)  # type: ignore[arg-type]


def test_thresholds_keep_their_level_and_events_follow_from_them() -> None:
    x = drifting()
    found = maximality(recorded(x), W, n_draws=199, n_permutations=99)
    assert found.ratio.shape == (145, W - 1)
    # Stationary drift and noise: 5 % of ratios lie below. 145 overlapping windows hold some 24 disjoint ones, 120
    # cuts of these: sd sqrt(0.05 * 0.95 / 120) = 0.02, thrice that.
    assert np.mean(found.ratio < found.threshold) == pytest.approx(0.05, abs=0.06)
    np.testing.assert_array_equal(found.events, collapse_events(found.ratio, found.threshold, separation=W))
    k = gap_position(np.array([svd(x[i : i + W])[0] for i in range(145)]))
    np.testing.assert_array_equal(found.k_star[W:], k[:-W])
    assert (found.k_star[:W] == 0).all()
    assert found.horizon == 2 * W
    _, before = svd(x[20 : 20 + W])
    _, after = svd(x[20 + W : 20 + 2 * W])
    shared = cut_stability(after.T @ before)
    np.testing.assert_allclose(found.stability[20 + W], shared[:-1], atol=1e-9)
    assert found.most_stable > 0.8  # one lasting direction, k* = 1
    assert {len(column) for column in found.table().values()} == {145}


def test_a_single_run_with_one_position_is_not_enough() -> None:
    found = maximality(recorded(drifting()), W, n_permutations=99)
    (study,) = found.studies
    assert study.outcome == "test_loss"
    assert study.verdict == "not identifiable"
    assert study.status.startswith("too few")
    assert found.rows()[0]["n_events"] == study.found.n_events
    assert found.summary()["events_at_k_star"] == found.at_k_star.sum()


def test_collapse_of_a_lasting_direction_is_an_event_at_k_star() -> None:
    x = drifting(160, seed=1)
    off = np.arange(80, 80 + W)
    x[off, 0] -= 0.8  # no lasting direction for one window
    found = maximality(recorded(x), W, n_permutations=19)
    inside = (found.steps >= 810) & (found.steps <= 860)
    assert found.at_k_star[inside].sum() == 1
    assert found.events[inside, 0].sum() == 1


@pytest.mark.parametrize(
    ("effect", "p", "smallest", "n", "rises", "word"),
    [
        (1.0, 0.01, 0.01, 8, False, "supported"),
        (-1.0, 0.01, 0.01, 8, True, "supported"),
        (1.0, 0.3, 0.01, 8, False, "compatible"),
        (-1.0, 0.01, 0.01, 8, False, "contradicted"),
        (-1.0, 0.3, 0.01, 8, False, "not identifiable"),
        (1.0, 0.01, 0.2, 8, False, "not identifiable"),
        (1.0, 0.01, 0.01, 4, False, "not identifiable"),
        (1.0, np.nan, 0.01, 8, False, "not identifiable"),
    ],
)
def test_verdicts(effect: float, p: float, smallest: float, n: int, rises: bool, word: str) -> None:
    study = EventStudy(effect, np.nan, np.nan, p, n, 0, 20, 1, np.zeros(2), np.zeros(n))
    assert maximality_verdict(study, smallest, rises) == word


def test_learning_rate_of_the_dominant_span() -> None:
    x = drifting(60, seed=2)
    rng = np.random.default_rng(3)
    train, val = rng.standard_normal((2, x.shape[1]))
    recording = recorded(x)
    recording.probes = [probe(recording, t, W, x, train=train, val=val) for t in (19, 39)]
    found = maximality(recording, W, n_draws=19, n_permutations=9)
    assert found.rate_steps.tolist() == [200, 400]
    sigma, v = svd(x[20 - W : 20])
    expected = np.cumsum((v.T @ train) * (v.T @ val))
    # Products through the Gram: rounding of 1e-14 over the smallest sigma^2 of about 0.5.
    np.testing.assert_allclose(found.learning_rate[0], expected, rtol=1e-8)
    k = int(gap_position(sigma))
    assert found.learning_share[0] == pytest.approx(expected[k - 1] / (train @ val), rel=1e-8)
    bare = maximality(recorded(x), W, n_draws=19, n_permutations=9)
    assert bare.learning_rate.size == 0
    assert any("no probes" in note for note in bare.notes)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="horizon"):
        maximality(recorded(drifting(40)), W, horizon=W - 1)
    with pytest.raises(DataError, match="got None"):
        maximality(planted(drifting(40), lags=11), W)
    with pytest.raises(DataError, match="got skill"):
        maximality(recorded(drifting(40)), W, outcome="skill")
    with pytest.raises(DataError, match="whole"):
        maximality(recorded(np.full((40, 3), np.nan)), W)
    narrow = planted(drifting(40), lags=W, metrics={"test_loss": np.ones(41)})
    found = maximality(narrow, W, n_draws=9, n_permutations=9)
    assert any("disjoint windows" in note for note in found.notes)
    assert np.isnan(found.most_stable)


def test_metrics_between_evaluations() -> None:
    recording = planted(drifting(20), metrics={"test_loss": np.arange(21.0), "train_loss": np.ones(21)})
    recording.metrics["val_loss"] = (np.array([100.0]), np.array([1.0]))
    assert outcome_names(recording) == ["test_loss"]
    steps = np.array([-5.0, 15.0, 200.0, 205.0])
    np.testing.assert_allclose(metric_at(recording, "test_loss", steps), [np.nan, 1.5, 20.0, np.nan])
    np.testing.assert_allclose(metric_at(recording, "test_loss", steps, how="last"), [np.nan, 1.0, 20.0, 20.0])
    assert np.isnan(metric_at(recording, "nothing", steps)).all()
    lr, n_steps = row_rates(recording, 2)
    np.testing.assert_allclose([lr[0], n_steps[0], len(lr)], [2.0, 20.0, 10.0])


def test_draws_are_matched_to_places() -> None:
    x = drifting(120)
    x[60:] *= 10.0
    recording = recorded(x)
    draws = window_draws(
        stretches(recording, W),
        lambda grams: np.trace(grams, axis1=-2, axis2=-1),
        size=W,
        window=W,
        n_places=115,
        kind="norm_matched",
        n_draws=5,
        rng=np.random.default_rng(0),
    )
    assert draws is not None
    energy = np.array([np.sum(np.square(x[i : i + W])) for i in range(115)])
    # Surrogates have the run's own norms, row by row: traces agree to rounding at covered places.
    np.testing.assert_allclose(draws.values, np.repeat(energy[draws.covered, None], 5, axis=1), rtol=1e-10)
    assert draws.at_all().shape == (115, 5)
    assert np.abs(draws.covered[draws.nearest] - np.arange(115)).max() <= W
