"""The append-only file of a run: one process writes it, record by record, and any may read it."""

from __future__ import annotations

import errno
import operator
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, OutputError, SettingError
from .line import PREFIX, Record, decode_line, encode_line
from .lock import lock, unlock
from .reader import FORMAT, VERSION, Log, ReadReport, read_log, recording_file
from .replay import replay

__all__ = ["Log", "ReadReport", "RecordingWriter", "read_log", "recording_file"]

KINDS = ("segment", "row", "metrics", "event", "probe", "outcome", "weights", "rewind", "close")
ROW_ARRAYS = (
    "lr_sum",
    "products",
    "theta_dot",
    "theta_norm2",
    "decay_products",
    "decay_norm2",
    "error_norm2",
    "gradient_products",
    "unchanged",
    "nonfinite",
)
RESTATE_ROWS = 512  # header and segment are said again: one damaged line must not make a long run unreadable


class RecordingWriter:
    """Write the recording of one run.

    Args:
        path: Run folder (made where missing) or recording file; None keeps the records in memory.
        mode: ``"new"`` refuses an existing recording, ``"resume"`` goes on behind its last intact record,
            ``"overwrite"`` starts it afresh.
        header_meta: Free description of the run, kept in the header; ignored when an existing header is
            resumed.
        fsync_seconds: Longest time that written records stay in the system's cache only. A killed process
            loses nothing of it; a power cut may.
        header: A whole header record, for a copy of a recording; else one is made of ``header_meta``.

    Attributes:
        resumed: The log found by ``mode="resume"``, else None.
        locked: Whether the file is locked against a second writer (some network file systems cannot).

    Raises:
        OutputError: If the folder cannot be written, holds a recording already (``"new"``), or is being
            written by another process.
        DataError: If the file to be resumed is not a recording.

    >>> writer = RecordingWriter(None, header_meta={"seed": 42})
    >>> writer.write("metrics", step=3, values={"loss": float("nan")}, time=0.0)
    >>> writer.records
    [{'kind': 'metrics', 'step': 3, 'values': {'loss': 'nan'}, 'time': 0.0}]
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        mode: str = "new",
        header_meta: Mapping[str, Any] | None = None,
        fsync_seconds: float = 30.0,
        header: Mapping[str, Any] | None = None,
    ) -> None:
        if mode not in ("new", "resume", "overwrite"):
            raise SettingError(
                f'mode must be "new", "resume" or "overwrite"; got {mode!r}. Use "new" for a fresh run.'
            )
        self.path: Path | None = None if path is None else recording_file(path)
        self.resumed: Log | None = None
        self.locked = False
        self.records: list[Record] = []
        self._fsync_seconds = fsync_seconds
        self._last_fsync = time.monotonic()
        self._descriptor: int | None = None
        self._pid = os.getpid()
        self._size = 0
        self._torn = False
        self._closed = False
        self._rewinds = 0
        self._rows_since_restated = 0
        self._segments: dict[int, Record] = {}  # those that no rewind has taken back
        self._current: int | None = None  # the one that is being written
        self._header: Record = {}
        if self.path is not None:
            self._open(self.path, mode)
        if self.resumed is not None:
            self._header = self.resumed.header
            self._take_up(self.resumed.records)
        else:
            self._header = dict(header) if header is not None else _header(header_meta or {})
            self._append(self._header)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record; it is in the file, whole, when this returns.

        Args:
            kind: "segment", "row", "metrics", "event", "probe", "outcome", "weights", "rewind" or
                "close".
            **fields: The fields of that kind (docs/recording.md); ``time`` [s since 1970] is filled in where
                it is missing. Arrays are stored as float64.

        Raises:
            OutputError: If the disk is full or the file cannot be written. The record is then not in the
                file, and later ones may still be written.
        """
        if kind not in KINDS:
            raise SettingError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}. Name one of these.")
        if self._closed:
            raise _closed()
        record: Record = {"kind": kind, **fields, "step": _whole_step(kind, fields.get("step"))}
        if kind != "segment":
            record.setdefault("time", time.time())
        if kind == "segment":
            _check_segment(record)
        elif kind == "row":
            for name in ROW_ARRAYS:
                if record.get(name) is not None:
                    record[name] = np.asarray(record[name], dtype=np.float64)
            record["rewinds"] = self._rewinds
            self._current = record.get("segment")
            if self._rows_since_restated >= RESTATE_ROWS:
                self._restate()
        elif kind == "close":
            self._restate()
        self._append(record)
        self._note(record)

    def log(self) -> Log:
        """What has been recorded so far, as ``read_log`` gives it."""
        if self.path is not None:
            return read_log(self.path)
        header = decode_line(encode_line(self._header))
        return Log(header, list(self.records), ReadReport(n_records=1 + len(self.records)))

    def flush(self) -> None:
        """Force what is written onto the disk."""
        if self._descriptor is not None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise self._failure(error) from error
        self._last_fsync = time.monotonic()

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        self._closed = True
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if os.getpid() == self._pid:
                os.fsync(descriptor)
                unlock(descriptor)  # at once, though a forked child may still hold a copy of the descriptor
        except OSError as error:
            raise self._failure(error) from error
        finally:
            os.close(descriptor)

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)

    def _open(self, path: Path, mode: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self.locked = lock(self._descriptor, path)
            self._size = os.fstat(self._descriptor).st_size
            if self._size and mode == "new":
                raise OutputError(
                    f"{path.parent} must not hold a recording yet; it holds one of {self._size} bytes. "
                    'Use resume="auto" to go on with it, overwrite=True to replace it, or another folder.'
                )
            if mode == "resume" and self._size:
                self._find_end(path)
            elif self._size:
                self._truncate(0)
        except (OutputError, DataError):
            self._release()
            raise
        except OSError as error:
            self._release()
            raise self._failure(error) from error

    def _find_end(self, path: Path) -> None:
        """Cut off what follows the last intact record, after making sure that the file is one of ours."""
        assert self._descriptor is not None
        start = os.pread(self._descriptor, len(PREFIX), 0)
        if PREFIX.startswith(start) and not _has_newline(self._descriptor):
            self._truncate(0)  # killed while writing its first record: nothing to go on from
            return
        self.resumed = read_log(path)
        self._truncate(self.resumed.report.valid_bytes)

    def _take_up(self, records: list[Record]) -> None:
        """Go on from what a reader makes of the records that are there."""
        state = replay(records)
        self._rewinds, self._segments = state.rewinds, state.by_number
        self._current = state.rows[-1].record["segment"] if state.rows else max(state.by_number, default=None)

    def _note(self, record: Record) -> None:
        """Keep account of what the file says so far."""
        kind = record["kind"]
        if kind == "segment":
            self._current, self._rows_since_restated = record["segment"], 0
            self._segments[record["segment"]] = record
        elif kind == "row":
            self._current = record.get("segment")
            self._rows_since_restated += 1
        elif kind == "rewind":
            self._rewinds += 1
            self._segments = {n: s for n, s in self._segments.items() if s["step"] <= record["step"]}

    def _restate(self) -> None:
        self._rows_since_restated = 0
        if self.path is not None:  # memory does not decay
            self._append(self._header)
            if self._current in self._segments:
                self._append(self._segments[self._current])

    def _append(self, record: Record) -> None:
        line = encode_line(record)
        if self.path is None:
            if record["kind"] != "header":
                self.records.append(decode_line(line))  # exactly what a reader of the file would get
            return
        if self._descriptor is None:
            raise _closed()
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self._descriptor, data)  # one call: a killed process leaves whole lines
            while written < len(data):  # disk nearly full, or a signal
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            self._undo()
            raise self._failure(error) from error
        self._size += len(data)
        self._torn = False
        if time.monotonic() - self._last_fsync >= self._fsync_seconds:
            self.flush()

    def _undo(self) -> None:
        """Take back a half-written line; where that fails, the next line starts with a newline of its own."""
        try:
            self._truncate(self._size)
        except OSError:
            self._torn = True

    def _truncate(self, size: int) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, size)
        self._size = size

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _failure(self, error: OSError) -> OutputError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"The disk of {self.path} must have room; it is full. Free some and resume.")
        return OutputError(
            f"{self.path} must be writable; got {error.strerror or error}. "
            "Choose another folder, or change its permissions."
        )


