"""Weights & Biases, without moving the step of the run it is shown in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from ..errors import SettingError, require
from .alerts import Alert
from .base import Sink
from .keys import ROOT, STEP

_HELD = 1000  # snapshots kept while nothing else has been logged


class WandbSink(Sink):
    """Values merged into the rows that you log yourself.

    W&B has one step for all that is logged to a run. A row of ours would advance it, and a later row of yours with
    a lower ``step=`` would be dropped. So nothing is ever committed while you log: values join the row that is
    open, and charts use ``spectral_edge/step`` as their axis (``define_metric``). One row holds one snapshot. Of
    several between two of your own rows the newest is kept; ``health/dropped`` counts the others. If nothing else
    is logged to the run until the end, every snapshot becomes a row of its own there.

    Args:
        run: From ``wandb.init``; None for the active one.
        own_run: The run is used by nothing else: every snapshot is a row of its own, at once.

    Raises:
        SettingError: If no run is given and none is active.
        MissingDependencyError: If wandb is not installed.
    """

    name = "wandb"

    def __init__(self, run: Any = None, *, own_run: bool = False) -> None:
        if run is None:
            wandb: Any = require("wandb", "wandb")
            run = wandb.run
        if run is None:
            raise SettingError("A W&B run must be active; there is none. Call wandb.init() first, or give run=.")
        self._run = run
        self._own_run = own_run
        self._merged_at: int | None = None  # step of the row that holds our last values
        self._held: deque[Mapping[str, float]] = deque()
        run.define_metric(STEP, hidden=True)
        run.define_metric(f"{ROOT}/*", step_metric=STEP)

    def log(self, step: int, values: Mapping[str, float]) -> int | None:
        if self._own_run:
            self._run.log(dict(values), commit=True)  # no step: after a rewind it would be a lower one
            return None
        self._held.append(values)
        at = self._at()
        if at > 0 and at != self._merged_at:
            return self._merge(at)
        replaced = max(0, len(self._held) - (1 if at > 0 else _HELD))  # at step 0 perhaps nobody else logs: see close
        for _ in range(replaced):
            self._held.popleft()
        return replaced

    def alert(self, alert: Alert) -> None:
        self._run.alert(alert.title, alert.text, level="WARN", wait_duration=0)

    def close(self) -> int | None:
        if self._own_run or not self._held:
            return None
        at = self._at()
        if at > 0 and at != self._merged_at:
            return self._merge(at)
        if at == 0:  # nothing but ours: rows of our own disturb nobody
            for values in self._held:
                self._run.log(dict(values), commit=True)
            self._held.clear()
            return None
        replaced = len(self._held)
        self._held.clear()
        return replaced

    def _at(self) -> int:
        """W&B's step of the open row."""
        if getattr(self._run, "_is_finished", False):  # asked for its step, a finished run answers after 30 s
            raise RuntimeError("the W&B run was finished before monitor.detach()")
        return int(self._run.step)

    def _merge(self, at: int) -> int:
        replaced = len(self._held) - 1
        self._run.log(dict(self._held[-1]), commit=False)
        self._held.clear()
        self._merged_at = at
        return replaced
