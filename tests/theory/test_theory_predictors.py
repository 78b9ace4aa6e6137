from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory import cyclic_change, synthetic
from spectraledge.theory.forecast import compare_predictors, forward_chain
from spectraledge.theory.gap_flow import gap_closed_form
from spectraledge.theory.predictors import (
    Ar1,
    Drift,
    ExactRankTwo,
    GapFlow,
    Persistence,
    RankTwo,
    SignalFlow,
)
from spectraledge.theory.signal_flow import flow_coefficients
from spectraledge.theory.window_series import full_gram_windows, future, quantity, window_series

W = 5
ALL = [
    Persistence(),
    Ar1(),
    Drift(),
    RankTwo(),
    RankTwo(order=0, name="rank2_exact"),
    RankTwo(order=2, name="rank2_second_order"),
]


def record(n=80, seed=0, drift=1.0):
    gram = synthetic.constant_drift(n, drift=drift, rng=np.random.default_rng(seed)).gram
    return window_series(*full_gram_windows(gram, W))


@pytest.mark.parametrize("horizon", [1, 3, W, W + 2])
def test_exact_oracles_are_the_truth(horizon):
    windows = record()
    truth = future(windows.singular_values, horizon)
    for oracle in (ExactRankTwo(), RankTwo(rows="realised", order=0)):
        assert oracle.oracle
        np.testing.assert_allclose(oracle.predict(windows, horizon), truth, rtol=1e-9)


def test_first_order_oracle_is_the_formula():
    windows = record()
    u, sigma = windows.time_profiles[:-1], windows.singular_values[:-1]
    change = cyclic_change(windows.blocks, W)
    expected = sigma**2 + np.einsum("naj,nab,nbj->nj", u, change, u)
    got = RankTwo(rows="realised").predict(windows, 1)
    np.testing.assert_allclose(got[:-1] ** 2, np.maximum(expected, 0.0), rtol=1e-9, atol=1e-12)
    assert np.isnan(got[-1]).all()


@pytest.mark.parametrize("horizon", [1, 3, W + 2])
def test_expected_rows_have_the_mean_of_new_rows(horizon):
    # Rows of one drift: averaged over records, the expected Gram equals the realised one in cyclic order.
    rng = np.random.default_rng(1)
    from spectraledge.theory.rank_two import _expected, _realised

    n = 400
    difference = np.zeros((n, W, W))
    for i in range(n):
        gram = synthetic.constant_drift(W + horizon, drift=1.0, n_parameters=50, rng=rng).gram
        windows = window_series(full_gram_windows(gram, W)[0])
        difference[i] = (_expected(windows, horizon) - _realised(windows, horizon))[0]
    error = difference.std(axis=0) / np.sqrt(n)
    assert np.all(np.abs(difference.mean(axis=0)) <= 4.5 * error + 1e-12)  # 25 entries


@pytest.mark.parametrize("predictor", ALL, ids=lambda p: p.name)
def test_predictions_use_the_past_only(predictor):
    windows = record()
    full = synthetic.constant_drift(80, drift=1.0, rng=np.random.default_rng(0)).updates
    changed = full.copy()
    changed[60:] = 3.0 * np.random.default_rng(5).standard_normal(changed[60:].shape)
    other = window_series(*full_gram_windows(changed @ changed.T, W))
    last = 60 - W  # the last window without a changed update
    one, two = (forward_chain([predictor], w, 4, start=20)[predictor.name] for w in (windows, other))
    np.testing.assert_allclose(one[20 : last + 1], two[20 : last + 1], rtol=1e-9)
    assert not predictor.oracle


