"""Shares of few runs: Wilson's interval, and the two-by-two table of a detector with both its error rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import fisher_exact, norm

from spectraledge.errors import SettingError
from spectraledge.theory.intervals import clopper_pearson

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DetectorTable:
    """Runs with and without the event, each with or without an alarm. Intervals are Clopper-Pearson.

    Attributes:
        hits: Runs with the event that fired.
        n_positive: Runs with the event.
        false_alarms: Runs without it that fired.
        n_negative: Runs without it.
        sensitivity: hits / n_positive; NaN for no such run, as below.
        sensitivity_interval: Its ends.
        false_alarm_rate: false_alarms / n_negative.
        false_alarm_interval: Its ends.
        p: Fisher's exact p, two-sided, of both rates being the same.
    """

    hits: int
    n_positive: int
    false_alarms: int
    n_negative: int
    sensitivity: float
    sensitivity_interval: tuple[float, float]
    false_alarm_rate: float
    false_alarm_interval: tuple[float, float]
    p: float


def wilson(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Wilson's score interval of a binomial proportion: near its level on average, where Clopper-Pearson is above.

    Args:
        successes: (...) counts.
        n: (...) trials, at least ``successes``; 0 trials give [0, 1].
        level: Confidence level in (0, 1).

    Returns:
        Lower and upper ends, (...) each. Source: standard result (Wilson 1927).

    Raises:
        SettingError: If counts or level are out of range.

    >>> low, high = wilson(1, 24)
    >>> round(float(low), 3), round(float(high), 3)
    (0.007, 0.202)
    """
    x, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    clopper_pearson(x, n, level)  # asks for the same of its arguments, and says what is wrong
    z2 = norm.ppf(0.5 + 0.5 * level) ** 2
    centre = (x + 0.5 * z2) / (n + z2)
    safe = np.where(n > 0, n, 1.0)
    reach = np.sqrt(z2 * (x * (n - x) / safe + 0.25 * z2)) / (n + z2)
    # Rounding must not open the two ends that are exact.
    return np.where(x > 0, centre - reach, 0.0), np.where(x < n, centre + reach, 1.0)


def detector_table(fired: ArrayLike, positive: ArrayLike, level: float = 0.95) -> DetectorTable:
    """Count alarms among runs with and runs without the event.

    A run without the event that fires is a false alarm, whatever ends it: the published counts leave out runs that
    never grok, so that none of them can be one.

    Args:
        fired: (n,) whether each run gave an alarm; in runs with the event, before it.
        positive: (n,) whether each run has the event.
        level: Of the intervals.

    Returns:
        The table. Source: standard result.

    Raises:
        SettingError: If the two differ in length or level is out of range.

    >>> table = detector_table([True] * 12, [True] * 6 + [False] * 6)  # fires in every run, grokking or not
    >>> table.p, round(table.false_alarm_interval[0], 2)
    (1.0, 0.54)
    """
    f, y = np.asarray(fired, dtype=bool), np.asarray(positive, dtype=bool)
    if f.ndim != 1 or f.shape != y.shape:
        raise SettingError(f"fired and positive must be (n,) for the same runs; got {f.shape} and {y.shape}.")
    hits, n_positive = int(np.sum(f & y)), int(y.sum())
    false_alarms, n_negative = int(np.sum(f & ~y)), int(np.sum(~y))
    ends = [clopper_pearson(*pair, level) for pair in ((hits, n_positive), (false_alarms, n_negative))]
    cells = [[hits, n_positive - hits], [false_alarms, n_negative - false_alarms]]
    return DetectorTable(
        hits,
        n_positive,
        false_alarms,
        n_negative,
        hits / n_positive if n_positive else float("nan"),
        (float(ends[0][0]), float(ends[0][1])),
        false_alarms / n_negative if n_negative else float("nan"),
        (float(ends[1][0]), float(ends[1][1])),
        float(fisher_exact(cells)[1]) if n_positive and n_negative else float("nan"),
    )
