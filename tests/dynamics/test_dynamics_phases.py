"""Phases, Krylov counts and the edge: planted ones are found, schedules and noise are not taken for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planted_recordings import SGD, noise, planted, probe, svd

import spectraledge as se
from spectraledge.dynamics.edge import edge
from spectraledge.dynamics.horizon import krylov
from spectraledge.dynamics.phase_surrogates import NullPhases
from spectraledge.dynamics.phases import phase_verdict, phases
from spectraledge.errors import DataError, SettingError
from spectraledge.recording import Recording
from spectraledge.theory.phases import Phases

W = 5
ADAM = {"class": "AdamW", "lr": 0.1, "betas": [0.9, 0.98], "weight_decay": 0.0, "decoupled_weight_decay": True}


def shares(n: int) -> np.ndarray:
    """Energy share of the lasting direction: log-odds rise, stay and fall."""
    t = np.arange(n) / n
    line = 4.0 * np.minimum(t, 0.3) / 0.3 - 4.0 * np.maximum(t - 0.65, 0.0) / 0.35 - 1.0
    return 1.0 / (1.0 + np.exp(-line))


def three_phase_run(n: int = 100, seed: int = 0) -> np.ndarray:
    """Rows of norm about 1 whose coherence rises, stays and falls: nothing in their norms shows it."""
    rng = np.random.default_rng(seed)
    share = shares(n)[:, None]
    return np.sqrt(share) * np.eye(300)[0] + np.sqrt(1.0 - share) * noise(n, 300, rng)


def test_planted_phases_are_supported_and_placed() -> None:
    found = phases(planted(three_phase_run(), lags=9), W, n_draws=39, n_boot=49)
    assert any("constant" in note for note in found.notes)
    at_one = next(r for r in found.readings if r.position == "k=1")
    assert at_one.rows == "raw"
    assert at_one.verdict == "supported"
    assert set(at_one.nulls) == {"schedule", "norms"}
    # Breaks at updates 30 and 65 of 10 steps; a window adds a lag of up to W, its centre W / 2.
    assert np.abs(at_one.phases.breakpoints - [300 + 25, 650 + 25]).max() <= 10 * 1.5 * W
    for row, reading in zip(found.rows(), found.readings, strict=True):
        assert row["verdict"] == reading.verdict
        assert row["break_1_low"] <= row["break_1"] <= row["break_1_high"]
    table = found.table()
    assert len({len(column) for column in table.values()}) == 1
    assert found.summary()["readings"][0]["nulls"]["schedule"]["n_draws"] == 39


def test_a_schedule_is_not_taken_for_phases() -> None:
    rng = np.random.default_rng(1)
    n = 100
    lr = 0.1 * np.interp(np.arange(n), [0, 25, 60, n], [0.02, 1.0, 1.0, 0.02])
    x = (noise(n, 300, rng) + 0.7 * np.eye(300)[0]) * (lr / lr.mean())[:, None]
    found = phases(planted(x, lags=9, lr=lr), W, n_draws=39, n_boot=19)
    assert {reading.rows for reading in found.readings} == {"raw", "lr"}
    assert all(reading.verdict != "supported" for reading in found.readings)
    by_lr = next(r for r in found.readings if r.rows == "lr" and r.position == "k=1")
    assert not by_lr.phases.three_phases


def test_verdicts_of_phases() -> None:
    def fit(three: bool) -> Phases:
        two = np.zeros(2)
        return Phases(three, 2, np.zeros(3), two, two, two, np.zeros(3), np.zeros(9))

    def null(rate: float, p: float) -> NullPhases:
        return NullPhases(rate, 0.0, 1.0, 0.0, p, rate <= 0.2, 99)

    clear, doubtful, empty = {"a": null(0.0, 0.01)}, {"a": null(0.1, 0.3)}, {"a": null(0.5, 0.01)}
    assert phase_verdict(fit(True), clear, 20.0) == "supported"
    assert phase_verdict(fit(True), clear | {"b": null(0.1, 0.3)}, 20.0) == "compatible"
    assert phase_verdict(fit(True), doubtful, 20.0) == "compatible"
    assert phase_verdict(fit(True), empty, 20.0) == "uninformative"
    assert phase_verdict(fit(True), {}, 20.0) == "not identifiable"
    assert phase_verdict(fit(False), clear, 20.0) == "contradicted"
    assert phase_verdict(fit(False), clear, 8.0) == "not identifiable"


def test_author_mode_names_phases_in_noise() -> None:
    found = phases(planted(noise(60, 50, np.random.default_rng(2)), lags=9), W, mode="author")
    assert [reading.position for reading in found.readings] == ["k*", "k=2"]
    assert all(reading.verdict is None for reading in found.readings)
    thesis = found.rows()[0]["shares"]
    assert min(thesis["rise"], thesis["collapse"]) > 0.2
    assert "phase" in found.table()


def test_phases_use_the_longest_stretch_and_refuse_short_ones() -> None:
    x = three_phase_run(80)
    x[20] = np.nan
    found = phases(planted(x, lags=9), W, n_draws=9, n_boot=9)
    assert found.readings[0].steps[0] == (21 + W) * 10  # first whole window after the hole
    x[10::10] = np.nan
    with pytest.raises(DataError, match="stretch of 10 whole windows"):
        phases(planted(x, lags=9), W)
    with pytest.raises(SettingError, match="mode"):
        phases(planted(x, lags=9), W, mode="loose")
    unknown = phases(planted(three_phase_run(60), lags=9, lr=np.nan), W, n_draws=9, n_boot=9)
    assert any("no learning rate" in note for note in unknown.notes)
    assert "schedule" not in unknown.readings[0].nulls


def with_probes(eigenvalues: list[list[float]], ks: list[int], window: int = 10, **options: Any) -> Recording:
    """Windows with a gap at the given positions: k strong orthogonal rows, the others weak."""
    rows = []
    for k in ks:
        size = np.r_[np.full(k, 3.0), np.full(window - k, 1.0)]
        rows.append(np.diag(size)[:, :window])
    x = np.concatenate(rows)
    recording = planted(x, **options)
    for i, values in enumerate(eigenvalues):
        t = (i + 1) * window - 1
        name = "preconditioned_eigenvalues" if options.get("group") is ADAM else "eigenvalues"
        recording.probes.append(probe(recording, t, window, x, **{name: np.array(values)}))
    return recording


def test_krylov_counts_steps_gain_and_decay() -> None:
    # eta_eff s W = 0.1 * 10 * 10 = 10 for plain SGD: active from h = 0.05, 0.1 and 0.2 on.
    h = [5.0, 0.15, 0.07, 0.01, -1.0]
    plain = krylov(with_probes([h], [2], group=SGD))
    assert plain.source == "eigenvalues"
    np.testing.assert_array_equal(plain.counts, [[3, 2, 1]])
    assert plain.k_star.tolist() == [2]
    heavy = krylov(with_probes([h], [2], group={**SGD, "momentum": 0.9}))
    assert heavy.lr[0] == pytest.approx(1.0)  # ten times as far: from h = 0.005, 0.01 and 0.02 on
    np.testing.assert_array_equal(heavy.counts, [[4, 4, 3]])
    decayed = krylov(with_probes([h], [2], group={**SGD, "weight_decay": 0.1}))
    np.testing.assert_array_equal(decayed.counts, [[4, 4, 2]])
    # Published form: eta W = 1, no stride, no gain: h from 0.5, 1 and 2 on.
    author = krylov(with_probes([h], [2], group={**SGD, "momentum": 0.9}), mode="author")
    np.testing.assert_array_equal(author.counts, [[1, 1, 1]])
    adam = krylov(with_probes([h], [2], group=ADAM))
    assert adam.source == "preconditioned eigenvalues"
    np.testing.assert_array_equal(adam.counts, [[3, 2, 1]])


def test_krylov_verdicts() -> None:
    small, many = [5.0, 0.01, 0.001], [50.0] * 8 + [0.001]
    violated = krylov(with_probes([small] * 8, [3, 4] * 4, lags=19))
    assert violated.testable[:, 1].all()
    assert violated.violated.value.tolist() == [1.0, 1.0, 1.0]
    assert violated.verdict == "contradicted"
    assert np.isnan(violated.correlation.value).all()  # K_s never changes
    held = krylov(with_probes([small, small[1:]] * 4, [2, 1] * 4))
    assert held.verdict == "compatible"
    assert held.correlation.value[1] == pytest.approx(1.0)
    assert held.rows()[1]["violated"] == 0.0
    loose = krylov(with_probes([many] * 8, [3] * 8))
    assert loose.verdict == "not testable"
    assert loose.summary()["thresholds"][1]["testable"] == 0.0
    # All listed eigenvalues are active: there may be more, so that 1 + K_s is no limit.
    assert krylov(with_probes([[5.0]] * 8, [4] * 8)).verdict == "not testable"
    x = np.concatenate([np.diag(np.r_[3.0, 3.0, 3.0, np.ones(7)])] * 4)
    recording = planted(x)
    recording.probes = [probe(recording, 10 * i + 9, 10, x, curvature=[0.01, 0.01]) for i in range(4)]
    modes = krylov(recording)
    assert modes.source == "curvature of modes"
    assert modes.verdict == "not identifiable"  # a violation, but a mode may have been missed
    with pytest.raises(DataError, match="probes"):
        krylov(planted(x))
    recording.probes = [probe(recording, 9, 10, x)]
    with pytest.raises(DataError, match="eigenvalues=5"):
        krylov(recording)


def test_sharpness_over_the_limit_of_each_optimizer() -> None:
    for group, limit in (
        (SGD, 20.0),
        ({**SGD, "momentum": 0.9}, 38.0),
        ({**SGD, "weight_decay": 1.0}, 19.0),
        (ADAM, 380.0),
        ({**ADAM, "weight_decay": 1.0}, 19.0 * (2.0 - 0.1) / 0.1),
    ):
        recording = with_probes([[limit, 1.0], [0.5 * limit, 1.0]], [2, 2], group=group)
        if "betas" in group:
            recording = with_probes([], [2, 2], group=group)
            x = np.ones((20, 10))
            recording.probes = [
                probe(recording, 9, 10, x, preconditioned_eigenvalues=np.array([limit])),
                probe(recording, 19, 10, x, preconditioned_eigenvalues=np.array([0.5 * limit])),
            ]
        found = edge(recording)
        np.testing.assert_allclose(found.ratio, [1.0, 0.5], rtol=1e-12)
        assert found.status.startswith("needs every=1")
        assert found.rows() == []
    unknown = edge(with_probes([[1.0]], [2, 2], group={"class": "Lion", "lr": 0.1}))
    assert np.isnan(unknown.ratio).all()
    assert any("limit is known" in note for note in unknown.notes)


def test_alternation_is_that_of_a_mode_at_rest() -> None:
    rng = np.random.default_rng(3)
    n, size, h = 1500, 30, 15.0  # lr h = 1.5: lag-1 correlation -0.75
    theta, updates = 0.0, np.zeros((n, size))
    kicks = rng.standard_normal(n)
    for t in range(n):
        step = -0.1 * (h * theta + kicks[t])
        updates[t, 0] = step
        theta += step
    updates += 1e-3 * noise(n, size, rng)
    recording = planted(updates, every=1, lags=19)
    recording.probes = [probe(recording, 99, W, updates, curvature=[h], eigenvalues=np.array([h]))]
    found = edge(recording, W, n_boot=300)
    assert found.status == "measured"
    assert found.predicted[0] == pytest.approx(-0.75)
    # sd (1 - r^2) / sqrt(n) = 0.011 for 1400 pairs, thrice that, and the bias of pairs cut at the ends of the
    # stretches, none.
    assert found.alternation.value[0] == pytest.approx(-0.75, abs=0.035)
    assert found.alternation.low[0] < found.alternation.value[0] < found.alternation.high[0]
    assert found.flips[0] > 0.7
    assert found.ratio[0] == pytest.approx(0.75)
    assert found.summary()["beyond"] == 0.0
    assert len(found.table()["ratio"]) == 1
    narrow = edge(planted(updates[:60], every=1, lags=W + 1), W)
    assert narrow.status.startswith(f"needs {W + 3} lags")


def test_edge_and_krylov_on_a_real_run() -> None:
    recording = se.run(
        "quadratic",
        seed=3,
        settings={"optimizer": "sgd", "lr": 0.1, "steps": 120, "eigenvalues": "15,1.2,0.02", "noise": 0.01},
        every=1,
        window=W,
        lags=14,
        probe_every=40,
        probe={"eigenvalues": 2, "modes": 1, "span": 0, "random": 0},
    )
    found = edge(recording, W, n_boot=100)
    # lr h = 1.5 of 2; differences of gradients of a quadratic are exact to rounding, Lanczos to its error bound.
    np.testing.assert_allclose(found.ratio, 0.75, rtol=1e-6)
    assert found.status == "measured"
    assert found.alternation.high[0] < 0.0
    counted = krylov(recording, n_boot=50)
    # lr s W = 0.5: h = 15 is active at every threshold, h = 1.2 at 1/2 only.
    np.testing.assert_array_equal(counted.counts, np.tile([2.0, 1.0, 1.0], (len(found.ratio), 1)))


def test_noise_does_not_alternate() -> None:
    found = edge(planted(noise(600, 40, np.random.default_rng(6)), every=1), W, n_boot=200)
    # 39 stretches of 14 pairs: sd of a correlation of independent numbers 1 / sqrt(550) = 0.043; thrice that.
    assert np.abs(found.alternation.value).max() < 0.13
    assert np.abs(found.flips - 0.5).max() < 0.065
    assert np.isnan(found.predicted).all()


def test_direction_of_the_window_is_used() -> None:
    """The pooled correlation of a brute-force computation."""
    rng = np.random.default_rng(4)
    x = noise(40, 20, rng) * np.r_[3.0, np.ones(19)]
    lags = 9
    found = edge(planted(x, every=1, lags=lags), W, n_boot=20)
    reach = lags + 1 - W
    top, left, right = 0.0, 0.0, 0.0
    for end in range(W, 40 - reach + 1, reach):
        _, v = svd(x[end - W : end])
        y = x[end : end + reach] @ v[:, 0]
        top, left, right = top + y[:-1] @ y[1:], left + y[:-1] @ y[:-1], right + y[1:] @ y[1:]
    assert found.n_stretches == (40 - W) // reach
    assert found.alternation.value[0] == pytest.approx(top / np.sqrt(left * right), rel=1e-9)
