"""Thresholds that keep the false alarms of a run at a level, by detector, level and length of the run."""

from __future__ import annotations

import numpy as np

from ..errors import SettingError
from .threshold_table import HORIZONS, LEVELS, TABLE

CALIBRATED_WINDOW = 10


def threshold(name: str, window: int = CALIBRATED_WINDOW, level: float = 0.05, horizon: int = 400) -> float:
    """What the statistic of a detector has to pass in three windows in a row.

    The table holds the largest, over the nulls A to I of ``detect.null_runs``, of the quantile that a share of
    ``level / 2`` of runs of ``horizon`` judged windows passes; half of the level is kept back for the error of the
    simulation and for settings that are worse than those drawn. It was made at W = 10. Shorter windows overlap less,
    so more of them are independent; longer ones were found to have wider tails: both count as runs longer by the
    ratio of the windows. Between entries the threshold is linear in the logarithms of level and horizon, and it goes
    on so above the longest horizon, by the steeper of its last and its mean slope; below the shortest it stays.
    Source: derived, simulated.

    Args:
        name: A detector.
        window: W.
        level: Share of runs with a false alarm, 0.01 to 0.1.
        horizon: Judged windows of a run.

    Raises:
        SettingError: For an unknown detector, or a level or horizon that is not in the table.

    >>> threshold("coherence-loss") > threshold("coherence-loss", level=0.1)
    True
    """
    if name not in TABLE:
        raise SettingError(f"a threshold belongs to one of {', '.join(TABLE)}; got {name!r}. Choose one of them.")
    if not LEVELS[0] <= level <= LEVELS[-1]:
        raise SettingError(
            f"level must lie in {LEVELS[0]:g}..{LEVELS[-1]:g}; got {level}. 0.05 means one false alarm in 20 runs."
        )
    if horizon < 1 or window < 1:
        raise SettingError(f"horizon and window must be at least 1; got {horizon} and {window}. Use horizon=400.")
    at = np.log(horizon * max(CALIBRATED_WINDOW / window, window / CALIBRATED_WINDOW))
    known = np.log(HORIZONS)
    by_level = [_line(at, known, np.array(row)) for row in TABLE[name]]
    # Lines of three levels may cross where they are prolonged: the rarer alarm never has the lower threshold.
    falling = np.maximum.accumulate(by_level[::-1])[::-1]
    return float(np.interp(np.log(level), np.log(LEVELS), falling))


def _line(x: float, known: np.ndarray, values: np.ndarray) -> float:
    if x <= known[-1]:
        return float(np.interp(x, known, values))
    slope = max(
        (values[-1] - values[-2]) / (known[-1] - known[-2]), (values[-1] - values[0]) / (known[-1] - known[0])
    )
    return float(values[-1] + slope * (x - known[-1]))
