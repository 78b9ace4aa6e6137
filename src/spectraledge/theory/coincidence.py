"""Event coincidence: are events preceded by alarms more often than by alarms at other times of the same run?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coincidence:
    """Alarms before events.

    Attributes:
        precursor_rate: Share of events with an alarm at most ``horizon`` before.
        trigger_rate: Share of alarms with an event at most ``horizon`` after.
        expected: Mean precursor rate over all shifts: what alarms of the same number and rhythm get by chance.
        p: Chance of a precursor rate as large under shifts, one-sided.
        n_events: Events of all runs.
        n_alarms: Alarms of all runs.
        n_preceded: Events preceded.
        smallest_p: Smallest p that the record could give.
    """

    precursor_rate: float
    trigger_rate: float
    expected: float
    p: float
    n_events: int
    n_alarms: int
    n_preceded: int
    smallest_p: float


def event_coincidence(
    alarms: Sequence[ArrayLike], events: Sequence[ArrayLike], horizon: int, *, delay: int = 1
) -> Coincidence:
    """Test whether alarms come shortly before events, run by run.

    An event at t is preceded if an alarm is in ``t - horizon .. t - delay``. Null: the alarms of each run are turned
    around in time, all by the same amount, uniformly from 0 to T - 1 and independently of other runs. The law of the
    number of preceded events is a convolution of the runs' own, so that the p-value is exact and nothing is drawn.

    Turning keeps the alarms' number and clustering. It takes alarms as equally likely at all times; where both alarms
    and events come late in every run, as in training, a fixed clock passes as well: compare with such an alarm.

    Args:
        alarms: For each run a (T,) series of truth values, one for each evaluation; lengths may differ.
        events: For each run a (T,) series in step with it.
        horizon: Longest lead that counts [evaluations], at least ``delay``.
        delay: Shortest lead that counts; 0 counts an alarm at the event itself.

    Returns:
        The test; rates NaN without events or alarms, p 1 without events. Source: standard result (event coincidence
        analysis, Donges et al. 2016); exact p-value over runs derived.

    Raises:
        SettingError: If shapes do not match or horizon and delay are out of order.

    >>> alarm, event = np.zeros(100), np.zeros(100)
    >>> alarm[57], event[60] = 1, 1
    >>> found = event_coincidence([alarm], [event], horizon=5)
    >>> found.precursor_rate, found.p
    (1.0, 0.05)
    """
    if not 0 <= delay <= horizon:
        raise SettingError(f"delay must lie in 0..horizon; got {delay} and {horizon}. Leads count from delay on.")
    if len(alarms) != len(events) or len(alarms) == 0:
        raise SettingError(f"alarms and events must hold the same runs; got {len(alarms)} and {len(events)}.")
    law = np.ones(1)
    preceded = followed = n_events = n_alarms = 0
    for given_alarm, given_event in zip(alarms, events):
        alarm, event = np.asarray(given_alarm, dtype=bool), np.asarray(given_event, dtype=bool)
        if alarm.ndim != 1 or alarm.shape != event.shape or len(alarm) == 0:
            raise SettingError(
                f"alarms and events of a run must be (T,) in step; got {alarm.shape} and {event.shape}. Give truth "
                "values for each evaluation."
            )
        counts = _preceded_at_shifts(alarm, np.flatnonzero(event), horizon, delay)
        law = np.convolve(law, np.bincount(counts, minlength=int(event.sum()) + 1) / len(alarm))
        preceded += int(counts[0])
        # Seen from the alarms, time runs backwards.
        followed += int(_preceded_at_shifts(event[::-1], np.flatnonzero(alarm[::-1]), horizon, delay)[0])
        n_events, n_alarms = n_events + int(event.sum()), n_alarms + int(alarm.sum())
    possible = law[law > 1e-300]
    return Coincidence(
        precursor_rate=preceded / n_events if n_events else float("nan"),
        trigger_rate=followed / n_alarms if n_alarms else float("nan"),
        expected=float(law @ np.arange(len(law))) / n_events if n_events else float("nan"),
        p=min(1.0, round(float(law[preceded:].sum()), 15)),
        n_events=n_events,
        n_alarms=n_alarms,
        n_preceded=preceded,
        smallest_p=float(possible[-1]),
    )


def _preceded_at_shifts(
    alarm: NDArray[np.bool_], at: NDArray[np.intp], horizon: int, delay: int
) -> NDArray[np.int64]:
    """(T,) events preceded by an alarm, for alarms turned by 0..T - 1. No look-back crosses the record's start."""
    n = len(alarm)
    total = np.zeros(n, dtype=np.int64)
    # Twice the record, so that a stretch that wraps is a stretch.
    cumulated = np.r_[0, np.cumsum(np.r_[alarm, alarm])]
    shift = np.arange(n)
    for t in at.tolist():
        first, last = max(t - horizon, 0), t - delay
        if last < first:
            continue
        # Turned by s, what stands at i was at i - s.
        start = (first - shift) % n
        total += cumulated[start + last - first + 1] > cumulated[start]
    return total
