"""Trackio, without moving the step of the run it is shown in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from ..errors import SettingError, require
from .alerts import Alert
from .base import Sink

_HELD = 1000  # snapshots kept while nothing else has been logged


class TrackioSink(Sink):
    """Rows beside your own, at the step where these are.

    Trackio counts steps by the largest one it has seen, so a row of ours at a step of its own would move yours. Ours
    repeat the step of your latest row and carry the optimizer step as ``spectral_edge/step``, to be chosen as the
    axis. Until you have logged something they wait; if you never do, they are written at the end at the optimizer
    step.

    Args:
        run: From ``trackio.init``; None for the current one.
        own_run: The run is used by nothing else: every snapshot is written at once, at the optimizer step.

    Raises:
        SettingError: If no run is given and there is none.
        MissingDependencyError: If trackio is not installed.
    """

    name = "trackio"

    def __init__(self, run: Any = None, *, own_run: bool = False) -> None:
        trackio: Any = require("trackio", "trackio")
        if run is None:
            # a context variable, so of this thread: to be asked now, not in the sink's own
            run = trackio.context_vars.current_run.get()
        if run is None:
            raise SettingError(
                "A Trackio run must be current; there is none. Call trackio.init() first, or give run=."
            )
        self._run = run
        self._level = trackio.AlertLevel.WARN
        self._own_run = own_run
        self._held: deque[tuple[int, Mapping[str, float]]] = deque()

    def log(self, step: int, values: Mapping[str, float]) -> int | None:
        if self._own_run:
            self._run.log(dict(values), step=step)
            return None
        self._held.append((step, values))
        latest = int(self._run._next_step) - 1  # the only place where trackio says it
        if latest >= 0:
            while self._held:
                self._run.log(dict(self._held.popleft()[1]), step=latest)
        elif len(self._held) > _HELD:
            self._held.popleft()
            return 1
        return None

    def alert(self, alert: Alert) -> None:
        latest = max(int(self._run._next_step) - 1, 0)
        step = alert.step if self._own_run else latest
        self._run.alert(alert.title, alert.text, level=self._level, step=step)

    def close(self) -> None:
        latest = int(self._run._next_step) - 1
        while self._held:
            step, values = self._held.popleft()
            self._run.log(dict(values), step=latest if latest >= 0 and not self._own_run else step)
