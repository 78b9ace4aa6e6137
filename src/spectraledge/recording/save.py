"""Write a recording that is in memory as a clean log."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError
from .lock import locked_file
from .log import RecordingWriter
from .probe import probe_records
from .reader import FORMAT, VERSION, recording_file
from .replay import BAND_FIELDS, BLOCK_FIELDS
from .weights import weights_records

if TYPE_CHECKING:
    from .recording import Recording

_DERIVED_META = ("segments", "block_info", "created", "package_version")


def save_recording(recording: Recording, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write ``recording`` to a run folder or file; see ``Recording.save``."""
    file = recording_file(path)
    beside = file.with_name(f".{file.stem}-{os.getpid()}.jsonl")
    with ExitStack() as stack:
        if file.exists():
            if not overwrite:
                raise OutputError(
                    f"{file} must not be there yet; it is. Use overwrite=True to replace it, or another folder."
                )
            stack.enter_context(locked_file(file))  # no running writer is cut off from its file
        try:
            with RecordingWriter(beside, mode="overwrite", header=_header(recording)) as writer:
                _write_all(recording, writer)
            os.replace(beside, file)
        except OSError as error:
            beside.unlink(missing_ok=True)
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{file} must be writable; got {error.strerror}. Choose another folder.") from error
    return file


def _header(recording: Recording) -> dict[str, Any]:
    meta = recording.meta
    return {
        "kind": "header",
        "format": FORMAT,
        "version": VERSION,
        "created": meta.get("created"),
        "package_version": meta.get("package_version"),
        "meta": {name: value for name, value in meta.items() if name not in _DERIVED_META},
    }


def _write_all(recording: Recording, writer: RecordingWriter) -> None:
    segments = recording.meta.get("segments", [])
    for segment in segments:
        writer.write("segment", **segment)
    for t in range(recording.n_updates):
        if "lost" not in recording.flags[t]:
            writer.write("row", **_row(recording, t, segments[recording.segment[t]]))
    metrics: dict[int, dict[str, float]] = {}
    for name, (steps, values) in recording.metrics.items():
        for step, value in zip(steps, values, strict=True):
            metrics.setdefault(int(step), {})[name] = float(value)
    for number, values_there in sorted(metrics.items()):
        writer.write("metrics", step=number, values=values_there, time=float("nan"))
    for fields in weights_records(recording.weights):
        writer.write("weights", **fields, time=float("nan"))
    for probe in recording.probes:
        for kind, fields in probe_records(probe, segments[probe.segment]["segment"]):
            writer.write(kind, **fields, time=float("nan"))
    for event in recording.events:
        writer.write("event", **event.to_fields(), time=float("nan"))
    if recording.closed:
        writer.write("close", step=int(recording.steps[-1]) if recording.n_updates else 0)


def _row(recording: Recording, t: int, segment: dict[str, Any]) -> dict[str, Any]:
    columns = [recording.blocks.index(name) for name in segment["blocks"]]
    row: dict[str, Any] = {
        "t": t,
        "segment": segment["segment"],
        "step": int(recording.steps[t]),
        "n_steps": int(recording.n_steps[t]),
        "lr_sum": recording.lr_sum[t],
        "flags": recording.flags[t],
        "seconds": float(recording.seconds[t]),
        "time": float(recording.time[t]),
    }
    for name in BLOCK_FIELDS:
        values = getattr(recording, name)
        if values is not None:
            row[name] = values[t, columns]
    for name in BAND_FIELDS:
        values = getattr(recording, name)
        if values is not None:
            row[name] = values[t, columns, : segment["lags"] + 1]
    return row
