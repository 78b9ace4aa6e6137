"""Times to an event, not all of which were seen: Kaplan-Meier, its median, and lead times of alarms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KaplanMeier:
    """Survival curve: constant from each time to the next.

    Attributes:
        times: (m,) distinct times of events, ascending.
        survival: (m,) share still without the event just after each.
        low: (m,) lower end of the pointwise log-log interval; NaN where the curve has reached 0.
        high: (m,) upper end.
        at_risk: (m,) units without event and under observation just before.
        events: (m,) events at each.
        n: Units.
        n_censored: Units whose event was not seen.
        median: First time at which survival is at most one half; NaN if it stays above.
        median_low: First time at which the lower band is at most one half; NaN if never.
        median_high: The same of the upper band.
    """

    times: Array
    survival: Array
    low: Array
    high: Array
    at_risk: NDArray[np.int64]
    events: NDArray[np.int64]
    n: int
    n_censored: int
    median: float
    median_low: float
    median_high: float

    def at(self, time: ArrayLike) -> Array:
        """(...) survival at given times: 1 before the first event."""
        index = np.searchsorted(self.times, np.asarray(time, dtype=np.float64), side="right")
        return np.r_[1.0, self.survival][index]


@dataclass(frozen=True)
class LeadTimes:
    """Lead of the alarm over the event, run by run; runs with neither are left out.

    Attributes:
        run: (m,) index of each run kept.
        lead: (m,) event minus alarm, or the limit known of it.
        right: (m,) alarm, but no event by the end: the lead is *larger* than given (if the event comes at all).
        left: (m,) event, but no alarm by the end: the lead is *smaller* than given, which is not positive.
    """

    run: NDArray[np.int64]
    lead: Array
    right: NDArray[np.bool_]
    left: NDArray[np.bool_]


def kaplan_meier(times: ArrayLike, observed: ArrayLike, level: float = 0.95) -> KaplanMeier:
    """Kaplan-Meier curve of right-censored times.

    ``S(t) = prod_{t_i <= t} (1 - d_i / n_i)``; interval ``S^(exp(+-z s))`` with ``s^2 = [sum d_i / (n_i (n_i - d_i))]
    / (log S)^2`` (Greenwood on the log-log scale), which stays in [0, 1]. A unit censored at the time of an
    event counts as at risk there.

    Args:
        times: (n,) time of the event, or of the last look, any unit, of any sign.
        observed: (n,) whether the event was seen.
        level: Of the pointwise interval and that of the median.

    Returns:
        The curve. Censoring must not depend on what is to come: a run ended *because* it showed no sign breaks it.
        Source: standard result (Kaplan and Meier 1958; median interval Brookmeyer and Crowley 1982, log-log).

    Raises:
        SettingError: If shapes do not match, a time is missing, or level is not in (0, 1).

    >>> curve = kaplan_meier([2.0, 3.0, 3.0, 5.0], [True, True, False, True])
    >>> curve.survival, curve.median
    (array([0.75, 0.5 , 0.  ]), 3.0)
    """
    t, seen = np.asarray(times, dtype=np.float64), np.asarray(observed, dtype=bool)
    if t.ndim != 1 or t.shape != seen.shape or len(t) == 0 or not np.isfinite(t).all():
        raise SettingError(
            f"times and observed must be (n,), times finite, n at least 1; got {t.shape} and {seen.shape}. Give a "
            "run without the event its last step and observed False."
        )
    if not 0.0 < level < 1.0:
        raise SettingError(f"level must lie in (0, 1); got {level}. Use 0.95.")
    at, events = np.unique(t[seen], return_counts=True)
    at_risk = np.sum(t[:, None] >= at, axis=0)
    survival = np.cumprod(1.0 - events / at_risk)
    z = float(norm.ppf(0.5 + 0.5 * level))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_s = np.log(survival)
        spread = np.sqrt(np.cumsum(events / (at_risk * (at_risk - events)))) / np.abs(log_s)
        low, high = survival ** np.exp(z * spread), survival ** np.exp(-z * spread)
    known = survival > 0.0
    low, high = np.where(known, low, np.nan), np.where(known, high, np.nan)
    return KaplanMeier(
        at,
        survival,
        low,
        high,
        at_risk,
        events,
        len(t),
        int(np.sum(~seen)),
        _first(at, survival),
        # Where the curve has reached 0, the lower band has been there, too; the upper one is not known.
        _first(at, np.where(known, low, 0.0)),
        _first(at, np.where(known, high, np.inf)),
    )


def lead_times(alarm: ArrayLike, event: ArrayLike, end: ArrayLike) -> LeadTimes:
    """Lead times of alarms, with what the end of each run leaves unknown.

    A run with an event and no alarm has a lead *below* ``event - end``: censored from the left. To give it a
    right-censored positive lead counts a miss as a success. Kaplan-Meier takes one kind at a time: the time from the
    start to the alarm (right-censored at ``end``), or ``-lead`` for runs that have the event (right-censored at
    ``end - event`` where the alarm is missing).

    Args:
        alarm: (n,) step of the first alarm; NaN for none.
        event: (n,) step of the event; NaN for none.
        end: (n,) last step of each run.

    Returns:
        The leads [steps]. Source: derived.

    Raises:
        SettingError: If shapes do not match or something comes after the end.

    >>> found = lead_times([100.0, np.nan, 50.0], [400.0, 300.0, np.nan], [500.0, 500.0, 500.0])
    >>> found.lead, found.left
    (array([ 300., -200.,  450.]), array([False,  True, False]))
    """
    a, e, last = (np.asarray(v, dtype=np.float64) for v in (alarm, event, end))
    if a.ndim != 1 or a.shape != e.shape or a.shape != last.shape or not np.isfinite(last).all():
        raise SettingError(
            f"alarm, event and end must be (n,), end finite; got {a.shape}, {e.shape} and {last.shape}."
        )
    if np.any(a > last) or np.any(e > last):
        raise SettingError("No alarm or event can come after the end of its run. Give each run its last step.")
    no_alarm, no_event = np.isnan(a), np.isnan(e)
    lead = np.where(no_event, last, e) - np.where(no_alarm, last, a)
    kept = ~(no_alarm & no_event)
    return LeadTimes(np.flatnonzero(kept), lead[kept], (no_event & ~no_alarm)[kept], (no_alarm & ~no_event)[kept])


def _first(times: Array, curve: Array) -> float:
    reached = np.flatnonzero(curve <= 0.5)
    return float(times[reached[0]]) if len(reached) else float("nan")