def test_ar1_finds_the_correlation_and_beats_persistence_by_the_known_factor():
    rng = np.random.default_rng(2)
    phi, n = 0.6, 4000
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = phi * x[t - 1] + rng.standard_normal()
    sigma = 50.0 + x
    windows = window_series(np.square(sigma)[:, None, None])
    fitted = Ar1().fit(windows, 1)
    assert fitted.phi[0] == pytest.approx(phi, abs=4 * np.sqrt((1 - phi**2) / n))
    assert fitted.mean[0] == pytest.approx(50.0, abs=4 / (1 - phi) / np.sqrt(n))
    for horizon in (1, 3):
        values = forward_chain([Persistence(), Ar1()], windows, horizon, start=500, refit_every=500)
        score = compare_predictors(
            quantity(future(windows.singular_values, horizon), "d"),
            {name: quantity(v, "d") for name, v in values.items()},
            block=20,
            n_boot=300,
            rng=rng,
        )
        # (1 - phi^2H) over 2 (1 - phi^H): half of 1 + phi^H.
        expected = 0.5 * (1 + phi**horizon)
        assert score["ar1"].low < expected < score["ar1"].high
        assert score["ar1"].mse_ratio == pytest.approx(expected, rel=0.05)
        assert score["persistence"].mse_ratio == 1.0
        assert abs(score["persistence"].skill) < 0.01


def test_drift_follows_a_line_exactly():
    sigma = 2.0 + 0.1 * np.arange(40)
    windows = window_series(np.square(sigma)[:, None, None])
    got = Drift(length=6).predict(windows, 4)[:, 0]
    assert np.isnan(got[:5]).all()
    np.testing.assert_allclose(got[5:], sigma[5:] + 0.4, rtol=1e-9)


def test_what_each_reference_explains_on_drift_and_noise():
    windows = record(1500, drift=1.0)
    predictors = [Persistence(), RankTwo(), RankTwo(rows="realised", name="first_oracle"), ExactRankTwo()]
    values = forward_chain(predictors, windows, 1, start=100)
    truth = future(windows.singular_values, 1)
    for mode, best in ((1, 0.1), (3, None)):
        score = compare_predictors(
            quantity(truth, "lambda", mode=mode),
            {name: quantity(v, "lambda", mode=mode) for name, v in values.items()},
            block=2 * W,
            n_boot=200,
            rng=np.random.default_rng(3),
        )
        assert score["exact_rank2"].mse_ratio < 1e-12
        if (
            best
        ):  # the separated mode: perturbation theory holds, and knowing the row that leaves is worth a good part
            assert score["first_oracle"].mse_ratio < best
            assert score["rank2_first_order"].high < 1.0
        else:  # a noise mode: even with the realised rows first order is worse than no change
            assert score["first_oracle"].low > 1.0


def test_signal_flow_predicts_gradient_descent_and_the_published_drive_does_not():
    eta, h, s = 0.01, np.array([1.0, 3.0]), 4
    steps = np.arange(50 * s + 1)[:, None]
    theta = np.array([1.0, 0.2]) * (1 - eta * h) ** steps  # the first mode stays the larger
    updates = np.diff(theta[::s], axis=0)
    # Two independent time profiles: odd snapshots move along one axis, even ones along the other.
    rows = np.where(np.arange(len(updates))[:, None] % 2 == np.arange(2), updates, 0.0)
    grams, blocks = full_gram_windows(rows @ rows.T, 2)
    windows = window_series(grams, blocks)
    n = len(windows)
    strict = flow_coefficients(np.tile(h, (n, 1)), np.zeros((n, 2)), np.zeros((n, 2)), learning_rate=eta, window=2)
    gradient = windows.singular_values / (eta * s)
    author = flow_coefficients(
        np.tile(h, (n, 1)), gradient, learning_rate=eta, window=2, mode="author", drive="printed"
    )
    predictors = [
        Persistence(),
        SignalFlow(*strict, stride=s, name="strict"),
        SignalFlow(*author, stride=s, name="author"),
    ]
    values = forward_chain(predictors, windows, 2, start=1)
    truth = future(windows.singular_values, 2)
    score = compare_predictors(
        quantity(truth, "d"),
        {name: quantity(v, "d") for name, v in values.items()},
        block=4,
        n_boot=100,
        rng=np.random.default_rng(4),
    )
    # A discrete step loses eta h / 2 = 1.5 % more than the flow; squared, 2e-4 of persistence's error.
    assert score["strict"].mse_ratio < 1e-3
    assert score["author"].mse_ratio > 10.0


