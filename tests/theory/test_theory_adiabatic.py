from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory import eigen_width, gram_change, gram_spectrum, sample_gram, width
from spectraledge.theory.adiabatic import (
    adiabatic,
    adiabatic_null,
    adiabatic_parameter,
    gram_blocks,
    kernel_adiabatic,
)
from spectraledge.theory.regimes import AUTHOR_CUTS, regimes

READINGS = ("dlam", "shift", "aligned", "operator")


def rows(n, p, seed):
    rng = np.random.default_rng(seed)
    drift = np.outer(np.cos(0.2 * np.arange(n)), rng.standard_normal(p)) + np.outer(
        np.sin(0.3 * np.arange(n)), rng.standard_normal(p)
    )
    return drift + 0.3 * rng.standard_normal((n, p))


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_every_reading_from_explicit_rows(stride):
    window, lr = 5, 0.02
    x = rows(window + stride, 40, 0)
    block = x @ x.T
    found = adiabatic(block, window, lr=lr)
    before, after = x[:window], x[stride:]
    sigma = np.linalg.svd(before, compute_uv=False)
    k = int(found.position)
    assert k == 1 + int(np.argmax(sigma[:2] / sigma[1:3]))
    g = sigma[k - 1] - sigma[k]
    assert found.width == pytest.approx(g, rel=1e-12)
    change = np.linalg.norm(after.T @ after - before.T @ before)
    assert found.relative["operator"] == pytest.approx(change / g**2, rel=1e-10)
    assert found.davis_kahan == pytest.approx(change / (sigma[k - 1] ** 2 - sigma[k] ** 2), rel=1e-10)
    for reading in READINGS:
        expected = gram_change(block, window, reading=reading) / g**2
        assert found.relative[reading] == pytest.approx(expected, rel=1e-12)
        assert found.absolute[reading] == pytest.approx(expected / lr, rel=1e-12)
        # Hoffman-Wielandt: dlam is the least of the four.
        assert found.relative["dlam"] <= found.relative[reading] * (1 + 1e-12)
    assert adiabatic_parameter(block, window) == found.relative["operator"]
    assert adiabatic_parameter(block, window, mode="author", lr=lr) == found.absolute["dlam"]
    assert adiabatic_parameter(block, window, mode="author", lr=lr, reading="shift") == found.absolute["shift"]


def test_the_davis_kahan_reading_bounds_the_rotation():
    window = 6
    for seed in range(20):
        x = rows(2 * window, 30, seed)
        for stride in (1, window):
            block = x[: window + stride] @ x[: window + stride].T
            found = adiabatic(block, window)
            k = int(found.position)
            v = [np.linalg.svd(part)[2].T for part in (x[:window], x[stride : stride + window])]
            sines = np.linalg.svd(v[0][:, k:].T @ v[1][:, :k], compute_uv=False)
            assert np.linalg.norm(sines) <= np.sqrt(2) * found.davis_kahan * (1 + 1e-10)


def test_units():
    # Parameters in another unit (all updates times c) leave the pure numbers alone; the loss's unit is 1 / lr.
    x = rows(11, 50, 3)
    block = x @ x.T
    one, other = adiabatic(block, 10, lr=1e-3), adiabatic(49.0 * block, 10, lr=1e-6)
    for reading in READINGS:
        assert other.relative[reading] == pytest.approx(one.relative[reading], rel=1e-9)
        assert other.absolute[reading] / one.absolute[reading] == pytest.approx(1e3, rel=1e-9)
    assert other.davis_kahan == pytest.approx(one.davis_kahan, rel=1e-9)


def test_stacks_nan_and_refusals():
    blocks = np.stack([rows(7, 30, s) @ rows(7, 30, s).T for s in range(3)])
    blocks[1, 6, 6] = np.nan  # only the window after
    found = adiabatic(blocks, 5, lr=0.1)
    for values in (*found.relative.values(), *found.absolute.values(), found.davis_kahan, found.width):
        assert np.isnan(values).tolist() == [False, True, False]
    single = adiabatic(blocks[2], 5, lr=0.1)
    assert found.relative["aligned"][2] == single.relative["aligned"]
    imposed = adiabatic(blocks, 5, position=2)
    sigma = gram_spectrum(blocks[0, :5, :5]).singular_values
    assert imposed.width[0] == width(sigma, 2)
    assert imposed.davis_kahan[0] == gram_change(blocks[0], 5) / eigen_width(sigma, 2)
    with pytest.raises(SettingError, match="mode must be"):
        adiabatic_parameter(blocks, 5, mode="printed")
    with pytest.raises(SettingError, match="learning rate"):
        adiabatic_parameter(blocks, 5, mode="author")
    with pytest.raises(SettingError, match="reading"):
        adiabatic_parameter(blocks, 5, reading="other")
    with pytest.raises(SettingError, match="lr must be positive"):
        adiabatic(blocks, 5, lr=0.0)
    with pytest.raises(SettingError, match="longer record"):
        gram_blocks(blocks, 5, 3)
    with pytest.raises(SettingError, match="n_steps must be positive"):
        kernel_adiabatic(np.eye(2), 1.0, 0.1, 0)


