"""Control charts: how a standardised statistic becomes an alarm, one row after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

Direction = Literal["up", "down", "both"]

LARGEST = 100.0
"""Standardised values are cut here, so that one broken row cannot hold a chart up for long."""


class Chart:
    """Alarm after ``sustain`` rows in a row above the threshold; then quiet until it is over.

    An alarm comes again only after the statistic fell below ``release`` times the threshold (hysteresis) and
    ``cooldown`` rows have passed. A row that cannot be judged (NaN) ends a streak and changes nothing else.

    Args:
        threshold: What the statistic has to pass.
        direction: Side that counts.
        sustain: Rows in a row.
        release: Share of the threshold.
        cooldown: Rows.
    """

    def __init__(
        self,
        threshold: float,
        *,
        direction: Direction = "up",
        sustain: int = 3,
        release: float = 0.5,
        cooldown: int = 10,
    ) -> None:
        self.threshold, self.direction = threshold, direction
        self.sustain, self.release, self.cooldown = sustain, release, cooldown
        self.streak, self.wait, self.armed = 0, 0, True
        self.memory: list[float] = [0.0, 0.0, 0.0]

    def statistic(self, z: float) -> float:
        """Take in one value, oriented so that up counts; the statistic after it."""
        raise NotImplementedError

    def run(self, values: Iterable[float]) -> tuple[list[float], list[bool]]:
        """Statistic after each value, and whether it completed an alarm."""
        statistics, alarms = [], []
        sign = -1.0 if self.direction == "down" else 1.0
        both = self.direction == "both"
        step = self.statistic
        threshold, released = self.threshold, self.release * self.threshold
        for value in values:
            self.wait -= self.wait > 0
            if value != value:
                self.streak = 0
                statistics.append(value)
                alarms.append(False)
                continue
            z = min(max(sign * value, -LARGEST), LARGEST)
            s = step(abs(z) if both else z)
            self.streak = self.streak + 1 if s > threshold else 0
            if not self.armed and s < released and self.wait == 0:
                self.armed = True
            alarm = self.armed and self.streak >= self.sustain
            if alarm:
                self.armed, self.wait = False, self.cooldown
            statistics.append(s)
            alarms.append(alarm)
        return statistics, alarms

    def state(self) -> dict[str, Any]:
        """All that changes, JSON-able."""
        return {"streak": self.streak, "wait": self.wait, "armed": self.armed, "memory": list(self.memory)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state()``."""
        self.streak, self.wait, self.armed = int(state["streak"]), int(state["wait"]), bool(state["armed"])
        self.memory = [float(x) for x in state["memory"]]


class Ewma(Chart):
    """Exponentially weighted mean ``s += weight (z - s)``; weight 1 is Shewhart's chart.

    >>> Ewma(2.0, weight=0.5, sustain=1).run([0.0, 4.0, 4.0])
    ([0.0, 2.0, 3.0], [False, False, True])
    """

    def __init__(self, threshold: float, *, weight: float = 1.0, **options: Any) -> None:
        super().__init__(threshold, **options)
        self.weight = weight

    def statistic(self, z: float) -> float:
        self.memory[0] += self.weight * (z - self.memory[0])
        return self.memory[0]


class Cusum(Chart):
    """Page's cumulated sum ``s = max(0, s + z - allowance)``, at most twice the threshold.

    >>> Cusum(3.0, allowance=1.0, sustain=1).run([0.0, 3.0, 3.0])
    ([0.0, 2.0, 4.0], [False, False, True])
    """

    def __init__(self, threshold: float, *, allowance: float = 2.0, **options: Any) -> None:
        super().__init__(threshold, **options)
        self.allowance = allowance

    def statistic(self, z: float) -> float:
        # The cut lets the chart come down after a lasting change; below the threshold it changes nothing.
        self.memory[0] = min(max(0.0, self.memory[0] + z - self.allowance), 2.0 * self.threshold)
        return self.memory[0]


class PageHinkley(Chart):
    """Page-Hinkley: cumulated deviation from the running mean since the start, above its smallest value so far.

    >>> PageHinkley(3.0, allowance=0.0, sustain=1).run([0.0, 0.0, 6.0])
    ([0.0, 0.0, 4.0], [False, False, True])
    """

    def __init__(self, threshold: float, *, allowance: float = 1.0, **options: Any) -> None:
        super().__init__(threshold, **options)
        self.allowance = allowance

    def statistic(self, z: float) -> float:
        n, mean, s = self.memory
        n += 1.0
        mean += (z - mean) / n
        # Kept as the distance above the smallest value, which follows the same recursion as the two of them.
        s = min(max(0.0, s + z - mean - self.allowance), 2.0 * self.threshold)
        self.memory = [n, mean, s]
        return s


def sustained_maximum(statistics: np.ndarray, sustain: int = 3) -> float:
    """Largest value that ``sustain`` rows in a row reached: an alarm comes where it passes the threshold.

    >>> sustained_maximum(np.array([0.0, 5.0, 2.0, 3.0, 9.0]), 2)
    3.0
    """
    if len(statistics) < sustain:
        return float("-inf")
    rows = np.lib.stride_tricks.sliding_window_view(statistics, sustain)
    lowest = rows.min(axis=1)
    lowest = lowest[np.isfinite(lowest)]
    return float(lowest.max()) if len(lowest) else float("-inf")
