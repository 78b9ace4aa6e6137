"""Sizes: within 3 sd of a proportion of what 600 repetitions gave (written beside each)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from spectraledge.errors import SettingError
from spectraledge.theory.granger import granger
from spectraledge.theory.granger_null import granger_size, null_series


@pytest.mark.parametrize("order", [1, 2])
def test_author_f_is_that_of_statsmodels(order):
    stattools = pytest.importorskip("statsmodels.tsa.stattools")
    y, x = null_series("ar1", 1, 80, rng=np.random.default_rng(0))
    theirs = stattools.grangercausalitytests(np.c_[y[0], x[0]], [order])[order][0]["ssr_ftest"]
    ours = granger(y[0], x[0], window=10, orders=[order], mode="author")
    assert float(ours.f) == pytest.approx(theirs[0])
    assert float(ours.p_value) == pytest.approx(theirs[1])
    assert int(ours.n) == 80 - order


def test_order_is_that_of_the_smallest_aic():
    rng = np.random.default_rng(1)
    e = rng.standard_normal(400)
    y = np.zeros(400)
    for t in range(2, 400):
        y[t] = 0.2 * y[t - 1] - 0.7 * y[t - 2] + e[t]
    assert int(granger(y, rng.standard_normal(400), window=1).order) == 2
    # By hand: both models without x, on the rows that the longest lag leaves.
    for series in (e[:60], e[100:160], y[:60]):
        rows, aic = np.arange(5, 60), {}
        for p in (1, 2, 5):
            design = np.column_stack([np.ones(55), *(series[rows - i] for i in range(1, p + 1))])
            rss = np.linalg.lstsq(design, series[rows], rcond=None)[1][0]
            aic[p] = 55 * np.log(rss / 55) + 2 * (p + 1)
        found = granger(series, rng.standard_normal(60), window=1, orders=[1, 2, 5])
        assert int(found.order) == min(aic, key=aic.get)


def test_vectorised_over_items_and_columns():
    rng = np.random.default_rng(2)
    y, x = rng.standard_normal((3, 60)), rng.standard_normal((3, 60, 2))
    z = rng.standard_normal((3, 60, 1))
    y[2] = 1.0
    together = granger(y, x, controls=z, window=2)
    for i in range(2):
        alone = granger(y[i], x[i], controls=z[i], window=2)
        np.testing.assert_allclose(together.p_value[i], alone.p_value)
        np.testing.assert_allclose(together.f[i], alone.f)
    assert np.isnan(together.p_value[2])
    assert together.spacing == 2


def test_f_does_not_change_when_y_is_added_to_x():
    y, x = null_series("overlap", 1, 100, rng=np.random.default_rng(3))
    for method in ("subsample", "hac"):
        plain, mixed = (granger(y[0], c, window=10, method=method) for c in (x[0], x[0] + 3.0 * y[0]))
        assert float(plain.p_value) == pytest.approx(float(mixed.p_value), rel=1e-6)


@pytest.mark.parametrize("method", ["subsample", "hac", "surrogate"])
def test_a_lead_is_found_in_its_direction(method):
    rng = np.random.default_rng(4)
    x = rng.standard_normal(200)
    y = np.r_[0.0, 0.5 * x[:-1]] + rng.standard_normal(200)
    assert float(granger(y, x, window=1, method=method, n_draws=99, rng=rng).p_value) <= 0.02
    assert float(granger(x, y, window=1, method=method, n_draws=99, rng=rng).p_value) > 0.02


def test_missing_values_drop_the_same_rows_from_both_models():
    rng = np.random.default_rng(9)
    y, x = rng.standard_normal((2, 80))
    x[30] = np.nan
    found = granger(y, x, window=1, orders=[2])
    assert int(found.n) == 76
    assert 0.0 <= float(found.gain) < 0.2
    kept = np.setdiff1d(np.arange(2, 80), [31, 32])
    own = np.column_stack([np.ones(76), y[kept - 1], y[kept - 2]])
    rss = [np.linalg.lstsq(d, y[kept], rcond=None)[1][0] for d in (own, np.c_[own, x[kept - 1], x[kept - 2]])]
    assert float(found.gain) == pytest.approx(1 - rss[1] / rss[0])
    both = granger(np.stack([y, y]), np.stack([x, np.nan_to_num(x)]), window=1, method="surrogate", null="phase",
                   n_draws=9, rng=rng)  # fmt: skip
    assert np.isnan(both.p_value[0])
    assert np.isfinite(both.p_value[1])


def test_phase_surrogates_of_several_columns():
    rng = np.random.default_rng(5)
    y, x = rng.standard_normal(60), rng.standard_normal((60, 2))
    p = granger(y, x, window=1, method="surrogate", null="phase", n_draws=19, rng=rng).p_value
    assert 0.05 <= float(p) <= 1.0


@pytest.mark.parametrize(
    ("null", "mode", "method", "measured"),
    [
        ("overlap", "author", "subsample", 0.115),
        ("overlap", "strict", "subsample", 0.055),
        ("overlap", "strict", "hac", 0.102),
        ("ar1", "strict", "subsample", 0.067),
        ("common", "author", "subsample", 0.608),
        ("common", "strict", "hac", 0.368),
    ],
)
def test_sizes_with_100_windows(null, mode, method, measured):
    size = granger_size(null, mode=mode, method=method, length=100, n_runs=300, rng=np.random.default_rng(6))
    # two samples: 600 and 300 repetitions
    assert abs(size.rate - measured) < 3 * np.sqrt(measured * (1 - measured) * (1 / 300 + 1 / 600))
    assert size.low <= size.rate <= size.high


def test_surrogates_keep_their_size():
    size = granger_size(
        "overlap", method="surrogate", length=100, n_runs=60, n_draws=19, rng=np.random.default_rng(7)
    )
    assert size.rate < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


def test_short_leads_escape_disjoint_windows():
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((2, 200, 219))
    a[:, 2:] += b[:, :-2]
    y, x = (sliding_window_view(s[:, 10:], 10, axis=-1).mean(axis=-1) for s in (a, b))
    power = {m: np.mean(granger(y, x, window=10, method=m).p_value <= 0.05) for m in ("subsample", "hac")}
    assert power["subsample"] < 0.2
    assert power["hac"] > 0.9


def test_errors():
    x = np.random.default_rng(0).standard_normal(50)
    for kwargs in (
        {"mode": "other"},
        {"method": "other"},
        {"null": "other"},
        {"orders": []},
        {"orders": [0]},
        {"method": "surrogate"},
        {"controls": np.zeros((3, 1))},
    ):
        with pytest.raises(SettingError):
            granger(x, x[::-1], **{"window": 1, **kwargs})
    with pytest.raises(SettingError):
        granger(x, x[1:], window=1)
    for kwargs in ({"null": "other"}, {"phi": 1.0}):
        with pytest.raises(SettingError):
            null_series(**{"null": "ar1", "n_runs": 1, "length": 10, "rng": np.random.default_rng(0), **kwargs})
