from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from spectraledge.errors import SettingError
from spectraledge.theory.proportions import detector_table, wilson


@pytest.mark.parametrize(("x", "n"), [(24, 24), (0, 24), (1, 24), (15, 18), (3, 6)])
def test_wilson_is_scipys(x, n):
    theirs = binomtest(x, n).proportion_ci(0.95, method="wilson")
    low, high = wilson(x, n)
    assert float(low) == pytest.approx(theirs.low, abs=1e-12)
    assert float(high) == pytest.approx(theirs.high, abs=1e-12)


def test_wilson_covers_on_average():
    x, p = np.arange(19), np.linspace(0.01, 0.99, 99)
    low, high = wilson(x, 18)
    covered = (low <= p[:, None]) & (p[:, None] <= high)
    coverage = (covered * binom.pmf(x, 18, p[:, None])).sum(axis=1)
    assert abs(coverage.mean() - 0.95) < 0.01


def test_wilson_without_trials_and_errors():
    low, high = wilson([0, 2], [0, 4], level=0.9)
    assert (low[0], high[0]) == (0.0, 1.0)
    for x, n, level in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (np.nan, 2, 0.95)):
        with pytest.raises(SettingError):
            wilson(x, n, level)


def test_f17_values_as_detector_tables():
    # The published claim, as counted: 24 of 24 with, 1 of 24 without weight decay.
    fired = [True] * 24 + [True] + [False] * 23
    table = detector_table(fired, [True] * 24 + [False] * 24)
    assert [round(v, 3) for v in table.sensitivity_interval] == [0.858, 1.0]
    assert [round(v, 3) for v in table.false_alarm_interval] == [0.001, 0.211]
    assert table.p < 1e-10
    # The same rule where it is allowed to fire on controls: 6 of 6 and 6 of 6.
    honest = detector_table([True] * 12, [True] * 6 + [False] * 6)
    assert honest.p == 1.0
    assert round(honest.false_alarm_interval[0], 3) == 0.541


def test_table_without_one_kind():
    table = detector_table([True, False], [True, True])
    assert table.sensitivity == 0.5
    assert np.isnan(table.false_alarm_rate)
    assert np.isnan(table.p)
    assert table.false_alarm_interval == (0.0, 1.0)
    with pytest.raises(SettingError):
        detector_table([True], [True, False])
