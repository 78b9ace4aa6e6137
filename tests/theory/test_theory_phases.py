"""Phases and edge: planted breaks are placed, schedules and noise are not taken for phases, closed forms hold."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.edge_of_stability import predicted_alternation, sharpness_ratio, sign_alternation
from spectraledge.theory.horizon import stability_limit
from spectraledge.theory.phase_null import schedule_null, window_ratios
from spectraledge.theory.phase_rules import sed_phases, thesis_phases
from spectraledge.theory.phases import Phases, three_phases
from spectraledge.theory.piecewise import PiecewiseModel
from spectraledge.theory.width_slope import width_slope


def broken_line(n: int, breaks: tuple[float, float], slopes: tuple[float, float, float]) -> np.ndarray:
    t = np.arange(n, dtype=np.float64)
    return (
        slopes[0] * t
        + (slopes[1] - slopes[0]) * np.maximum(t - breaks[0], 0)
        + (slopes[2] - slopes[1]) * np.maximum(t - breaks[1], 0)
    )


def test_exact_breaks_are_found_exactly() -> None:
    y = broken_line(50, (15, 32), (0.1, 0.0, -0.2))
    model = PiecewiseModel(np.arange(50.0) * 25, smallest=4)
    fit = model.fit(np.stack([y, np.full(50, np.nan), np.arange(50.0)]))
    assert fit.n_breaks.tolist() == [2, -1, 0]
    np.testing.assert_array_equal(fit.breakpoints[2][0], [15 * 25, 32 * 25])
    # The slopes of an exact fit: rounding of 50 points on a design scaled to [0, 1].
    np.testing.assert_allclose(fit.slopes[2][0], np.array([0.1, 0.0, -0.2]) / 25, atol=1e-12)
    assert np.isnan(fit.bic[1]).all()
    np.testing.assert_allclose(model.values(y, 2, [375, 800]), y, atol=1e-10)


def test_fit_agrees_with_a_direct_search() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(25).cumsum()
    t = np.arange(25.0)
    fit = PiecewiseModel(t, smallest=3).fit(y)
    best = np.inf
    for i in range(3, 22):
        design = np.stack([np.ones(25), t, np.maximum(t - i, 0)], axis=1)
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        best = min(best, residual @ residual)
    assert fit.rss[1] == pytest.approx(best, rel=1e-9)  # conditioning of a raw design of 25 points
    assert fit.rss[2] <= fit.rss[1] <= fit.rss[0]


def test_planted_phases_are_found_with_their_breaks() -> None:
    rng = np.random.default_rng(1)
    y = broken_line(100, (30, 60), (0.02, 0.0, -0.015)) + 0.05 * rng.standard_normal(100)
    found = three_phases(np.arange(100), np.exp(y), rng=rng)
    assert isinstance(found, Phases)
    assert found.three_phases
    assert found.n_breaks == 2
    assert np.all(found.low <= found.breakpoints)
    assert np.all(found.breakpoints <= found.high)
    # A break of 0.02 in slope under noise 0.05: the point where pieces meet is known to some 0.05 / 0.02 = 2.5
    # windows over sqrt(30 / 3), about 1; thrice that and the grid.
    assert np.abs(found.breakpoints - [30, 60]).max() < 6
    upside_down = three_phases(np.arange(100), np.exp(-y), rng=rng)
    assert isinstance(upside_down, Phases)
    assert upside_down.n_breaks == 2
    assert not upside_down.three_phases


def test_schedule_null_counts_false_positives() -> None:
    rng = np.random.default_rng(2)
    n = 79
    cosine = np.r_[np.linspace(0.1, 1, 12), 0.1 + 0.45 * (1 + np.cos(np.pi * np.linspace(0, 1, n - 12)))]
    flat = schedule_null(np.ones(n), p_eff=1e3, position=1, n_draws=60, rng=rng)
    # No sign of three phases in stationary noise: a rate above 0.05 (3 of 60) would make the verdict doubtful.
    assert flat.rate <= 0.05
    assert flat.informative
    assert flat.log_ratio.shape == (60, n - 9)
    drift = schedule_null(cosine, p_eff=1e8, coherence=0.1, position=1, n_draws=60, rng=rng)
    # The schedule alone bends log R: the preference for breaks rises with it, far beyond sampling noise.
    assert np.median(drift.gain) > np.quantile(flat.gain, 0.95) + 5
    with pytest.raises(SettingError, match="positive"):
        schedule_null(np.zeros(n), p_eff=1e3, rng=rng)


def test_author_rules_name_all_phases_in_noise() -> None:
    rng = np.random.default_rng(3)
    every = np.mean([len(set(thesis_phases(1 + 0.1 * rng.random(60)).labels)) == 3 for _ in range(200)])
    # 0.93 in 500 simulated series, sd of 200 draws 0.018.
    assert 0.85 < every <= 1.0
    ramp = three_phases(np.arange(20), 1.0 + np.arange(20.0), mode="author")
    assert set(ramp.labels) == {"rise"}  # type: ignore[union-attr]


def test_earlier_paper_rule() -> None:
    found = sed_phases([1.3, 1.6, 2.0, 1.9, 1.75, 1.6, 1.75, 1.25, 1.1, 1.3])
    assert found.plateau == (2, 4)  # index 6 is above 0.85 of the peak, but behind a gap
    assert found.collapse == 8
    assert found.labels.tolist() == ["rise"] * 2 + ["plateau"] * 3 + ["collapse"] * 5
    assert sed_phases([1.0, 2.0, 1.9]).collapse is None


def test_ratios_of_windows_are_those_of_their_blocks() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((12, 40))
    found = window_ratios(rows @ rows.T, 5, position=2)
    for start in range(8):
        sigma = np.linalg.svd(rows[start : start + 5], compute_uv=False)
        assert found[start] == pytest.approx(sigma[1] / sigma[2], rel=1e-9)  # Gram squares a condition of about 3
    with pytest.raises(SettingError, match="position"):
        window_ratios(np.eye(4), 3, position=3)


@pytest.mark.parametrize("arguments", [{"mode": "loose"}, {"rule": "other"}, {}])
def test_phases_refuse_what_they_cannot_use(arguments: dict[str, str]) -> None:
    with pytest.raises(SettingError):
        three_phases(np.arange(50), np.ones(50), **arguments)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="finite and positive"):
        three_phases(np.arange(50), -np.ones(50), rng=np.random.default_rng(0))
    with pytest.raises(SettingError, match="points"):
        PiecewiseModel(np.arange(5))


def noisy_steps(c: float, beta: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Updates of one mode at rest: SGD with momentum beta and eta h = c, gradient noise of one."""
    theta = buffer = 0.0
    out = np.empty(n + 500)
    for t, noise in enumerate(rng.standard_normal(n + 500)):
        buffer = beta * buffer + c * theta + noise
        theta -= buffer
        out[t] = -buffer
    return out[500:]


