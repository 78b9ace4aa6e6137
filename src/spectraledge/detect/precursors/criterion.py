"""One rule and what it did on development runs, and how the one to keep is chosen among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from .combination import Hazard
from .protocol import Verdict
from .rules import Judging, Rule
from .statistics import Group

CRITERION = (
    "Every seed is judged by rules made on the others. Eligible are candidates whose false alarms are at most 5 % of "
    "the runs without the event, or one run where that is more; of whose hits at most a tenth fall on the first "
    "judged snapshot, since a rule that is beyond its threshold as soon as it is looked at has the lead that the "
    "burn-in gives it; and which have a value in every run, since a run without one cannot raise a false alarm. Of "
    "these (of all, where there is none) the largest sensitivity wins; among equals the longest median lead; among "
    "these the first in the list."
)
"""How the winner is chosen, on development runs alone.

Leaving a seed out, the largest of all runs without the event is always above a threshold made on the others, so that
one false alarm is the least that any rule can have.
"""

_MOST_AT_START = 0.1


@dataclass(frozen=True, eq=False)
class Entry:
    """One rule, made on all development runs, and what it does.

    Attributes:
        rule: With the threshold from all development runs.
        group: "candidate", "baseline" or "outcome".
        in_sample: On the runs that the threshold is from: flatters.
        held_out: Every seed by a rule made on the others.
        traces: (n, T) of the development runs.
        at_start: Hits of ``held_out`` at the first snapshot at which an alarm can come.
        silent: Runs in which the rule never has a value, as those that compare with decay have none without it.
        hazard: Of a combination.
    """

    rule: Rule
    group: Group
    in_sample: Verdict
    held_out: Verdict
    traces: np.ndarray
    at_start: int
    silent: int
    hazard: Hazard | None = None


def choose(entries: Sequence[Entry], judging: Judging) -> str:
    """Name of the best entry by ``CRITERION``.

    Raises:
        DataError: If there is none.
    """
    if not entries:
        raise DataError("a choice takes at least one rule; the recordings hold the series of none. Record by block.")
    return max(entries, key=lambda e: merit(e, judging)).rule.name  # max keeps the first of equals


def eligible(entry: Entry, judging: Judging) -> bool:
    """Whether a rule keeps its false alarms, speaks in every run and, if a candidate, is not there at once."""
    table = entry.held_out.table
    allowed = max(judging.false_alarm_rate * table.n_negative + 1e-9, 1.0)
    at_once = entry.group == "candidate" and entry.at_start > _MOST_AT_START * table.hits
    return table.false_alarms <= allowed and not entry.silent and not at_once


def merit(entry: Entry, judging: Judging) -> tuple[bool, int, float]:
    """What ``CRITERION`` compares: larger is better."""
    median = entry.held_out.leads.median
    return eligible(entry, judging), entry.held_out.table.hits, median if np.isfinite(median) else -np.inf
