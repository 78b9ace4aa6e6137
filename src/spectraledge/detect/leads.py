"""How long before the event an alarm came, and whether it says when the event comes any better than a clock does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..theory.bootstrap import cluster_bootstrap
from ..theory.proportions import DetectorTable, detector_table
from ..theory.survival_times import kaplan_meier, lead_times


@dataclass(frozen=True)
class Lead:
    """Lead times over runs with the event.

    Attributes:
        n: Runs.
        n_before: Runs with an alarm before the event.
        n_after: Runs with an alarm at the event or after it.
        median: Kaplan-Meier median of event minus alarm [steps], negative for "after"; runs without alarm are
            censored. NaN where less than half of the runs alarmed.
        low: Lower end of its interval; -inf where fewer alarms than that would allow it.
        high: Upper end.
    """

    n: int
    n_before: int
    n_after: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class OperatingRow:
    """A threshold, and what it does on held-out runs.

    Attributes:
        label: "5 %" or "10 %" (of false alarms in training), or "fixed": the threshold that the signal comes with.
        thresholds: One a fold, for the directed value.
        table: Sensitivity (alarm before the event) and false-alarm rate, with Clopper-Pearson intervals.
        lead: Of the alarms.
    """

    label: str
    thresholds: tuple[float, ...]
    table: DetectorTable
    lead: Lead


@dataclass(frozen=True)
class Timing:
    """How well alarms say when the event comes, on held-out runs with the event.

    The event is expected at the alarm plus the median lead of training runs of the same group; without an alarm
    before the event, at the median event step of these, which is all that a clock ever says.

    Attributes:
        error: Median of |event - expected| [steps].
        clock: The same of the clock.
        gain: Mean of the clock's error less its own [steps].
        low: Lower end of its bootstrap interval over runs: 95 % for all signals at once.
        high: Upper end.
        n: Runs.
        n_alarms: Those of them with an alarm before the event.
    """

    error: float
    clock: float
    gain: float
    low: float
    high: float
    n: int
    n_alarms: int


def summarise_leads(alarm: np.ndarray, event: np.ndarray, end: np.ndarray) -> Lead:
    """Leads of n runs, all of which have the event.

    Args:
        alarm: (n) step of the first alarm; NaN for none.
        event: (n) step of the event.
        end: (n) last step.

    >>> at = np.array([300.0, 500.0, np.nan])
    >>> found = summarise_leads(at, np.array([400.0, 450.0, 500.0]), np.full(3, 600.0))
    >>> found.n_before, found.n_after, found.median
    (1, 1, -50.0)
    """
    if not len(event):
        return Lead(0, 0, 0, float("nan"), float("nan"), float("nan"))
    found = lead_times(alarm, event, end)
    curve = kaplan_meier(-found.lead, ~found.left)
    before = int(np.sum(alarm < event))
    # The delay's upper end is the lead's lower one; a band that never comes down leaves it open.
    low = -curve.median_high if np.isfinite(curve.median_high) else float("-inf")
    high = -curve.median_low if np.isfinite(curve.median_low) else float("-inf")
    return Lead(len(event), before, int(np.sum(alarm >= event)), -curve.median, low, high)


def operating_row(
    label: str,
    thresholds: tuple[float, ...],
    alarm: np.ndarray,
    event: np.ndarray,
    end: np.ndarray,
    until: np.ndarray,
) -> OperatingRow:
    """Rates and leads of first alarms.

    Args:
        label: Of the row.
        thresholds: One a fold.
        alarm: (n) first alarms; NaN for none.
        event: (n) NaN for runs without.
        end: (n) last steps.
        until: (n) step up to which an alarm in a run without the event is a false one.
    """
    positive = np.isfinite(event)
    fired = np.where(positive, alarm < event, alarm <= until)
    return OperatingRow(
        label,
        thresholds,
        detector_table(fired, positive),
        summarise_leads(alarm[positive], event[positive], end[positive]),
    )


def expected_steps(
    alarm: np.ndarray,
    event: np.ndarray,
    group: Sequence[str],
    train_alarm: np.ndarray,
    train_event: np.ndarray,
    train_group: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Step at which the event is expected in n held-out runs with the event, by alarms and by the clock alone.

    Both learn from training runs of the same group (the same task, say) where there are any, and from all otherwise.

    Args:
        alarm: (n) first alarms; NaN for none. One that comes no earlier than the event is not used.
        event: (n) events.
        group: (n) groups.
        train_alarm: (m) first alarms of training runs with the event.
        train_event: (m) their events.
        train_group: (m) their groups.

    Returns:
        (n) by alarms, (n) by the clock.

    >>> alarm, event, known = np.array([100.0, np.nan]), np.array([300.0, 200.0]), np.array([220.0])
    >>> expected_steps(alarm, event, ["a", "a"], np.array([50.0]), known, ["a"])
    (array([270., 220.]), array([220., 220.]))
    """
    early = train_alarm < train_event
    lead = train_event - train_alarm
    expected, clock = np.empty(len(event)), np.empty(len(event))
    for i, own in enumerate(group):
        alike = np.array([g == own for g in train_group], dtype=bool)
        clock[i] = np.median(train_event[alike] if alike.any() else train_event)
        known = early & alike if (early & alike).any() else early
        expected[i] = alarm[i] + np.median(lead[known]) if known.any() and alarm[i] < event[i] else clock[i]
    return expected, clock


def timing(
    expected: np.ndarray,
    clock: np.ndarray,
    event: np.ndarray,
    n_alarms: int,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Timing:
    """Errors of expected steps against those of a clock, over n runs.

    Args:
        expected: (n) from ``expected_steps``.
        clock: (n) from the same.
        event: (n).
        n_alarms: Runs in which an alarm was used.
        rng: Of the resamples.
        level: Of the interval of the gain.
    """
    error, base = np.abs(event - expected), np.abs(event - clock)
    gain = base - error
    low = high = float("nan")
    if len(event) > 1:
        interval = cluster_bootstrap(np.mean, gain.tolist(), rng=rng, level=level)
        low, high = float(interval.low), float(interval.high)
    return Timing(
        float(np.median(error)), float(np.median(base)), float(np.mean(gain)), low, high, len(event), n_alarms
    )
