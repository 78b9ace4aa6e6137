"""Curvature at probes, against explicit Hessian products."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
from dynamics_runs import Planted, Trained, W, train

from spectraledge.dynamics import curvature
from spectraledge.dynamics.curvature import pooled_slope, slope_verdict
from spectraledge.dynamics.optimizer import block_decay, block_rates, optimizer_facts
from spectraledge.errors import DataError
from spectraledge.theory.bootstrap import BootstrapInterval

# Products with H are exact to rounding; the weakest mode has sigma_4 / sigma_1 of about 1e-3 or more, so that its
# direction, from a Gram in float64, is known to some 1e-8.
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


@pytest.fixture(scope="module")
def sgd() -> Trained:
    return train("sgd", 60, noise=0.3)


@pytest.fixture(scope="module")
def adamw() -> Trained:
    return train("adamw", 40, noise=0.3)


def test_curvatures_and_strengths_are_those_of_explicit_vectors(sgd: Trained) -> None:
    found = curvature(sgd.recording)
    assert found.steps.tolist() == [p.step for p in sgd.recording.probes] == list(range(4, 62, 2))
    for n, probe in list(enumerate(sgd.recording.probes))[::7]:
        sigma, v = sgd.modes(probe.t)
        np.testing.assert_allclose(found.strength[n], sigma, rtol=1e-8)
        for j in range(W):
            assert found.mode[n, j] == pytest.approx(
                v[j] @ sgd.hessian_product(probe.t + 1, v[j]), rel=1e-6, abs=1e-8
            )
        rows = sgd.updates[probe.t - W + 1 : probe.t + 1]
        for i, d in enumerate(probe.direction_kind("span")):
            vector = probe.coefficients[d][::-1] @ rows
            assert np.linalg.norm(vector) == pytest.approx(1.0)
            h = vector @ sgd.hessian_product(probe.t + 1, vector)
            assert found.span[n, i] == pytest.approx(h, rel=1e-6, abs=1e-8)
            assert found.span_strength[n, i] == pytest.approx(np.linalg.norm(rows @ vector), rel=1e-8)
        hessian = np.stack([sgd.hessian_product(probe.t + 1, e) for e in np.eye(len(v[0]))])
        # Lanczos stops within its own error bound
        assert abs(found.eigenvalues[n, 0] - np.linalg.eigvalsh(hessian)[-1]) <= found.eigenvalue_errors[n, 0] + 1e-8


def test_plain_descent_is_its_own_metric(sgd: Trained) -> None:
    found = curvature(sgd.recording)
    np.testing.assert_allclose(found.preconditioned_mode, found.mode, **CLOSE)
    np.testing.assert_allclose(found.regime, 0.05 * found.mode, **CLOSE)
    assert found.notes == ("29 probes in blocks of 4 that share no update: intervals are too short",)
    n = int(np.flatnonzero((found.mode > 0).all(axis=1))[0])
    x, y = np.log(found.mode[n]), np.log(found.strength[n])
    assert found.slope[n] == pytest.approx(np.polyfit(x, y, 1)[0])
    np.testing.assert_allclose(found.intervals["mode"].value, found.mode.mean(axis=0))
    ratio = found.mode.mean() / found.random.mean()
    assert found.intervals["mode_over_random"].value == pytest.approx(ratio)
    assert found.intervals["mode_over_random"].low < ratio < found.intervals["mode_over_random"].high


def test_adam_is_read_in_its_own_metric_and_with_its_decay(adamw: Trained) -> None:
    found = curvature(adamw.recording)
    np.testing.assert_array_equal(found.weight_decay, 0.1)
    np.testing.assert_allclose(found.regime, 0.01 * (found.preconditioned_mode + 0.1))
    assert (np.abs(found.preconditioned_mode - found.mode) > 0.1).any()


def replant(run: Trained, h_of: object, every: int = 4) -> object:
    """The recording with other curvatures along modes, and with probes whose windows share no update."""
    recording = copy.copy(run.recording)
    probes = []
    for probe in run.recording.probes[::every]:
        sigma = run.modes(probe.t)[0]
        h = probe.curvature.copy()
        h[probe.direction_kind("mode")] = h_of(sigma)  # type: ignore[operator]
        h[probe.direction_kind("span")] = np.random.default_rng(probe.t).uniform(1, 9, 2)
        probes.append(dataclasses.replace(probe, curvature=h, preconditioned_curvature=h))
    recording.probes = probes
    return recording


def test_planted_hierarchies_are_told_apart() -> None:
    run = train("sgd", 100, noise=0.3, probe_every=8)
    inverted = curvature(replant(run, lambda sigma: 3.0 / sigma**2, every=1))  # type: ignore[arg-type]
    assert inverted.intervals["slope"].value == pytest.approx(-0.5)
    np.testing.assert_allclose(inverted.slope, -0.5)
    assert inverted.verdict == "supported"
    upright = curvature(replant(run, lambda sigma: 3.0 * sigma, every=1))  # type: ignore[arg-type]
    assert upright.intervals["slope"].value == pytest.approx(1.0)
    assert upright.verdict == "contradicted"


def test_the_pooled_slope_has_an_intercept_for_each_probe() -> None:
    h = np.random.default_rng(0).uniform(1.0, 9.0, (6, 4))
    level = 10.0 ** np.arange(6)[:, None]  # strengths that change from probe to probe do not tilt the slope
    assert pooled_slope(level / np.sqrt(h), h) == pytest.approx(-0.5)
    h[0, 0], h[1] = -1.0, np.nan
    assert pooled_slope(level / np.sqrt(np.abs(h)), h) == pytest.approx(-0.5)
    assert np.isnan(pooled_slope(np.ones((2, 3)), np.full((2, 3), np.nan)))


def test_verdicts_on_the_slope() -> None:
    def interval(low: float, high: float, n: float = 20.0) -> BootstrapInterval:
        return BootstrapInterval(np.array(0.5 * (low + high)), np.array(low), np.array(high), 0.95, n)

    none, flat = interval(np.nan, np.nan), interval(-0.2, 0.2)
    assert slope_verdict(interval(-0.6, -0.4), flat) == "supported"
    assert slope_verdict(interval(-0.6, -0.4, n=6.0), flat) == "compatible"
    assert slope_verdict(interval(-0.6, -0.4), interval(-0.7, -0.3)) == "uninformative"
    assert slope_verdict(interval(-0.6, 0.4), flat) == "not identifiable"
    assert slope_verdict(interval(-0.1, 0.4), none) == "contradicted"
    assert slope_verdict(interval(-0.1, 0.4, n=6.0), none) == "not identifiable"
    assert slope_verdict(none, none) == "not identifiable"


def test_what_a_recording_says_of_its_optimizer(adamw: Trained) -> None:
    adam = {"class": "Adam", "weight_decay": 0.1, "decoupled_weight_decay": False}
    assert np.isnan(optimizer_facts([adam]).weight_decay)  # through the preconditioner: no single rate
    assert optimizer_facts([{**adam, "weight_decay": 0.0}]).weight_decay == 0.0
    assert optimizer_facts([{"class": "AdamW", "weight_decay": 0.1}]).decoupled
    sgd = {"class": "SGD", "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01}
    assert optimizer_facts([sgd]).gain == pytest.approx(10.0)
    assert optimizer_facts([{**sgd, "dampening": 0.9}]).gain == pytest.approx(1.0)
    mixed = optimizer_facts([{"class": "AdamW", "weight_decay": 0.1}, {"class": "AdamW", "weight_decay": 0.0}])
    assert np.isnan(mixed.weight_decay)
    assert mixed.gain == 1.0
    recording, probe = adamw.recording, adamw.recording.probes[0]
    np.testing.assert_allclose(block_rates(recording, probe, probe.t), [0.01, 0.01])
    np.testing.assert_allclose(block_decay(recording, probe), [0.1, 0.1])
    two = copy.copy(recording)  # two groups of their own rates, one a block
    two.lr_sum = np.repeat([[0.01, 0.03]], recording.n_updates, axis=0)
    groups = [{"class": "AdamW", "weight_decay": 0.1}, {"class": "AdamW", "weight_decay": 0.0}]
    info = {name: {"group": i} for i, name in enumerate(probe.blocks)}
    two.meta = {
        **recording.meta,
        "block_info": info,
        "segments": [{**recording.meta["segments"][0], "groups": groups}],
    }
    np.testing.assert_allclose(block_rates(two, probe, probe.t), [0.01, 0.03])
    np.testing.assert_allclose(block_decay(two, probe), [0.1, 0.0])
    two.meta = {**two.meta, "block_info": {}}
    assert np.isnan(block_rates(two, probe, probe.t)).all()


def test_table_summary_and_mistakes(sgd: Trained) -> None:
    found = curvature(sgd.recording)
    table = found.table()
    assert {len(column) for column in table.values()} == {29}
    np.testing.assert_array_equal(table["mode_2"], found.mode[:, 1])
    summary = json.loads(json.dumps(found.summary()))
    assert summary["n_probes"] == 29
    assert len(summary["mode"]) == W
    assert json.dumps(curvature(sgd.recording).summary()) == json.dumps(found.summary())
    with pytest.raises(DataError, match=r"--probe-every.*probe=spectraledge\.Probe"):
        curvature(Planted(n_updates=20).recording())
    blind = copy.copy(sgd.recording)
    blind.probes = [
        dataclasses.replace(
            p,
            directions=(),
            coefficients=np.empty((0, W)),
            curvature=np.empty(0),
            preconditioned_curvature=np.empty(0),
        )
        for p in sgd.recording.probes
    ]
    with pytest.raises(DataError, match="at least one mode"):
        curvature(blind)
