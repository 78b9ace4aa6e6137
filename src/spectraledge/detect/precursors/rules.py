"""Rules: a statistic, read in several ways, that has to stay beyond a threshold for some snapshots in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ...errors import SettingError
from .runs import PrecursorRun
from .statistics import STATISTICS, Statistic

Form = Literal["high", "low", "rise", "fall", "moving rise", "moving fall", "above", "below"]
FORMS: tuple[Form, ...] = get_args(Form)
FORM_WORDS: dict[Form, str] = {
    "high": "its level, high",
    "low": "its level, low",
    "rise": "rise above its smallest so far",
    "fall": "fall below its largest so far",
    "moving rise": "rise above its smallest so far while the updates have their usual size",
    "moving fall": "fall below its largest so far while the updates have their usual size",
    "above": "rise above its value when the training loss was first below 0.1",
    "below": "fall below its value when the training loss was first below 0.1",
}
MEMORISED = 0.1
MOVING = 0.5
"""Share of its usual relative movement below which a part counts as at rest.

A run without decay whose loss collapses crawls along straight lines, a twentieth as fast as before: every measure of
coherence rises there, and nothing is learned.
"""
SILENT = -np.inf


@dataclass(frozen=True)
class Judging:
    """What all rules have in common; set before anything was looked at.

    Attributes:
        window: W.
        sustain: Snapshots in a row that an alarm takes.
        start: Snapshots after which a smallest or largest value is remembered: the windows are whole then.
        burn_in: Snapshots before anything is judged: the minimum useful time. 40 of 25 steps are 1,000.
        horizon: Last step that is judged [steps]; as long as every run without the event was followed.
        false_alarm_rate: Share of development runs without the event that may alarm.
    """

    window: int = 10
    sustain: int = 3
    start: int = 20
    burn_in: int = 40
    horizon: float = 5000.0
    false_alarm_rate: float = 0.05


@dataclass(frozen=True)
class Rule:
    """A rule with its threshold.

    Attributes:
        statistic: Name of the statistic, or of a combination.
        form: How it is read: one of ``FORM_WORDS``.
        threshold: Of the directed value; an alarm is a value at or above it, ``sustain`` times in a row.
    """

    statistic: str
    form: Form
    threshold: float

    @property
    def name(self) -> str:
        """Statistic and form."""
        return rule_name(self.statistic, self.form)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"statistic": self.statistic, "form": self.form, "threshold": self.threshold}


def rule_name(statistic: str, form: Form) -> str:
    """
    >>> rule_name("train loss", "low")
    'train loss (low)'
    """
    return f"{statistic} ({form})"


def directed(
    values: np.ndarray,
    form: Form,
    *,
    signed: bool,
    start: int = 0,
    memorised: int | None = None,
    moving: np.ndarray | None = None,
) -> np.ndarray:
    """A series read so that large values count.

    Changes are logs of ratios, or differences where the statistic is signed. All are causal.

    Args:
        values: (T).
        form: One of ``FORM_WORDS``.
        signed: Whether values may be negative.
        start: First row of which a smallest or largest value is remembered.
        memorised: Row at which the training loss was first below ``MEMORISED``; None for never.
        moving: (T) whether the parameters move as they use to; all rows where None. For "moving" forms rows at rest
            have no value and are not remembered; others do not ask.

    Returns:
        (T); NaN where there is nothing to compare with.

    Raises:
        SettingError: For another form.

    >>> directed(np.array([4.0, 1.0, 2.0]), "rise", signed=True)
    array([0., 0., 1.])
    """
    if form not in FORMS:
        raise SettingError(f"form must be one of {', '.join(FORMS)}; got {form!r}. 'rise' needs no scale.")
    if form in ("high", "low"):
        return values if form == "high" else -values
    with np.errstate(invalid="ignore", divide="ignore"):
        x = values if signed else np.log(np.where(values > 0, values, np.nan))
    if form in ("rise", "fall", "moving rise", "moving fall"):
        kept = x.copy()
        kept[:start] = np.nan
        if form.startswith("moving") and moving is not None:
            kept[~moving] = np.nan
        return kept - np.fmin.accumulate(kept) if form.endswith("rise") else np.fmax.accumulate(kept) - kept
    since = np.full(len(x), np.nan)
    if memorised is not None:
        known = np.flatnonzero(np.isfinite(x[memorised:]))
        if len(known):
            first = memorised + int(known[0])
            since[first:] = x[first:] - x[first]
    return since if form == "above" else -since


def memorised_row(run: PrecursorRun) -> int | None:
    """First snapshot at which a training loss below ``MEMORISED`` had been logged; None for never."""
    loss = run.history.metric("train_loss")
    rows = np.flatnonzero(loss < MEMORISED) if loss is not None else np.empty(0, dtype=np.intp)
    return int(rows[0]) if len(rows) else None


def is_moving(movement: np.ndarray, start: int) -> np.ndarray:
    """(T) whether a movement is at least ``MOVING`` times its median from row ``start`` on to the present one.

    >>> is_moving(np.array([9.0, 2.0, 2.0, 0.1, 2.0]), 1)
    array([False,  True,  True, False,  True])
    """
    out = np.zeros(len(movement), dtype=bool)
    for t in range(start, len(movement)):
        out[t] = movement[t] >= MOVING * usual_movement(movement[start : t + 1])
    return out


def usual_movement(past: np.ndarray) -> float:
    """Median of the movements that are known; NaN for none."""
    known = past[np.isfinite(past)]
    return float(np.median(known)) if len(known) else float("nan")


def moving_rows(run: PrecursorRun, statistic: Statistic, form: Form, judging: Judging) -> np.ndarray | None:
    """What ``directed`` asks for: of the part that a statistic reads; None where the form does not ask."""
    if not form.startswith("moving"):
        return None
    part = run.history.part(statistic.part)
    return None if part is None else part.remembered(judging.start, is_moving)


def sustained(values: np.ndarray, steps: np.ndarray, judging: Judging) -> np.ndarray:
    """(T) smallest of the last ``sustain`` judged values; -inf where there are fewer, so that it never alarms."""
    judged = np.where(np.isnan(values) | (steps > judging.horizon), SILENT, values)
    judged[: judging.burn_in] = SILENT
    out = np.full(len(judged), SILENT)
    if len(judged) >= judging.sustain:
        out[judging.sustain - 1 :] = np.lib.stride_tricks.sliding_window_view(judged, judging.sustain).min(axis=1)
    return out


def series_of(run: PrecursorRun, statistic: Statistic) -> np.ndarray | None:
    """(T) values of a statistic in a run, infinite ones as missing; None where the recording does not hold it."""
    values = statistic.compute(run.history)
    return None if values is None else np.where(np.isfinite(values), values, np.nan)


def traces_of(runs: Sequence[PrecursorRun], statistic: str, form: Form, judging: Judging) -> np.ndarray | None:
    """(n, T) sustained traces of one statistic and form over runs, padded with -inf; None where a run lacks it."""
    found = [series_of(run, STATISTICS[statistic]) for run in runs]
    moving = [moving_rows(run, STATISTICS[statistic], form, judging) for run in runs]
    return form_traces(runs, found, form, judging, signed=STATISTICS[statistic].signed, moving=moving)


def form_traces(
    runs: Sequence[PrecursorRun],
    series: Sequence[np.ndarray | None],
    form: Form,
    judging: Judging,
    *,
    signed: bool,
    moving: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray | None:
    """The same of series that are there already, and of the rows at which each run moves."""
    out = np.full((len(runs), max(len(run.history.steps) for run in runs)), SILENT)
    for row, run, values, moves in zip(out, runs, series, moving or [None] * len(runs)):
        if values is None:
            return None
        x = directed(values, form, signed=signed, start=judging.start, memorised=memorised_row(run), moving=moves)
        row[: len(x)] = sustained(x, run.history.steps, judging)
    return out


def first_alarms(runs: Sequence[PrecursorRun], traces: np.ndarray, threshold: float) -> np.ndarray:
    """(n) step of the first value at or above the threshold; NaN for none."""
    fired = np.asarray(traces >= threshold)
    first, ever = np.argmax(fired, axis=1), np.any(fired, axis=1)
    return np.array(
        [run.history.steps[i] if hit else np.nan for run, i, hit in zip(runs, first.tolist(), ever.tolist())],
        dtype=np.float64,
    )