@pytest.mark.parametrize(("c", "beta"), [(0.2, 0.0), (1.5, 0.0), (0.3, 0.9), (3.0, 0.9)])
def test_alternation_in_noise_follows_the_closed_form(c: float, beta: float) -> None:
    rng = np.random.default_rng(5)
    x = noisy_steps(c, beta, 8000, rng)
    found = sign_alternation(x, block=200, n_boot=200, rng=rng)
    expected = float(predicted_alternation(c, "sgd", 1.0, beta))
    assert expected == pytest.approx(beta - c / 2)
    # Bartlett: sd of a lag-1 correlation is at most about sqrt(4 / n) here (both ends of AR roots near 1): 0.022.
    assert float(found.value) == pytest.approx(expected, abs=3 * 0.022)
    assert float(found.low) - 0.02 <= expected <= float(found.high) + 0.02


def test_adam_and_sgd_forms_agree_at_equal_c() -> None:
    h = np.array([1.0, 5.0, 18.0, 30.0, 39.0])
    adam = predicted_alternation(h, "adamw", 1.0, 0.9)
    np.testing.assert_allclose(adam[:4], predicted_alternation(0.1 * h[:4], "sgd", 1.0, 0.9), atol=1e-15)
    assert adam[2] == pytest.approx(0.0)  # zero at 2 beta / (1 - beta) = 18, not at half the limit
    assert np.isnan(adam[4])  # beyond 38


def test_noise_free_alternation_changes_sign_at_half_the_limit() -> None:
    for kind, beta in (("gd", 0.0), ("sgd", 0.9), ("adamw", 0.9)):
        half = 0.5 * float(stability_limit(kind, 0.3, beta))
        below, above = (
            predicted_alternation(half * f, kind, 0.3, beta, regime="deterministic") for f in (0.999, 1.001)
        )
        assert below > 0 > above
        assert float(sharpness_ratio(half, kind, 0.3, beta)) == pytest.approx(0.5)
    theta, steps = 1.0, []
    for _ in range(30):
        steps.append(-1.2 * theta)
        theta += steps[-1]
    found = sign_alternation(np.array(steps), block=5, n_boot=50, rng=np.random.default_rng(0))
    assert float(found.value) == pytest.approx(-1.0)
    with pytest.raises(SettingError, match="regime"):
        predicted_alternation(1.0, "gd", 1.0, regime="other")  # type: ignore[arg-type]


def test_alternation_leaves_out_missing_modes() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((60, 3))
    x[4, 1] = np.nan
    found = sign_alternation(x, block=5, n_boot=50, rng=rng)
    assert np.isfinite(found.value).tolist() == [True, False, True]
    assert np.isnan(found.low[1])


def test_width_slope_covers_the_truth() -> None:
    rng = np.random.default_rng(7)
    widths = np.repeat([64, 128, 256], 3)
    inside = 0
    for _ in range(400):
        found = width_slope(widths, 0.3 * np.log(widths) + 0.1 * rng.standard_normal(9))
        inside += found.low <= 0.3 <= found.high
    # 95 % of 400, sd 4.4: within 3 sd.
    assert abs(inside - 380) <= 13
    assert found.n_widths == 3
    with pytest.raises(SettingError, match="widths"):
        width_slope([64, 64, 64], [1.0, 2.0, 3.0])