def _header(meta: Mapping[str, Any]) -> Record:
    from .. import __version__

    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "kind": "header",
        "format": FORMAT,
        "version": VERSION,
        "created": created,
        "package_version": __version__,
        "meta": dict(meta),
    }


def _check_segment(record: Record) -> None:
    blocks = list(record.get("blocks", ()))
    if not blocks or len(set(blocks)) != len(blocks) or ("all" in blocks and len(blocks) > 1):
        raise SettingError(
            'The blocks of a segment must have distinct names, and "all" is kept for their sum; '
            f'got {blocks[:8]}. Rename them, or record "all" alone.'
        )
    if not all(isinstance(record.get(name), int) for name in ("segment", "lags")):
        raise SettingError(
            "A segment must state its number and its lags; "
            f"got {record.get('segment')} and {record.get('lags')}. Give integers."
        )
    momentum = record.get("momentum")
    if momentum is not None and not 0 <= momentum < 1:
        raise SettingError(
            f"The momentum of a segment must lie in [0, 1); got {momentum}. Use None for an optimizer without."
        )


def _whole_step(kind: str, step: Any) -> int:
    try:
        return operator.index(step)
    except TypeError as error:
        raise SettingError(
            f"A {kind} must state its optimizer step as an integer; got {step!r}. Give the steps made so far."
        ) from error


def _closed() -> SettingError:
    return SettingError("A writer must be open to write; this one is closed. Make one with mode='resume'.")


def _has_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return any(b"\n" in os.pread(descriptor, 2**20, start) for start in range(0, size, 2**20))
