"""Rows of a series as the records of a run: segments, rows, flags and events, as a live monitor writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..recording import RecordingWriter
from ..stream.blocks import Blocks
from .rows import Sums, Update
from .scan import Scan, Stretch, checkpoint_name
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
        updates: Those between its checkpoints.
        sums: Their rows.
    """

    stretch: Stretch
    structure: Structure
    blocks: Blocks
    tied: dict[str, list[str]]
    updates: tuple[Update, ...]
    sums: Sums

    @property
    def half_precision(self) -> bool:
        """Whether weights were rounded when they were saved."""
        return any(entry.dtype in ("float16", "bfloat16") for entry in self.structure.entries.values())


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
            {"step": series.checkpoints[i].step, "file": checkpoint_name(series.checkpoints[i]), "reason": reason}
            for i, reason in sorted(scanned.skipped.items())
        ],
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
        for u, update in enumerate(segment.updates):
            while skipped and skipped[0][0] < update.step:
                _write_skipped(writer, *skipped.pop(0))
            fields = _row_fields(segment, u)
            flags = _flags(fields, update, every)
            writer.write("row", t=t, segment=number, flags=flags, **fields)
            nonfinite = _report_nonfinite(writer, segment.blocks, update.step, fields["nonfinite"], nonfinite)
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


def _row_fields(segment: Segment, u: int) -> dict[str, Any]:
    names = ["products", "theta_dot", "theta_norm2", "unchanged", "nonfinite"]
    if segment.half_precision:
        names.append("error_norm2")
    update, sums = segment.updates[u], segment.sums
    arrays = {name: getattr(sums, name)[u] for name in names}
    return {"step": update.step, "n_steps": update.n_steps, **arrays, "seconds": float(sums.seconds[u])}


def _flags(fields: dict[str, Any], update: Update, every: int) -> list[str]:
    norm2 = fields["products"][:, 0]
    tests: Iterator[tuple[str, Any]] = iter(
        (
            ("nonfinite", fields["nonfinite"].any() or np.isnan(norm2).any()),
            ("zero_update", not norm2.any()),
            ("uneven", update.n_steps != every),
            ("seam", update.seam),
        )
    )
    return [name for name, holds in tests if holds]


def _report_nonfinite(
    writer: RecordingWriter, blocks: Blocks, step: int, nonfinite: np.ndarray, before: set[str]
) -> set[str]:
    """One event a block when its parameters stop being finite, and again after they have recovered."""
    now = {blocks.names[b]: int(nonfinite[b]) for b in np.flatnonzero(nonfinite)}
    for name, count in now.items():
        if name not in before:
            writer.write(
                "event",
                step=step,
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
