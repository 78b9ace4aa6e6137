"""Anything that takes a step and a dictionary of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .alerts import Alert
from .base import Sink


class CallbackSink(Sink):
    """Functions of your own as a tracker; they are called from a thread of their own.

    Args:
        log: Takes the step and the values by key.
        alert: Takes an ``Alert``; None to leave alerts out.
        name: For messages.

    >>> seen = []
    >>> CallbackSink(lambda step, values: seen.append((step, dict(values)))).log(3, {"spectral_edge/k_star": 2.0})
    >>> seen
    [(3, {'spectral_edge/k_star': 2.0})]
    """

    def __init__(
        self,
        log: Callable[[int, Mapping[str, float]], object],
        alert: Callable[[Alert], object] | None = None,
        *,
        name: str = "callback",
    ) -> None:
        self.name = name
        self._log = log
        self._alert = alert

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._log(step, values)

    def alert(self, alert: Alert) -> None:
        if self._alert is not None:
            self._alert(alert)
