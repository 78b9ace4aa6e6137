"""The split of the validation loss at probes, against explicit gradients and updates."""

from __future__ import annotations

import copy
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from dynamics_runs import Planted, Trained, W, train

from spectraledge.dynamics import loss_decomposition
from spectraledge.dynamics.loss_tests import alpha_tests
from spectraledge.errors import DataError, SettingError

# As for the curvatures: directions of the weakest mode are known to some 1e-8, contributions are of about 1e-4.
CLOSE = {"rtol": 1e-6, "atol": 1e-12}


@pytest.fixture(scope="module")
def noisy() -> Trained:
    return train("sgd", 60, noise=0.3)


@pytest.fixture(scope="module")
def adamw() -> Trained:
    return train("adamw", 60, noise=0.3)


def test_contributions_are_those_of_explicit_vectors(noisy: Trained) -> None:
    found = loss_decomposition(noisy.recording)
    parts = found.decomposition
    probes = [p for p in noisy.recording.probes if p.t + 1 < noisy.recording.n_updates]
    assert found.steps.tolist() == [p.step for p in probes]
    for n, probe in enumerate(probes):
        _, v = noisy.modes(probe.t)
        row = probe.t + 1  # the snapshot at which update t ends
        g, g_train = noisy.gradient(row, "val"), noisy.gradient(row, "train")
        last, ahead = noisy.updates[probe.t], noisy.updates[probe.t + 1]
        np.testing.assert_allclose(found.in_sample[n], (v @ g) * (v @ last), **CLOSE)
        assert found.in_total[n] == pytest.approx(g @ last, rel=1e-9)
        np.testing.assert_allclose(parts.contributions[n], (v @ g) * (v @ ahead), **CLOSE)
        assert parts.first_order[n] == pytest.approx(g @ ahead, rel=1e-9)
        assert parts.coverage[n] == pytest.approx(np.sum((v @ g) * (v @ ahead)) / (g @ ahead), rel=1e-6)
        np.testing.assert_allclose(found.forecasts.plain[n], -0.05 * (v @ g_train) * (v @ g), **CLOSE)
        assert found.predicted["gradients"][n] == pytest.approx(-0.05 * g_train @ g, rel=1e-9)
        assert found.gradient_coverage[n] == pytest.approx(np.sum((v @ g) ** 2) / (g @ g), rel=1e-6)
        later = noisy.gradient(row + 1, "val")
        assert parts.second_order[n] == pytest.approx(0.5 * (later - g) @ ahead, rel=1e-6, abs=1e-12)
        change = noisy.at(row + 1, "val").item() - noisy.at(row, "val").item()
        assert parts.measured[n] == pytest.approx(change, rel=1e-9, abs=1e-14)
    assert np.nanmax(found.in_error) < 1e-12  # the identity, to rounding
    summed = np.nansum(parts.contributions, axis=1)
    assert found.pooled_coverage.value == pytest.approx(summed @ parts.first_order / np.sum(parts.first_order**2))


def test_coefficients_belong_to_the_past(noisy: Trained) -> None:
    found = loss_decomposition(noisy.recording)
    for n, t in enumerate(p.t for p in noisy.recording.probes[:-1]):
        if t >= 2 * W - 1:
            overlaps = np.diag(noisy.modes(t)[1] @ noisy.modes(t - W)[1].T)
            np.testing.assert_allclose(found.forecasts.alpha["overlap2_lagW"][n], overlaps**2, rtol=1e-5, atol=1e-9)
    weighted = found.forecasts.alpha["overlap2_lag1"] * found.forecasts.plain
    assert np.isnan(found.predicted["overlap2_lag1"][0])  # the first probe has no window before its own
    np.testing.assert_allclose(found.predicted["overlap2_lag1"][1:], np.nansum(weighted[1:], axis=1))
    author = loss_decomposition(noisy.recording, mode="author")
    assert set(author.forecasts.alpha) == {"dk_dlam", "dk_f", "half_cos"}


def test_full_batch_descent_leaves_alpha_nothing_to_do() -> None:
    found = loss_decomposition(train("sgd", 60).recording)
    # delta_{t+1} = -lr grad L_train(theta_t), so that the product at alpha = 1 is the contribution itself. On such a
    # smooth path the weakest modes are 1e-5 of the leading one or unresolved: allow 1e-4 of the largest contribution.
    scale = np.nanmax(np.abs(found.decomposition.contributions), axis=1, keepdims=True)
    difference = np.abs(found.forecasts.plain - found.decomposition.contributions)
    assert np.nanmax(difference / scale) < 1e-4
    np.testing.assert_allclose(found.predicted["gradients"], found.decomposition.first_order, rtol=1e-9)
    assert all(test.verdict != "supported" for test in found.alpha_tests.values())