def test_gap_flow_moves_the_pair_by_the_closed_form():
    windows = record(40)
    n = len(windows)
    position = np.full(n, 2)
    position[3] = 0
    got = GapFlow(position, pull=0.01, rate=0.002, stride=7).predict(windows, 3)
    sigma = windows.singular_values
    g = sigma[:, 1] - sigma[:, 2]
    keep = np.arange(n) != 3
    np.testing.assert_allclose((got[:, 1] - got[:, 2])[keep], gap_closed_form(g, 0.01, 0.002, 21.0)[keep], rtol=1e-9)
    np.testing.assert_allclose((got[:, 1] + got[:, 2])[keep], (sigma[:, 1] + sigma[:, 2])[keep], rtol=1e-12)
    assert np.isnan(got[3]).all()
    assert np.isnan(got[:, 0]).all()
    collapsed = GapFlow(position, pull=-10.0, rate=0.0).predict(windows, 3)
    np.testing.assert_allclose(collapsed[keep, 1], collapsed[keep, 2])


def test_missing_windows_stay_missing():
    windows = record(40)
    grams, blocks = windows.grams.copy(), windows.blocks.copy()
    grams[10], blocks[10] = np.nan, np.nan
    holed = window_series(grams, blocks)
    for predictor in [*ALL, ExactRankTwo(), RankTwo(rows="realised", name="oracle")]:
        values = predictor.fit(holed, 1).predict(holed, 1)
        assert np.isnan(values[10]).all(), predictor.name
        assert np.isfinite(values[20:35]).all(), predictor.name


def test_quantities():
    sigma = np.array([[3.0, 2.0, 1.0]])
    assert quantity(sigma, "lambda", mode=2).tolist() == [4.0]
    assert quantity(sigma, "d").tolist() == [3.0]
    assert quantity(sigma, "g", position=[2]).tolist() == [1.0]
    assert np.isnan(quantity(sigma, "g", position=[0])).all()


def test_refusals():
    windows = record(40)
    with pytest.raises(SettingError, match="horizon must be at least 1"):
        Persistence().predict(windows, 0)
    with pytest.raises(SettingError, match="must be fitted"):
        Ar1().predict(windows, 1)
    with pytest.raises(SettingError, match="length must be at least 2"):
        Drift(length=1).predict(windows, 1)
    with pytest.raises(SettingError, match="needs the blocks"):
        ExactRankTwo().predict(window_series(windows.grams), 1)
    with pytest.raises(SettingError, match="rate and source must be"):
        SignalFlow(np.ones((3, 2)), np.ones((3, 2))).predict(windows, 1)
    with pytest.raises(SettingError, match="position must hold"):
        GapFlow([9], 0.0, 0.0).predict(windows, 1)
    with pytest.raises(SettingError, match="grams must be"):
        window_series(windows.grams, windows.blocks[:-1])
    with pytest.raises(SettingError, match="Record more updates"):
        full_gram_windows(np.eye(3), 3)
    with pytest.raises(SettingError, match="kind must be one of"):
        quantity(windows.singular_values, "sigma")
    with pytest.raises(SettingError, match="needs the position"):
        quantity(windows.singular_values, "g")
    with pytest.raises(SettingError, match="mode must lie"):
        quantity(windows.singular_values, "d", mode=0)
    with pytest.raises(SettingError, match="unique names"):
        forward_chain([Drift(), Drift()], windows, 1, start=5)
    with pytest.raises(SettingError, match="start must lie"):
        forward_chain([Drift()], windows, 1, start=0)
    with pytest.raises(SettingError, match="hold the reference"):
        compare_predictors([1.0], {"a": [1.0]}, block=1, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match=r"must be \(N\) each"):
        compare_predictors([1.0], {"persistence": [1.0, 2.0]}, block=1, rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="At least 2 blocks"):
        compare_predictors([1.0], {"persistence": [1.0]}, block=1, rng=np.random.default_rng(0))
