"""Events of a finished recording, by the very code that reports them while a run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..recording import Recording
from ..recording.event import Event
from ..recording.select import BlockChoice, block_label
from .detectors import DETECTORS, GROKKING, DetectorSpec, without_grokking
from .judge import Judge
from .stream import EventStream, judge_stretches

__all__ = ["DETECTORS", "GROKKING", "DetectorSeries", "DetectorSpec", "detector_series", "find_events"]


@dataclass(frozen=True, eq=False)
class DetectorSeries:
    """What one detector saw, row by row: what runs are ranked by.

    Attributes:
        name: Of the detector.
        steps: (N) optimizer step at the end of each row.
        statistic: (N) of its control chart, in scales of the feature's own past; NaN where nothing was judged.
        threshold: (N) what it has to pass three times in a row; NaN likewise.
        alarms: (N) whether an event was reported.
    """

    name: str
    steps: np.ndarray
    statistic: np.ndarray
    threshold: np.ndarray
    alarms: np.ndarray


def find_events(
    recording: Recording,
    *,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    detectors: Sequence[str] | None = None,
    level: float = 0.05,
    horizon: int = 400,
) -> list[Event]:
    """Events of one block, in order of their steps: exactly those an ``EventStream`` would have reported.

    Args:
        recording: Of any run.
        window: W, at least 3.
        block: As in ``Recording.band``.
        stride: Updates in a row.
        detectors: Names out of ``DETECTORS``, None for all of these; and "grokking", which looks at all updates of
            the head, whatever the block, window and stride.
        level: Share of runs of ``horizon`` windows with a false alarm, for each detector of ``DETECTORS``.
        horizon: Windows.

    Returns:
        Events whose ``value`` is the chart's statistic and ``threshold`` what it passed. Too short a recording gives
        none: 6W updates pass before anything is judged.

    Raises:
        SettingError: For a block, detector, level or horizon that does not exist.
        DataError: If fewer lags than W - 1 (rows) were recorded, or blocks do not tell apart what "grokking" reads.
    """
    ahead: list[Event] = []
    detectors, looks_ahead = without_grokking(detectors)
    if looks_ahead:
        from .precursors.shipped import grokking  # half a second of scipy, for those who ask for it

        ahead = grokking().extend(recording)
    stream = EventStream(window=window, detectors=detectors, block=block_label(block), level=level, horizon=horizon)
    steps, band, seams = _rows(recording, block, stride)
    return sorted([*stream.extend(steps, band, seams), *ahead], key=lambda event: event.step)


def detector_series(
    recording: Recording,
    name: str,
    *,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    level: float = 0.05,
    horizon: int = 400,
) -> DetectorSeries:
    """The statistic of one detector at every row; arguments and errors as in ``find_events``.

    Returns:
        N = rows of the recording.
    """
    judge = Judge(window, [name], level, horizon)
    steps, band, seams = _rows(recording, block, stride)
    parts = [judged[0] for _, judged in judge_stretches(judge, band, seams)]
    statistic = np.concatenate([p.statistic for p in parts]) if parts else np.empty(0)
    alarms = np.concatenate([p.alarms for p in parts]) if parts else np.empty(0, dtype=bool)
    threshold = np.where(np.isfinite(statistic), judge.thresholds[name], np.nan)
    return DetectorSeries(name, steps, statistic, threshold, alarms)


def _rows(recording: Recording, block: BlockChoice, stride: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Steps and band of the rows, and the rows that begin a stretch."""
    band = recording.band(block, stride=stride)
    steps = recording.steps[stride - 1 :: stride][: len(band)]
    seams = sorted({int(seam) // stride for seam in recording.seams})
    return steps, band, [seam for seam in seams if seam < len(band)]