def test_adam_needs_its_own_direction(adamw: Trained) -> None:
    found = loss_decomposition(adamw.recording)
    fits = found.summary()["forecasts"]
    assert next(iter(fits)) == "alpha_1"
    assert 0.8 < fits["direction"]["slope_zero"]["value"] < 1.2  # one batch of noise is a tenth of Adam's average
    assert 0.8 < fits["optimizer"]["slope_zero"]["value"] < 1.2
    assert fits["alpha_1"]["slope_zero"]["value"] > 2.0  # raw gradients are not in units of the update
    assert fits["direction"]["r2_zero"]["value"] > fits["alpha_1"]["r2_zero"]["value"] + 0.2
    assert fits["second_order"]["r2_zero"]["value"] > 0.999
    first = adamw.recording.probes[2]
    row = first.t + 1
    v, g = adamw.modes(first.t)[1], adamw.gradient(row, "val")
    decay = -0.01 * 0.1 * (v @ adamw.theta[row]) * (v @ g)
    without = copy.copy(adamw.recording)
    segment = adamw.recording.meta["segments"][0]
    plain = [{**group, "weight_decay": 0.0} for group in segment["groups"]]
    without.meta = {**adamw.recording.meta, "segments": [{**segment, "groups": plain}]}
    difference = found.forecasts.direction[2] - loss_decomposition(without).forecasts.direction[2]
    np.testing.assert_allclose(difference, decay, rtol=1e-5, atol=1e-12)


def test_fewer_modes_are_kept_on_request(noisy: Trained) -> None:
    found = loss_decomposition(noisy.recording, k=1)
    assert found.decomposition.contributions.shape[1] == 1
    np.testing.assert_allclose(found.predicted["alpha_1"], found.forecasts.plain[:, 0])
    with pytest.raises(SettingError, match=r"k must lie in 1\.\.4"):
        loss_decomposition(noisy.recording, k=5)


def test_planted_worth_of_alpha_is_found() -> None:
    rng = np.random.default_rng(0)
    plain, weighted = rng.normal(size=240), rng.normal(size=240)
    found = SimpleNamespace(weighted={"dk": None})
    noise = 0.1 * rng.normal(size=240)
    for truth, word in ((weighted, "supported"), (plain, "contradicted")):
        tests = alpha_tests(found, {"alpha_1": plain, "dk": weighted}, 1e-6 * (truth + noise), 2, 300, 0)  # type: ignore[arg-type]
        assert tests["dk"].verdict == word
    tests = alpha_tests(found, {"alpha_1": plain, "dk": np.zeros(240)}, plain, 2, 300, 0)  # type: ignore[arg-type]
    assert tests["dk"].nested is None
    assert "nothing to add" in tests["dk"].reason


def test_table_and_summary(noisy: Trained) -> None:
    found = loss_decomposition(noisy.recording)
    table = found.table()
    assert {len(column) for column in table.values()} == {28}
    np.testing.assert_array_equal(table["out_1"], found.decomposition.contributions[:, 0])
    summary = json.loads(json.dumps(found.summary()))
    assert summary["n_probes"] == 28
    assert set(summary["alpha"]) == {"overlap2_lagW", "overlap2_lag1", "dk"}
    assert json.dumps(loss_decomposition(noisy.recording).summary()) == json.dumps(found.summary())


def test_what_is_missing_is_said(noisy: Trained) -> None:
    with pytest.raises(DataError, match=r"--probe-every.*probe=spectraledge\.Probe"):
        loss_decomposition(Planted(n_updates=20).recording())
    with pytest.raises(DataError, match="needs a validation loss"):
        loss_decomposition(train("sgd", 12, val=False).recording)
    unfollowed = copy.copy(noisy.recording)
    unfollowed.probes = [dataclasses.replace(p, next_products=None) for p in noisy.recording.probes]
    with pytest.raises(DataError, match="followed by the next update"):
        loss_decomposition(unfollowed)
    few = loss_decomposition(train("sgd", 12, next_gradients=False).recording)
    assert few.calibration is not None
    assert few.calibration.status != "ok"
    assert "second_order: not known at any probe" in few.notes
    assert np.isnan(few.pooled_coverage.low)
    assert {test.verdict for test in few.alpha_tests.values()} == {"not identifiable"}
