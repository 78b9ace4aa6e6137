from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory.phase_surrogates import (
    circular_shifts,
    phase_randomised,
    phase_randomised_gram,
    surrogate_test,
)


@pytest.mark.parametrize("n", [20, 21])
def test_spectrum_and_mean_stay(n):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 3)) + 2.0
    for phases in ("common", "independent"):
        draws = phase_randomised(x, 5, rng, phases=phases)
        assert draws.shape == (5, n, 3)
        np.testing.assert_allclose(
            np.abs(np.fft.rfft(draws, axis=1)), np.broadcast_to(np.abs(np.fft.rfft(x, axis=0)), (5, n // 2 + 1, 3)),
            atol=1e-10,
        )  # fmt: skip
        np.testing.assert_allclose(draws.mean(axis=1), np.broadcast_to(x.mean(axis=0), (5, 3)), atol=1e-12)
    assert phase_randomised(x[:, 0], 2, rng).shape == (2, n)


def test_common_phases_keep_cross_correlation_and_independent_ones_do_not():
    rng = np.random.default_rng(1)
    a = rng.standard_normal(200)
    x = np.stack([a, a + 0.3 * rng.standard_normal(200)], axis=1)
    r = np.corrcoef(x.T)[0, 1]
    common = [np.corrcoef(d.T)[0, 1] for d in phase_randomised(x, 5, rng)]
    np.testing.assert_allclose(common, r, atol=1e-10)
    apart = [np.corrcoef(d.T)[0, 1] for d in phase_randomised(x, 200, rng, phases="independent")]
    assert abs(np.mean(apart)) < 4 / np.sqrt(200 * 200)  # sd 1/sqrt(T) each
    assert r > 0.9


@pytest.mark.parametrize("n", [12, 13])
def test_gram_form_equals_rows_with_the_same_phases(n):
    rows = np.random.default_rng(2).standard_normal((n, 40))
    draws = phase_randomised(rows, 3, np.random.default_rng(7))
    grams = phase_randomised_gram(rows @ rows.T, 3, np.random.default_rng(7))
    np.testing.assert_allclose(grams, draws @ np.swapaxes(draws, 1, 2), atol=1e-10)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(grams), np.broadcast_to(np.linalg.eigvalsh(rows @ rows.T), (3, n)), atol=1e-9
    )


def test_mean_gram_is_the_circulant_part():
    n = 8
    rows = np.random.default_rng(3).standard_normal((n, 5))
    gram = rows @ rows.T
    lag = (np.arange(n)[:, None] - np.arange(n)) % n
    circulant = np.array([gram[lag == s].mean() for s in range(n)])[lag]
    draws = phase_randomised_gram(gram, 4000, np.random.default_rng(4))
    # entries have sd of at most the norm of the Gram; 4 sd of the mean
    assert np.abs(draws.mean(axis=0) - circulant).max() < 4 * draws.std(axis=0).max() / np.sqrt(4000)


def test_circular_shifts():
    x = np.arange(10.0)
    rng = np.random.default_rng(5)
    every = circular_shifts(x, 50, rng)
    assert every.shape == (9, 10)
    assert len({tuple(row) for row in every}) == 9
    assert not any((row == x).all() for row in every)
    assert circular_shifts(np.stack([x, x], 1), 4, rng).shape == (4, 10, 2)


def test_surrogate_test_counts_and_missing():
    test = surrogate_test([3.0, np.nan, 1.0], [[0.0, 9.0, 0.5], [np.nan, 0.0, 0.0], [0.0, 0.0, 1.5]])
    np.testing.assert_allclose(test.p_adjusted, [0.5, np.nan, 0.75])  # a surrogate without a number counts against
    assert test.p == 0.5
    assert np.isnan(surrogate_test([np.nan], [[1.0]]).p)


def test_errors():
    rng = np.random.default_rng(0)
    for make in (
        lambda: phase_randomised([1.0, 2.0], 1, rng),
        lambda: phase_randomised([1.0, np.nan, 2.0, 3.0], 1, rng),
        lambda: phase_randomised(np.arange(6.0), 1, rng, phases="other"),
        lambda: phase_randomised_gram(np.full((5, 5), np.nan), 1, rng),
        lambda: circular_shifts([1.0], 1, rng),
        lambda: surrogate_test([1.0, 2.0], [[1.0]]),
    ):
        with pytest.raises(SettingError):
            make()
