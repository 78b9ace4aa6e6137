"""Rows of a series as the records of a run: segments, rows, flags and events, as a live monitor writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..recording import RecordingWriter
from ..stream.blocks import Blocks
from .rows import Sum
from .scan import Scan, Stretch
from .series import Series
from .structure import Structure


@dataclass(frozen=True)
class Segment:
    """What was computed from one stretch.

    Attributes:
        stretch: Its checkpoints.
        structure: Its tensors, tied ones once.
        blocks: The partition.
        tied: Kept name to the others that are the same weights.
        n_passes: Times the stretch was read.
        rows: One for each update.
    """

    stretch: Stretch
    structure: Structure
    blocks: Blocks
    tied: dict[str, list[str]]
    n_passes: int
    rows: list[Sum]


def describe(series: Series, scanned: Scan, segments: Sequence[Segment]) -> dict[str, Any]:
    """The header's free description: where the numbers come from and what was left out."""
    entries = [entry for segment in segments for entry in segment.structure.entries.values()]
    left_out = dict.fromkeys(name for segment in segments for name in segment.structure.left_out)
    tied = {kept: others for segment in segments for kept, others in segment.tied.items()}
    return {
        "origin": "checkpoints",
        "source": series.source,
        "n_checkpoints": len(series.checkpoints),
        "dtype": "+".join(sorted({entry.dtype for entry in entries})),
        "tied": tied,
        "left_out": list(left_out),
        "ignored_files": list(series.ignored),
        "skipped": [
            {"step": series.checkpoints[i].step, "file": series.checkpoints[i].path.name, "reason": reason}
            for i, reason in sorted(scanned.skipped.items())
        ],
        "passes": max(segment.n_passes for segment in segments),
        "optimizer": "unknown: checkpoints tell no momentum, so p-values take updates to be uncorrelated",
    }


def write_recording(
    writer: RecordingWriter, series: Series, scanned: Scan, segments: Sequence[Segment], *, lags: int, every: int
) -> None:
    """Write everything, in the order of steps.

    Args:
        writer: Open, its header written.
        series: All checkpoints.
        scanned: Which were skipped.
        segments: What was computed.
        lags: L.
        every: Most common number of steps of an update.
    """
    skipped = [(series.checkpoints[i].step, reason) for i, reason in sorted(scanned.skipped.items())]
    t = 0
    for number, segment in enumerate(segments):
        writer.write("segment", **_segment_fields(number, segment, lags, every))
        nonfinite: set[str] = set()
        for row in segment.rows:
            while skipped and skipped[0][0] < row.step:
                _write_skipped(writer, *skipped.pop(0))
            writer.write("row", t=t, segment=number, flags=_flags(row, every), **_row_fields(row))
            nonfinite = _report_nonfinite(writer, segment.blocks, row, nonfinite)
            t += 1
    for step, reason in skipped:
        _write_skipped(writer, step, reason)
    writer.write("close", step=series.steps[-1])


def _segment_fields(number: int, segment: Segment, lags: int, every: int) -> dict[str, Any]:
    entries = segment.structure.entries.values()
    return {
        "segment": number,
        "step": segment.stretch.members[0].step,
        "reason": segment.stretch.reason,
        "blocks": list(segment.blocks.names),
        "block_info": segment.blocks.info(),
        "scheme": segment.blocks.scheme,
        "lags": lags,
        "update_dtype": "float64" if all(entry.itemsize == 8 for entry in entries) else "float32",
        "parameter_dtypes": sorted({entry.dtype for entry in entries}),
        "groups": [],
        "momentum": None,
        "every": every,
        "n_parameters": segment.blocks.n_parameters,
    }


def _row_fields(row: Sum) -> dict[str, Any]:
    names = ("step", "n_steps", "products", "theta_dot", "theta_norm2", "unchanged", "nonfinite", "seconds")
    return {name: getattr(row, name) for name in names}


def _flags(row: Sum, every: int) -> list[str]:
    tests: Iterator[tuple[str, Any]] = iter(
        (
            ("nonfinite", row.nonfinite.any() or np.isnan(row.products[:, 0]).any()),
            ("zero_update", not row.products[:, 0].any()),
            ("uneven", row.n_steps != every),
            ("seam", row.seam),
        )
    )
    return [name for name, holds in tests if holds]


def _report_nonfinite(writer: RecordingWriter, blocks: Blocks, row: Sum, before: set[str]) -> set[str]:
    """One event a block when its parameters stop being finite, and again after they have recovered."""
    now = {blocks.names[b]: int(row.nonfinite[b]) for b in np.flatnonzero(row.nonfinite)}
    for name, count in now.items():
        if name not in before:
            writer.write(
                "event",
                step=row.step,
                block=name,
                event_kind="nonfinite",
                value=count,
                threshold=0,
                detector="health",
            )
    return set(now)


def _write_skipped(writer: RecordingWriter, step: int, reason: str) -> None:
    writer.write(
        "event",
        step=step,
        block="all",
        event_kind="skipped",
        value=float("nan"),
        threshold=float("nan"),
        detector="checkpoints",
        detail=reason,
    )