def test_a_window_that_shares_rows_looks_calmer():
    # Drift plus noise, the same process throughout: stride 1 gives an A some W times smaller than stride W.
    window = 10
    gram = sample_gram(np.ones(2 * window), 1e4, coherence=0.5, n_draws=200, rng=np.random.default_rng(0))
    calm = adiabatic(gram[:, : window + 1, : window + 1], window).relative["operator"]
    apart = adiabatic(gram, window).relative["operator"]
    # Disjoint noise parts add as sqrt(W) rows: sqrt(10) = 3.2 times one replaced row.
    assert np.median(apart) / np.median(calm) == pytest.approx(np.sqrt(window), rel=0.1)


@pytest.mark.parametrize("stride", [1, 5])
@pytest.mark.parametrize("kind", ["constant_drift", "smooth_drift"])
def test_regimes_against_the_null_have_their_level(kind, stride):
    window, n_runs, n_updates = 5, 40, 60
    rng = np.random.default_rng(1)
    truth = sample_gram(np.ones(n_updates), 500.0, coherence=0.4, n_draws=n_runs, rng=rng)
    shares = []
    for gram in truth:
        null = adiabatic_null(gram, window, 500.0, stride=stride, kind=kind, rng=rng, n_draws=99)
        a = adiabatic_parameter(gram_blocks(gram, window, stride), window)
        found = regimes(a, null.relative["operator"])
        assert found.label.shape == (n_updates - window - stride + 1,)
        assert not found.arbitrary
        shares.append([(found.label == name).mean() for name in ("below", "above")])
    # Over runs, which are independent; 99 draws place a limit to 2 points, the same for no two runs.
    mean, error = np.mean(shares, axis=0), np.std(shares, axis=0) / np.sqrt(n_runs)
    np.testing.assert_array_less(np.abs(mean - 0.05), 3.5 * error + 0.01)


def test_a_null_fitted_to_the_block_itself_is_conservative():
    window, n = 5, 100
    rng = np.random.default_rng(3)
    truth = sample_gram(np.ones(window + 1), 500.0, coherence=0.4, n_draws=n, rng=rng)
    above = 0
    for block in truth:
        null = adiabatic_null(block, window, 500.0, kind="constant_drift", rng=rng, n_draws=99)
        above += str(regimes(adiabatic_parameter(block, window), null.relative["operator"][0]).label) == "above"
    assert above <= 2


def test_regimes_see_a_planted_turn():
    # The newest update is ten times as long and in a new direction.
    window = 5
    rng = np.random.default_rng(2)
    x = np.ones((window + 1, 1)) * rng.standard_normal(300) + 0.3 * rng.standard_normal((window + 1, 300))
    steady = x @ x.T
    x[-1] = 10 * rng.standard_normal(300)
    null = adiabatic_null(steady, window, 300.0, rng=rng, n_draws=199)
    found = regimes(adiabatic_parameter(np.stack([steady, x @ x.T]), window), null.relative["operator"][0])
    assert found.label.tolist() == ["within", "above"]
    assert found.quantile[1] == 1.0


def test_regimes_by_cuts_and_refusals():
    found = regimes([0.29, 0.3, 3.0, 3.1, np.nan], mode="author")
    assert found.label.tolist() == ["plateau", "transition", "transition", "forgetting", "undefined"]
    assert found.arbitrary
    assert tuple(found.cuts) == AUTHOR_CUTS
    assert np.isnan(found.quantile).all()
    draws = np.arange(100.0)
    found = regimes([50.0, np.nan], draws)
    assert found.quantile[0] == 0.505  # half of the tie
    assert found.label.tolist() == ["within", "undefined"]
    per_value = regimes([50.0, 50.0], np.stack([draws, draws + 100]))
    assert per_value.label.tolist() == ["within", "below"]
    with pytest.raises(SettingError, match="null"):
        regimes([1.0])
    with pytest.raises(SettingError, match="percentiles"):
        regimes([1.0], draws, percentiles=(95, 5))
    with pytest.raises(SettingError, match="cuts must increase"):
        regimes([1.0], mode="author", cuts=(3.0, 0.3))
