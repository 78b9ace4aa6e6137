"""Features against their definitions, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.detect.features import window_features
from spectraledge.detect.null_runs import band_of_gram, band_of_rows
from spectraledge.errors import SettingError
from spectraledge.theory.adiabatic import adiabatic_parameter

W = 10
FIELDS = ("excess1", "excess2", "excess3", "log_ratio", "overlap", "adiabatic")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    updates = rng.standard_normal((45, 60)) + 2.0 * rng.standard_normal(60)
    return updates * np.exp(0.5 * rng.standard_normal((45, 1)))


def test_features_are_those_of_the_singular_values_of_unit_rows(rows):
    found = window_features(band_of_rows(rows, 19), W)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for t in (19, 30, 44):
        _, sigma, v = np.linalg.svd(unit[t - W + 1 : t + 1], full_matrices=False)
        floor = np.sqrt(np.mean(sigma[5:] ** 2))
        for j in (1, 2, 3):
            assert getattr(found, f"excess{j}")[t] == pytest.approx(np.log(sigma[j - 1] / floor), rel=1e-9)
        assert found.log_ratios[t] == pytest.approx(np.log(sigma[:5] / sigma[1:6]), rel=1e-8)
        assert found.log_ratio[t] == np.max(found.log_ratios[t])
        earlier = np.linalg.svd(unit[t - 2 * W + 1 : t - W + 1], full_matrices=False)[2]
        assert np.tanh(found.overlap[t]) == pytest.approx(abs(v[0] @ earlier[0]), rel=1e-9)
        gram = unit[t - 2 * W + 1 : t + 1] @ unit[t - 2 * W + 1 : t + 1].T
        assert np.exp(found.adiabatic[t]) == pytest.approx(float(adiabatic_parameter(gram, W)), rel=1e-9)


def test_lengths_of_rows_are_not_seen(rows):
    plain = window_features(band_of_rows(rows, 19), W)
    shorter = window_features(band_of_rows(rows * 0.9 ** np.arange(45)[:, None], 19), W)
    for name in FIELDS:
        # Cosines differ by a few roundings, 1e-15, which the logarithms of gaps magnify by at most 1e4.
        assert np.allclose(getattr(plain, name), getattr(shorter, name), atol=1e-10, equal_nan=True)


def test_where_there_is_nothing_to_see(rows):
    band = band_of_rows(rows, 19)
    band[25, 3] = np.nan
    found = window_features(band, W)
    assert np.isnan(found.excess1[: W - 1]).all()
    assert np.isnan(found.overlap[: 2 * W - 1]).all()
    assert np.isfinite(found.excess1[W - 1 : 25]).all()
    assert np.isnan(found.excess1[25:32]).all()  # the windows that hold both row 25 and row 22
    assert np.isfinite(found.excess1[32:]).all()
    assert np.isnan(found.overlap[25:42]).all()
    assert np.isnan(window_features(band[:, :12], W).overlap).all()


def test_small_windows_have_fewer_modes(rows):
    found = window_features(band_of_rows(rows, 19), 3)
    assert np.isfinite(found.excess1[5:]).all()
    assert np.isnan(found.excess2).all()
    assert found.log_ratios.shape == (45, 1)
    with pytest.raises(SettingError, match="at least 3"):
        window_features(band_of_rows(rows, 19), 2)
    with pytest.raises(SettingError, match="lags"):
        window_features(band_of_rows(rows, 5), W)


def test_parallel_updates_stay_finite_or_unknown():
    band = band_of_gram(np.ones((50, 50)), 19)
    found = window_features(band, W)
    assert np.nanmax(found.overlap) < 8.0
    for name in FIELDS:
        assert not np.isinf(getattr(found, name)).any()


def test_the_last_rows_alone_are_equal_to_the_bit(rows):
    band = band_of_rows(rows, 19)
    whole = window_features(band, W)
    for t in (25, 31, 44):
        alone = window_features(band[t - 2 * W + 1 : t + 1], W, last=1)
        for name in (*FIELDS, "log_ratios"):
            assert np.array_equal(getattr(alone, name)[0], getattr(whole, name)[t], equal_nan=True)
