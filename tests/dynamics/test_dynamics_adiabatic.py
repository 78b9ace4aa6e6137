"""A and survival on runs of explicit updates: they are what the matrices say, and nulls keep their level."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from planted_recordings import noise, planted, svd

from spectraledge.dynamics.adiabatic import adiabatic
from spectraledge.dynamics.foresight import foresight
from spectraledge.dynamics.survival import survival
from spectraledge.errors import DataError, SettingError
from spectraledge.theory.gap import gap_position

W = 6


def run(seed: int, n: int = 40, drift: float = 1.0, size: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return noise(n, size, rng) + drift * np.eye(size)[0]


@pytest.mark.parametrize("lag", [1, W])
def test_every_reading_is_what_the_matrices_say(lag: int) -> None:
    x = run(0)
    found = adiabatic(planted(x, lags=11), W, n_draws=19, n_boot=50)
    assert found.steps[0] == (W + 1) * 10
    row = 20  # the window that ends at update row + W
    later, earlier = x[row + 1 : row + 1 + W], x[row + 1 - lag : row + 1 - lag + W]
    sigma, _ = svd(earlier)
    k = int(gap_position(sigma))
    g = sigma[k - 1] - sigma[k]
    change = later.T @ later - earlier.T @ earlier
    assert found.position[lag][row] == k
    # Sums of 60 products in another order: rounding of 1e-14 times a condition of about 10.
    assert found.width[lag][row] == pytest.approx(g, rel=1e-9)
    assert found.relative[lag]["operator"][row] == pytest.approx(np.linalg.norm(change) / g**2, rel=1e-8)
    shift = np.linalg.norm(later @ later.T - earlier @ earlier.T)
    assert found.relative[lag]["shift"][row] == pytest.approx(shift / g**2, rel=1e-8)
    dk = np.linalg.norm(change) / (sigma[k - 1] ** 2 - sigma[k] ** 2)
    assert found.davis_kahan[lag][row] == pytest.approx(dk, rel=1e-8)
    for name, relative in found.relative[lag].items():
        np.testing.assert_allclose(found.absolute[lag][name], relative / 0.1, rtol=1e-12)  # lr 0.1 a step


def test_the_learning_rate_of_a_window_is_that_of_its_steps() -> None:
    rates = np.linspace(0.1, 0.5, 40)
    found = adiabatic(planted(run(1), lags=11, lr=rates), W, n_draws=19, n_boot=50)
    assert found.lr[3] == pytest.approx(rates[4 : 4 + W].mean(), rel=1e-12)  # window that ends at update 9
    assert len(found.lr) == len(found.steps) == 34


def test_null_keeps_its_level_and_a_turn_stands_out() -> None:
    p = []
    for seed in range(6):
        found = adiabatic(planted(run(seed, 72, drift=0.7, size=400), lags=11), W, n_draws=99, n_boot=20)
        p.append(found.regimes[W].above_p)
    # p <= 0.05 in 2 or more of 6 has a chance of 3 % if the null holds.
    assert np.sum(np.array(p) <= 0.05) < 2
    x = run(9, 72, drift=0.0, size=400)
    x[:36, 0] += 4.0
    x[36:, 1] += 4.0  # the lasting direction changes at once
    turned = adiabatic(planted(x, lags=11), W, null="constant_drift", n_draws=99, n_boot=20)
    # The window W rows after the turn holds only the new direction, the one before only the old.
    after = int(np.flatnonzero(turned.steps == (36 + W) * 10)[0])
    assert turned.regimes[W].label[after] == "above"
    assert turned.davis_kahan[W][after] > 1.0
    assert turned.davis_kahan[W][after - 2 * W] < 0.5
    assert turned.summary()["lags"][1]["shares"]["above"] > 0.05


def test_author_mode_divides_by_lr_and_owns_to_arbitrary_limits() -> None:
    x = run(2)
    slow, fast = (adiabatic(planted(x, lags=11, lr=lr), W, mode="author") for lr in (1e-3, 10.0))
    np.testing.assert_allclose(slow.absolute[1]["dlam"], 1e4 * fast.absolute[1]["dlam"], rtol=1e-10)
    assert slow.regimes[1].arbitrary
    # The same directions: forgetting at one learning rate, plateau at another.
    assert slow.regimes[1].shares["forgetting"] == 1.0
    assert fast.regimes[1].shares["forgetting"] < 0.5
    assert len(slow.rows()) == 18
    assert set(slow.table()["regime_lag1"]) <= {"plateau", "transition", "forgetting"}


def test_what_is_missing_is_said() -> None:
    x = run(3)
    x[20] = np.nan
    found = adiabatic(planted(x, lags=W), W, n_draws=9, n_boot=20)
    assert list(found.relative) == [1]
    assert any("need 11 lags" in note for note in found.notes)
    assert any("A_ker" in note for note in found.notes)
    known = np.isfinite(found.relative[1]["operator"])
    # Blocks of W + 1 rows that hold update 20 are unknown, all others known.
    holds = np.abs(np.arange(W, 40) - 20 - W / 2) <= W / 2
    np.testing.assert_array_equal(known, ~holds)
    with pytest.raises(SettingError, match="mode"):
        adiabatic(planted(run(3)), W, mode="loose")
    with pytest.raises(SettingError, match="null"):
        adiabatic(planted(run(3)), W, null="flat")
    with pytest.raises(DataError, match="whole"):
        adiabatic(planted(np.full((40, 5), np.nan)), W)


def test_kernel_readings_are_taken_from_probes() -> None:
    recording = planted(run(4), lags=11)
    recording.probes = [SimpleNamespace(step=100, t=9), SimpleNamespace(step=200, t=19, kernel={"adiabatic": 0.25})]
    found = adiabatic(recording, W, n_draws=9)
    assert found.kernel_steps.tolist() == [200]
    assert found.rows()[-1]["median"] == 0.25


def test_foresight_finds_what_is_planted_and_nothing_else() -> None:
    rng = np.random.default_rng(5)
    n, window = 200, 5
    y = np.r_[0.0, rng.standard_normal(n).cumsum()]
    recording = planted(noise(n, 10, rng), lags=9, metrics={"test_loss": y})
    steps = recording.steps
    coming = np.full(n, np.nan)
    coming[:-window] = np.abs(y[1 + window :] - y[1:-window])
    told = np.exp(coming + 0.1 * rng.standard_normal(n))
    settings = {"steps": steps, "norms": np.ones(n), "lr": np.full(n, 0.1), "window": window, "n_boot": 200}
    good = foresight(recording, "test_loss", told, **settings)
    assert good.baselines == ()  # constant norm and rate tell nothing
    assert good.verdict == "supported"
    # Noise of 0.1 beside a spread of |change| of 0.6 sqrt(5) = 1.35: error variance down to about 0.6 %.
    assert good.beyond_norms.gain > 0.98
    blind = foresight(recording, "test_loss", np.exp(rng.standard_normal(n)), **settings)
    assert blind.verdict in ("not identifiable", "contradicted")
    short = foresight(recording, "test_loss", told[:30], **{**settings, "steps": steps[:30]} | {
        "norms": np.ones(30), "lr": np.ones(30)
    })  # fmt: skip
    assert short.beyond_norms is None
    assert short.reason


def planar(n: int, angle: float) -> np.ndarray:
    """One direction that turns in a plane by ``angle`` an update."""
    phi = angle * np.arange(n)
    return np.stack([np.cos(phi), np.sin(phi), 0 * phi], axis=1)


def test_rotation_in_a_plane_uses_the_guarantee_up() -> None:
    angle = 0.02
    found = survival(planted(planar(30, angle), lags=11), W, k=1, n_boot=20)
    m = np.arange(len(found.steps))
    # v_1 of a window turns by exactly ``angle`` an update; overlaps near 1 lose half of their digits, 1e-8 an
    # angle, 24 angles, slope of cos^2 at most 1.
    np.testing.assert_allclose(found.direct[: W + 1], np.cos(m[: W + 1] * angle) ** 2, atol=1e-12)
    for hop in ("1", str(W)):
        np.testing.assert_allclose(found.guaranteed[hop], np.cos(m * angle) ** 2, atol=1e-6)
    np.testing.assert_allclose(found.independent["1"], np.cos(angle) ** (2 * m), atol=1e-6)
    assert np.isnan(found.direct[W + 1 :]).all()
    assert any("reaches 6 rows" in note for note in found.notes)


def test_guarantee_holds_beyond_the_recorded_lags() -> None:
    x = run(6, 40, drift=3.0)
    for k in (1, 2):
        found = survival(planted(x, lags=11), W, start=80, k=k, n_boot=50)
        assert found.steps[0] == 80
        _, v0 = svd(x[8 - W : 8])
        full = []
        for step in found.steps:
            end = step // 10
            _, v = svd(x[end - W : end])
            full.append(np.square(v0[:, :k].T @ v[:, :k]).sum() / k)
        np.testing.assert_allclose(found.direct[: W + 1], full[: W + 1], atol=1e-10)
        for chain in found.guaranteed.values():
            assert np.all(chain <= np.array(full) + 1e-6)  # rounding of angles, as above
    summary = found.summary()
    assert summary["curve"][-1]["lag"] == W
    assert summary["curve"][-1]["low"] <= summary["curve"][-1]["value"] <= summary["curve"][-1]["high"]
    assert found.rows()[0]["shared_rows"] == W - 1
    assert len(found.table()["direct"]) == len(found.steps)


def test_survival_refuses_and_breaks() -> None:
    x = run(7)
    with pytest.raises(SettingError, match="k must lie"):
        survival(planted(x, lags=11), W, k=W + 1)
    with pytest.raises(DataError, match="end at step 900"):
        survival(planted(x, lags=11), W, start=900)
    x[25] = np.nan
    found = survival(planted(x, lags=11), W, n_boot=20)
    assert any("breaks a chain" in note for note in found.notes)
    assert np.isfinite(found.guaranteed["1"][:19]).all()
    assert np.isnan(found.guaranteed["1"][-1])
