"""The record of a run: the append-only file, and every window, stride and union of blocks read from it."""

from __future__ import annotations

from .event import Event
from .log import Log, RecordingWriter, read_log
from .probe import ProbeRecord
from .reader import ReadReport
from .recording import Recording, load
from .spectra import Gap, Spectra

__all__ = [
    "Event",
    "Gap",
    "Log",
    "ProbeRecord",
    "ReadReport",
    "Recording",
    "RecordingWriter",
    "Spectra",
    "load",
    "read_log",
]
