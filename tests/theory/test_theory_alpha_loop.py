from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.alpha_loop import fixed_points, loop_gap, loop_map, loop_spectrum, saddle_node
from spectraledge.theory.hysteresis import hysteresis_sweep, hysteresis_test


def test_f4_spectrum_of_coherent_updates():
    lam = loop_spectrum([0.5, 0.8, 0.9, 0.95, 0.99])
    np.testing.assert_allclose(lam[:, 0].round(3), [2.683, 5.502, 7.307, 8.514, 9.677])
    np.testing.assert_allclose(np.sqrt(lam[:, 0] / lam[:, 1]).round(3), [1.153, 1.630, 2.247, 3.148, 7.003])
    np.testing.assert_allclose(lam.sum(axis=1), 10.0)
    assert loop_gap([0.0, 1.0]) == pytest.approx([0.0, 10.0], abs=1e-12)


@pytest.mark.parametrize(("epsilon", "expected"), [(0.5, (0.51, 0.997)), (1.0, (0.68, 0.989)), (1.5, (0.79, 0.968))])
def test_f12_fixed_points(epsilon, expected):
    zero, unstable, coherent = fixed_points(epsilon)
    assert (zero.alpha, zero.stable) == (0.0, True)
    assert unstable.alpha == pytest.approx(expected[0], abs=0.005)
    assert coherent.alpha == pytest.approx(expected[1], abs=0.0005)
    assert (unstable.stable, coherent.stable) == (False, True)
    for point in (unstable, coherent):
        assert loop_map(point.alpha, epsilon) == pytest.approx(point.alpha, abs=1e-10)
        step = 1e-6
        slope = (loop_map(point.alpha + step, epsilon) - loop_map(point.alpha - step, epsilon)) / (2 * step)
        assert point.slope == pytest.approx(slope, rel=1e-5)


def test_f12_saddle_node():
    epsilon, alpha = saddle_node()
    assert round(epsilon, 3) == 1.855
    assert round(alpha, 3) == 0.906
    assert len(fixed_points(epsilon * 0.999)) == 3
    assert [p.alpha for p in fixed_points(epsilon * 1.001)] == [0.0]
    # At the saddle-node the two fixed points merge and the slope of the map is 1.
    below, above = fixed_points(epsilon * (1 - 1e-8))[1:]
    assert below.slope == pytest.approx(1.0, abs=0.01)
    assert above.slope == pytest.approx(1.0, abs=0.01)


def test_iteration_ends_on_either_side_of_the_unstable_point():
    unstable = fixed_points(1.0)[1].alpha
    ends = []
    for alpha in (unstable - 0.01, unstable + 0.01):
        for _ in range(200):
            alpha = float(loop_map(alpha, 1.0))
        ends.append(alpha)
    assert ends == pytest.approx([0.0, fixed_points(1.0)[2].alpha], abs=1e-9)


def test_collapsed_gap_returns_only_with_a_background():
    eps = np.linspace(0.2, 2.4, 23)
    alone = hysteresis_sweep(eps)
    assert not alone.down.any()
    assert np.all(alone.up[eps < 1.8] > 0.9)
    assert not alone.up[eps > 1.86].any()
    helped = hysteresis_sweep(eps, background=0.7)
    # It returns where the unstable fixed point has come down to the background: epsilon = gamma(.7) sqrt(.3).
    back = float(loop_gap(0.7)) * np.sqrt(0.3)
    assert np.all((helped.down > 0.9) == (eps < back))
    assert 0.0 < helped.area < alone.area
    noisy = hysteresis_sweep(eps, background=0.7, noise=0.01, rng=np.random.default_rng(0))
    assert noisy.area == pytest.approx(helped.area, abs=0.15)  # noise shifts each jump by about a grid step of 0.1


def test_hysteresis_test_finds_a_loop_and_nothing_without():
    rng = np.random.default_rng(1)
    eps = np.linspace(0.2, 2.4, 23)
    loop = hysteresis_sweep(eps, background=0.7)
    noise = 0.05 * rng.standard_normal((2, 8, len(eps)))
    found = hysteresis_test(loop.up + noise[0], loop.down + noise[1], eps, rng=rng)
    assert found.p_value == found.smallest_p == 2.0**-7
    assert found.mean == pytest.approx(loop.area / 2.2, abs=0.02)
    nothing = hysteresis_test(loop.up + noise[0], loop.up + noise[1], eps, rng=rng)
    assert nothing.p_value > 0.05
    many = 0.05 * rng.standard_normal((2, 20, len(eps)))
    sampled = hysteresis_test(loop.up + many[0], loop.down + many[1], eps, n_permutations=999, rng=rng)
    assert sampled.p_value == sampled.smallest_p == 1e-3


def test_hysteresis_test_keeps_its_level():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((300, 2, 6, 10))
    p = np.array([hysteresis_test(up, down, rng=rng).p_value for up, down in noise])
    # 300 trials at 12/64 = 0.1875 (two-sided, an even number of patterns): 56 +- 6.8.
    assert abs(np.sum(p <= 12 / 64) - 56.25) < 4 * 6.8


def test_missing_values_and_refusals():
    assert np.isnan(loop_gap([np.nan, 0.5])).tolist() == [True, False]
    assert np.isnan(loop_map(np.nan, 1.0))
    assert loop_map(0.0, 1.0) == 0.0
    assert np.isnan(hysteresis_test(np.full((2, 3), np.nan), np.ones((2, 3)), rng=np.random.default_rng(0)).p_value)
    with pytest.raises(SettingError, match="alpha must lie"):
        loop_spectrum(1.5)
    with pytest.raises(SettingError, match="epsilon must be positive"):
        fixed_points(0.0)
    with pytest.raises(SettingError, match="ascending"):
        hysteresis_sweep([1.0, 0.5])
    with pytest.raises(SettingError, match="noise needs rng"):
        hysteresis_sweep([0.5, 1.0], noise=0.1)
    with pytest.raises(SettingError, match="alpha_up and alpha_down"):
        hysteresis_test(np.ones((2, 3)), np.ones((2, 4)), rng=np.random.default_rng(0))
