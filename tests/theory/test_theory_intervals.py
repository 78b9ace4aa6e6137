from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.theory import clopper_pearson, spacing_ratio
from spectraledge.theory.spacing import GOE_MEAN, POISSON_MEAN


@pytest.mark.parametrize(
    ("x", "n", "low", "high"),
    [
        (24, 24, 0.858, 1.0),
        (0, 24, 0.0, 0.142),
        (1, 24, 0.001, 0.211),
        (18, 18, 0.815, 1.0),
        (6, 6, 0.541, 1.0),
        (15, 18, 0.586, 0.964),
        (15, 15, 0.782, 1.0),
    ],
)
def test_f17_clopper_pearson(x, n, low, high):
    interval = clopper_pearson(x, n)
    assert [round(float(end), 3) for end in interval] == [low, high]


def test_clopper_pearson_is_vectorised_and_knows_its_limits():
    low, high = clopper_pearson([0, 5, 0], [10, 10, 0], level=0.9)
    assert low.shape == high.shape == (3,)
    assert low[2] == 0
    assert high[2] == 1
    for x, n, level in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (np.nan, 2, 0.95)):
        with pytest.raises(SettingError):
            clopper_pearson(x, n, level)


def test_f16_spacing_ratio_of_goe_and_poisson_levels():
    rng = np.random.default_rng(0)
    m = rng.standard_normal((60, 120, 120))
    goe = spacing_ratio(np.linalg.eigvalsh(m + m.swapaxes(-1, -2)))
    # sd of one ratio 0.26 to 0.28 and 7080 of them, neighbours correlated: sd of the mean about 0.004.
    assert goe.mean() == pytest.approx(GOE_MEAN, abs=0.012)
    poisson = spacing_ratio(rng.uniform(size=(60, 120)))
    assert poisson.mean() == pytest.approx(POISSON_MEAN, abs=0.012)
    assert pytest.approx(0.3863, abs=5e-5) == POISSON_MEAN


def test_spacing_ratio_edges():
    assert spacing_ratio([3.0, 1.0, 0.0]).tolist() == [0.5]
    assert np.isnan(spacing_ratio([1.0, 1.0, 1.0])).all()
    with pytest.raises(SettingError, match="at least 3"):
        spacing_ratio([1.0, 2.0])
