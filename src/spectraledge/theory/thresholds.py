"""Thresholds on a score of runs, tuned on training runs, and both error rates that they have on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spectraledge.errors import SettingError
from spectraledge.theory.proportions import DetectorTable, detector_table
from spectraledge.theory.roc import checked_scores


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it does.

    Attributes:
        threshold: An alarm is a score at or above it.
        table: Both rates with Clopper-Pearson intervals.
        attainable: Smallest false-alarm rate other than 0 that so few runs without the event can show.
    """

    threshold: float
    table: DetectorTable
    attainable: float


def tune_threshold(scores: ArrayLike, positive: ArrayLike, false_alarm_rate: float = 0.05) -> float:
    """Lowest threshold whose false-alarm rate on these runs is at most the one wanted: training runs only.

    Args:
        scores: (n,) of training runs.
        positive: (n,) whether each has the event.
        false_alarm_rate: At most, in [0, 1).

    Returns:
        A threshold for ``score >= threshold``: the smallest float above the first negative score that must not fire.
        Source: standard result.

    Raises:
        SettingError: If a score is missing, there is no run of one kind, or the rate is out of range.

    >>> 2.0 < tune_threshold([5.0, 3.0, 2.0, 1.0], [True, True, False, False]) < 2.001
    True
    """
    s, y = checked_scores(scores, positive)
    if not 0.0 <= false_alarm_rate < 1.0:
        raise SettingError(f"false_alarm_rate must lie in [0, 1); got {false_alarm_rate}. Use 0.05.")
    negative = np.sort(s[~y])[::-1]
    allowed = int(np.floor(false_alarm_rate * len(negative) + 1e-9))
    return float(np.nextafter(negative[allowed], np.inf))


def operating_point(scores: ArrayLike, positive: ArrayLike, threshold: float, level: float = 0.95) -> OperatingPoint:
    """Both error rates of a threshold that was fixed before, on other runs.

    Args:
        scores: (n,) of held-out runs.
        positive: (n,) whether each has the event.
        threshold: From :func:`tune_threshold` on training runs; one chosen on the same runs flatters.
        level: Of the intervals.

    Returns:
        The rates. With n runs without the event and no false alarm the upper end is still ``1 - 0.025^(1/n)``: 0.46
        for 6, 0.19 for 18, and 72 are needed for 0.05. Source: standard result.

    Raises:
        SettingError: If a score is missing or there is no run of one kind.

    >>> operating_point([5.0, 3.0, 2.0, 1.0], [True, True, False, False], 2.5).table.sensitivity
    1.0
    """
    s, y = checked_scores(scores, positive)
    return OperatingPoint(float(threshold), detector_table(s >= threshold, y, level), 1.0 / float(np.sum(~y)))


def sensitivity_at(
    scores: ArrayLike, positive: ArrayLike, false_alarm_rate: float = 0.05, level: float = 0.95
) -> OperatingPoint:
    """Sensitivity at a false-alarm rate, threshold and rates from the same runs: descriptive, and optimistic.

    Args:
        scores: (n,).
        positive: (n,).
        false_alarm_rate: At most.
        level: Of the intervals.

    Returns:
        The point. Its interval ignores that the threshold was chosen. Source: standard result.

    Raises:
        SettingError: As :func:`tune_threshold`.

    >>> sensitivity_at([5.0, 1.5, 2.0, 1.0], [True, True, False, False]).table.sensitivity
    0.5
    """
    return operating_point(scores, positive, tune_threshold(scores, positive, false_alarm_rate), level)
