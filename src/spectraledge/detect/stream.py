"""Events while a run goes on: one row of inner products in, the events that it completes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import DataError
from ..recording.event import Event
from .capability import CapabilityStream
from .detectors import DetectorSpec
from .judge import Judge, Judged

_VERSION = 1


class EventStream:
    """All detectors on one block of one run, each against the run's own past.

    Every detector compares a feature of the present window with its median and spread over the last 4W windows that
    share no update with it, so nothing is judged in the first 6W rows (7W for overlaps). An alarm needs three
    windows in a row above the threshold; see ``detect.thresholds`` for what the threshold keeps.

    Args:
        window: W, rows of a window, at least 3.
        detectors: Names out of ``DETECTORS``; None for all.
        block: Name that the events carry.
        level: Share of runs of ``horizon`` windows in which a detector may raise a false alarm, for each detector.
        horizon: Windows.

    Raises:
        SettingError: For a window below 3, an unknown detector, or a level or horizon without threshold.

    A second direction is switched on at row 120 of 160:

    >>> from spectraledge.theory.synthetic import mode_switch_on
    >>> gram = mode_switch_on(160, 120, strength=3.0, rng=np.random.default_rng(0)).gram
    >>> stream = EventStream(detectors=["mode2-emergence"])
    >>> rows = [[gram[t, t - l] if t >= l else np.nan for l in range(20)] for t in range(160)]
    >>> [(e.step, e.kind) for t, row in enumerate(rows) for e in stream.push(t, np.array(row))]
    [(122, 'mode emergence')]
    """

    def __init__(
        self,
        *,
        window: int = 10,
        detectors: Sequence[str] | None = None,
        block: str = "all",
        level: float = 0.05,
        horizon: int = 400,
    ) -> None:
        self.block = block
        self.judge = Judge(window, detectors, level, horizon)
        self.capability = CapabilityStream()

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors."""
        return [spec.name for spec in self.judge.specs]

    def push(
        self,
        step: int,
        band_row: np.ndarray,
        *,
        seam: bool = False,
        metrics: Mapping[str, float] | None = None,
    ) -> list[Event]:
        """The events that this update completes.

        Args:
            step: Optimizer step that ends the update.
            band_row: (L+1) <delta_t, delta_{t-l}> [parameter^2], NaN where not available; L >= W - 1, and
                L >= 2W - 1 for coherence and regime.
            seam: Whether the update does not join to the one before: the past is forgotten, and the burn-in starts
                again.
            metrics: Evaluations made at this step; their events (grokking, plateau, loss spike) come along.

        Returns:
            Events in the order of ``DETECTORS``, then those of the metrics.

        Raises:
            DataError: If the row is too short.
        """
        events = self.extend(
            np.array([step]), np.asarray(band_row, dtype=np.float64)[None, :], seams=(0,) if seam else ()
        )
        return events + (self.capability.push(step, metrics) if metrics else [])

    def extend(self, steps: np.ndarray, band: np.ndarray, seams: Sequence[int] = ()) -> list[Event]:
        """Push many rows at once; the events are the same, in the same order.

        Args:
            steps: (n) optimizer steps.
            band: (n, L+1) products.
            seams: Rows that do not join to the one before.
        """
        events = []
        for first, judged in judge_stretches(self.judge, band, seams):
            hits = [(int(row), k) for k, j in enumerate(judged) for row in np.flatnonzero(j.alarms)]
            events += [self._event(int(steps[first + row]), judged[k], row) for row, k in sorted(hits)]
        return events

    def state(self) -> dict[str, Any]:
        """All that is remembered, JSON-able: a stream that loads it goes on as if it had never stopped."""
        return {
            "version": _VERSION,
            "window": self.judge.window,
            "judge": self.judge.state(),
            "capability": self.capability.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state()`` was taken.

        Raises:
            DataError: If it was saved by a stream of another window or other detectors.
        """
        if state.get("version") != _VERSION or state.get("window") != self.judge.window:
            raise DataError(
                f"a state must be of version {_VERSION} and window {self.judge.window}; got version "
                f"{state.get('version')} and window {state.get('window')}. "
                "Make the stream as it was when it was saved."
            )
        self.judge.load_state(state["judge"])
        self.capability.load_state(state["capability"])

    def _event(self, step: int, judged: Judged, row: int) -> Event:
        spec = judged.spec
        return Event(
            step=step,
            block=self.block,
            kind=spec.kind,
            value=float(judged.statistic[row]),
            threshold=self.judge.thresholds[spec.name],
            detector=spec.name,
            detail=f"{spec.sentence} {_change(spec, judged.location[row], judged.value[row])}",
        )


def judge_stretches(judge: Judge, band: np.ndarray, seams: Sequence[int] = ()) -> list[tuple[int, list[Judged]]]:
    """Judge the rows between seams one stretch after the other; first row and verdicts of each stretch."""
    cuts = sorted({0, len(band), *(int(s) for s in seams)})
    out = []
    for first, last in pairwise(cuts):
        if first in seams:
            judge.reset()
        out.append((first, judge.extend(band[first:last])))
    return out


def _change(spec: DetectorSpec, before: float, now: float) -> str:
    return f"({spec.feature}: {before:.3g} -> {now:.3g})"
