"""Events of detectors as alerts of a tracker, and no flood of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..recording import Event

_TITLE = 63  # W&B admits titles below 64 characters


@dataclass(frozen=True)
class Alert:
    """One event, in words.

    Attributes:
        event: What was reported.
        held_back: Alike alerts that were not sent since the last one.
    """

    event: Event
    held_back: int = 0

    @property
    def step(self) -> int:
        """Optimizer step."""
        return self.event.step

    @property
    def title(self) -> str:
        """At most 63 characters."""
        title = f"{self.event.kind or 'event'} ({self.event.block})"
        return title if len(title) <= _TITLE else title[: _TITLE - 3] + "..."

    @property
    def text(self) -> str:
        """One line."""
        event = self.event
        words = [f"step {event.step}: {event.kind or 'event'} in {event.block}"]
        if event.detector:
            words.append(f"by {event.detector} ({event.value:.4g} against {event.threshold:.4g})")
        if event.detail:
            words.append(event.detail)
        if self.held_back:
            words.append(f"{self.held_back} alike held back since the last")
        return "; ".join(words)


class Cooldown:
    """Alerts of one detector on one block, at most one in ``seconds``.

    Args:
        seconds: Between two alike alerts; 0 sends all.
        clock: Seconds; never goes back.

    >>> from spectraledge.recording import Event
    >>> times = iter([0.0, 10.0, 400.0])
    >>> cooldown = Cooldown(300.0, clock=lambda: next(times))
    >>> event = Event(step=1, block="all", kind="gap opened").to_fields()
    >>> [alert and alert.held_back for alert in map(cooldown.admit, [event] * 3)]
    [0, None, 1]
    """

    def __init__(self, seconds: float = 300.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._last: dict[tuple[str, str, str], float] = {}
        self._held: dict[tuple[str, str, str], int] = {}

    def admit(self, fields: Mapping[str, Any]) -> Alert | None:
        """The alert for an event record, or None where a like one was sent just before."""
        event = Event.from_record(dict(fields))
        key = (event.detector, event.kind, event.block)
        now = self._clock()
        if key in self._last and now - self._last[key] < self.seconds:
            self._held[key] = self._held.get(key, 0) + 1
            return None
        self._last[key] = now
        return Alert(event, self._held.pop(key, 0))
