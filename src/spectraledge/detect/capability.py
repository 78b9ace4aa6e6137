"""Events of the metrics themselves, each at the evaluation at which it became known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

from ..recording import Recording
from ..recording.event import Event

GROK_RULES = (
    ("grok-0.90", "first evaluation >= 0.9", 0.90, 1),
    ("grok-0.95", "first evaluation >= 0.95", 0.95, 1),
    ("grok-0.98x3", "last of 3 consecutive evaluations >= 0.98", 0.98, 3),
)
"""Name, words, threshold, evaluations in a row: the published definitions, see ``detect.grok``."""

MEAN_POINTS = 5
SLOPE = 0.01
"""Change of a 5-point mean per evaluation that counts as rise or fall."""

PLATEAU_POINTS = 10
PLATEAU_RANGE = 0.02

SPIKE_POINTS = 10
SPIKE_FACTOR = 2.0
SPIKE_SCALES = 6.0
LOSSES = ("train_loss", "val_loss", "test_loss")


class CapabilityStream:
    """Grokking, plateaus, rises and falls of test accuracy, and spikes of losses, as evaluations come in.

    The accuracy is the smallest of the test metrics that are not losses, at steps where all known ones were
    evaluated. Everything uses the present and the past only:

    * ``grokking``: the three published definitions, once each.
    * ``capability gain`` / ``capability loss``: the mean of the last 5 evaluations differs from that of the 5 that
      ended one evaluation earlier by more than 0.01; again only after it went back to within half of that.
    * ``plateau``: 10 evaluations within 0.02 of each other, below 0.95; again only after they spread to 0.04.
    * ``loss spike``: a loss above twice the median of its last 10 values, and above it by 6 of their spreads (in
      logarithms); again only after it came back below.

    These rules have fixed constants and no error rate: they say what a metric did, not what chance would do.
    Source: definitions of grokking and the 5-point mean with 0.01 arXiv:2603.28964's scripts and the paper on
    spectral edge dynamics it cites, there applied to R and centred; others derived.

    >>> stream = CapabilityStream()
    >>> [e.detector for step, a in ((100, 0.1), (200, 0.93)) for e in stream.push(step, {"test_accuracy": a})]
    ['grok-0.90']
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.accuracy: list[float] = []
        self.losses: dict[str, list[float]] = {}
        self.streaks = {name: 0 for name, *_ in GROK_RULES}
        self.quiet: dict[str, bool] = {}

    def push(self, step: int, metrics: Mapping[str, float]) -> list[Event]:
        """The events that these evaluations complete."""
        events = []
        for name in LOSSES:
            if name in metrics and not math.isnan(metrics[name]):
                events += self._spike(step, name, float(metrics[name]))
        test = {k: float(v) for k, v in metrics.items() if k.startswith("test") and "loss" not in k}
        self.names |= set(test)
        if test and set(test) == self.names and all(0.0 <= v <= 1.0 for v in test.values()):
            value = min(test.values())
            self.accuracy = [*self.accuracy, value][-max(PLATEAU_POINTS, MEAN_POINTS + 1) :]
            events += self._grokking(step, value) + self._slope(step) + self._plateau(step)
        return events

    def state(self) -> dict[str, Any]:
        """All that is remembered, JSON-able."""
        return {
            "names": sorted(self.names),
            "accuracy": list(self.accuracy),
            "losses": {name: list(values) for name, values in self.losses.items()},
            "streaks": dict(self.streaks),
            "quiet": dict(self.quiet),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self.names, self.accuracy = set(state["names"]), list(state["accuracy"])
        self.losses = {name: list(values) for name, values in state["losses"].items()}
        self.streaks, self.quiet = dict(state["streaks"]), dict(state["quiet"])

    def _once(self, name: str, on: bool, over: bool) -> bool:
        """Whether ``on`` holds for the first time since ``over`` did."""
        if over:
            self.quiet[name] = False
        if not on or self.quiet.get(name, False):
            return False
        self.quiet[name] = True
        return True

    def _grokking(self, step: int, value: float) -> list[Event]:
        events = []
        for name, words, threshold, consecutive in GROK_RULES:
            self.streaks[name] = self.streaks[name] + 1 if value >= threshold else 0
            if self._once(name, self.streaks[name] >= consecutive, False):
                events.append(_event(step, "grokking", value, threshold, name, words))
        return events

    def _slope(self, step: int) -> list[Event]:
        if len(self.accuracy) <= MEAN_POINTS:
            return []
        recent = self.accuracy[-MEAN_POINTS - 1 :]
        slope = fmean(recent[1:]) - fmean(recent[:-1])
        words = f"{MEAN_POINTS}-point mean changed by {slope:+.3g} in one evaluation"
        events = []
        for name, kind, sign in (("slope-up", "capability gain", 1), ("slope-down", "capability loss", -1)):
            if self._once(name, sign * slope > SLOPE, sign * slope < 0.5 * SLOPE):
                events.append(_event(step, kind, slope, sign * SLOPE, name, words))
        return events

    def _plateau(self, step: int) -> list[Event]:
        if len(self.accuracy) < PLATEAU_POINTS:
            return []
        recent = self.accuracy[-PLATEAU_POINTS:]
        spread = max(recent) - min(recent)
        if not self._once("plateau", spread <= PLATEAU_RANGE and max(recent) < 0.95, spread >= 2 * PLATEAU_RANGE):
            return []
        words = f"{PLATEAU_POINTS} evaluations within {spread:.3g} of each other"
        return [_event(step, "plateau", spread, PLATEAU_RANGE, "plateau", words)]

    def _spike(self, step: int, name: str, value: float) -> list[Event]:
        values = self.losses.setdefault(name, [])
        events = []
        if len(values) == SPIKE_POINTS:
            centre = median(values)
            spread = 1.4826 * median(abs(v - centre) for v in values)
            limit = max(centre + math.log(SPIKE_FACTOR), centre + SPIKE_SCALES * spread)
            high = _log(value) > limit
            if self._once(f"spike {name}", high, not high):
                words = f"{name} against a median of {math.exp(centre):.3g} before"
                events.append(_event(step, "loss spike", value, math.exp(limit), f"spike {name}", words))
        self.losses[name] = [*values, _log(value)][-SPIKE_POINTS:]
        return events


def find_capability_events(recording: Recording) -> list[Event]:
    """Events of the metrics of a finished recording, in order of their steps: those the stream would have reported.

    Each evaluation counts at its own step, whether or not an update ended there.
    """
    by_step: dict[int, dict[str, float]] = {}
    for name, (steps, values) in recording.metrics.items():
        for step, value in zip(steps.tolist(), values.tolist()):
            by_step.setdefault(int(step), {})[name] = float(value)
    stream = CapabilityStream()
    return [event for step in sorted(by_step) for event in stream.push(step, by_step[step])]


def _log(loss: float) -> float:
    # Finite for a loss of 0 or infinity, so that the median and the saved state stay plain numbers.
    return math.log(min(max(loss, 1e-300), 1e300))


def _event(step: int, kind: str, value: float, threshold: float, detector: str, detail: str) -> Event:
    return Event(
        step=step, block="all", kind=kind, value=value, threshold=threshold, detector=detector, detail=detail
    )
