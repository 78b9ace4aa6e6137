from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.optimize

from spectraledge.errors import SettingError
from spectraledge.theory.isotonic import isotonic_fit, monotone_test, one_reversal_chance


def test_fit_is_scipys():
    theirs = getattr(scipy.optimize, "isotonic_regression", None)
    if theirs is None:
        pytest.skip("scipy before 1.12")
    rng = np.random.default_rng(0)
    for n in (1, 2, 17, 50):
        y = rng.standard_normal(n)
        np.testing.assert_allclose(isotonic_fit(y, "increasing"), theirs(y).x, atol=1e-12)
        np.testing.assert_allclose(isotonic_fit(y), theirs(y, increasing=False).x, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_one_reversal_chance_by_counting(n):
    passed = sum(np.sum(np.diff(p) > 0) <= 1 for p in permutations(range(n)))
    total = len(list(permutations(range(n))))
    assert one_reversal_chance(n) == pytest.approx(passed / total)


def test_one_reversal_chance_of_a_walk():
    rng = np.random.default_rng(1)
    ups = (rng.random((20000, 6)) < 0.5).sum(axis=1)
    assert abs(np.mean(ups <= 1) - one_reversal_chance(7, "walk")) < 3 * np.sqrt(0.11 * 0.89 / 20000)


def test_sizes_of_both_tests():
    # Exact at a constant with Gaussian noise: 0.05 with 59 draws.
    rng = np.random.default_rng(2)
    tests = [monotone_test(rng.standard_normal(10), n_draws=59, rng=rng) for _ in range(150)]
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean([t.p_trend <= 0.05 for t in tests]) < bound
    assert np.mean([t.p_not_monotone <= 0.05 for t in tests]) < bound


def test_bump_is_not_monotone_and_a_line_is():
    rng = np.random.default_rng(3)
    t = np.linspace(0, 1, 20)
    bump = monotone_test(3 * np.sin(2 * np.pi * t) + 0.3 * rng.standard_normal(20), rng=rng)
    line = monotone_test(-5 * t + 0.3 * rng.standard_normal(20), rng=rng)
    assert bump.p_not_monotone < 0.02
    assert not bump.monotone
    assert line.monotone
    assert line.explained > 0.9
    known = monotone_test(3 * np.sin(2 * np.pi * t), noise_sd=0.3, rng=rng)
    assert known.violation > 5  # measured 8.6; noise about a constant gives 1 less the fit


def test_published_rule_and_the_size_of_its_chance():
    # Two dips of equal size: one reversal passes, though nothing goes down.
    rng = np.random.default_rng(4)
    test = monotone_test([2.0, 1.0, 2.0, 1.0], mode="author", rng=rng)
    assert test.monotone
    assert test.reversals == 1
    assert test.author_chance == 0.5
    assert not monotone_test([2.0, 1.0, 2.0, 1.0], rng=rng).monotone
    up = monotone_test([1.0, 2.0, 3.0], "increasing", rng=rng)
    assert up.reversals == 0
    assert up.p_trend > 0.1  # 1/6 at least: three values cannot show a trend


def test_blocks_and_constant_series():
    rng = np.random.default_rng(5)
    slow = np.repeat(rng.standard_normal(10), 10)
    alone = np.mean(
        [monotone_test(np.repeat(rng.standard_normal(6), 5), n_draws=19, rng=rng).p_trend for _ in range(60)]
    )
    blocks = np.mean(
        [monotone_test(np.repeat(rng.standard_normal(6), 5), block=5, n_draws=19, rng=rng).p_trend for _ in range(60)]
    )
    assert alone < 0.4 < blocks  # repeats taken as independent make a trend of nothing
    assert np.isnan(monotone_test(np.zeros(5), rng=rng).p_trend)
    assert len(monotone_test(slow, block=10, n_draws=5, rng=rng).fit) == 100


def test_errors():
    rng = np.random.default_rng(0)
    for y, kwargs in (
        ([1.0, 2.0], {}),
        ([1.0, np.nan, 2.0], {}),
        ([1.0, 2.0, 3.0], {"block": 2}),
        ([1.0, 2.0, 3.0], {"noise_sd": 0.0}),
        ([1.0, 2.0, 3.0], {"mode": "other"}),
        ([1.0, 2.0, 3.0], {"direction": "other"}),
    ):
        with pytest.raises(SettingError):
            monotone_test(y, rng=rng, **kwargs)
    with pytest.raises(SettingError):
        one_reversal_chance(0)
