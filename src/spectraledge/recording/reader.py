"""Read the lines of a recording file, whatever happened to it.

A line that is cut or damaged is counted and skipped, never guessed. The file may grow while it is read.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from .line import PREFIX, CorruptLine, Record, decode_line

FORMAT = "spectraledge-recording"
VERSION = 1
FILE_NAME = "recording.jsonl"
MAX_LINE_BYTES = 2**30  # far above any record; a file of one endless line must not fill the memory
_LISTED_LINES = 100


@dataclass(frozen=True)
class ReadReport:
    """What reading found: damage is told, not raised.

    Attributes:
        n_records: Intact records, header included.
        torn_tail: Whether the file ends in the middle of a record (a writer was killed, or is writing).
        n_corrupt: Complete lines that are not intact records.
        corrupt_lines: Their line numbers, counted from 1; the first hundred.
        header_lost: Whether no intact header is left; the free description of the run is then gone.
        valid_bytes: Offset just behind the last intact record: where a resumed writer goes on.
        n_rejected: Intact records that make no sense (wrong shapes, a row of an unknown segment); they are
            left out of the arrays.
        n_lost_rows: Rows known to be missing, by the gap that they leave in the count of updates.
    """

    n_records: int = 0
    torn_tail: bool = False
    n_corrupt: int = 0
    corrupt_lines: tuple[int, ...] = ()
    header_lost: bool = False
    valid_bytes: int = 0
    n_rejected: int = 0
    n_lost_rows: int = 0


@dataclass(frozen=True)
class Log:
    """The records of a recording in file order, the header apart."""

    header: Record
    records: list[Record]
    report: ReadReport = field(default_factory=ReadReport)
    path: Path | None = None


def recordings_at(path: Path) -> list[Path]:
    """The recordings that a path means, resolved: a file, that of a run folder, or all below a folder.

    Raises:
        DataError: If there is none.
    """
    if path.is_file():
        return [path.resolve()]
    if (path / FILE_NAME).is_file():
        return [(path / FILE_NAME).resolve()]
    below = sorted(file.resolve() for file in path.rglob(FILE_NAME)) if path.is_dir() else []
    if not below:
        what = "no recording in it or below it" if path.is_dir() else "nothing there"
        raise DataError(f"{path} must be a run folder or hold some; got {what}. Name a folder with {FILE_NAME}.")
    return below


def recording_file(path: str | os.PathLike[str]) -> Path:
    """The recording file meant by ``path``: a run folder, or the file itself.

    >>> recording_file("runs/mine").as_posix(), recording_file("a/recording.jsonl").as_posix()
    ('runs/mine/recording.jsonl', 'a/recording.jsonl')
    """
    path = Path(path)
    return path if path.suffix == ".jsonl" or path.is_file() else path / FILE_NAME


def read_log(path: str | os.PathLike[str]) -> Log:
    """All intact records of a recording.

    Args:
        path: A run folder, or the recording file in it.

    Raises:
        DataError: If there is no recording at ``path``, or the file is empty, of another format, or of a
            newer version.
    """
    file = recording_file(path)
    try:
        stream = _open_regular(file)
    except OSError as error:
        if file.exists():
            raise DataError(f"{file} must be readable; got {error.strerror}. Check its permissions.") from error
        where = f"the folder {path}" if Path(path).is_dir() else str(path)
        raise DataError(
            f"A recording must be there to be read; {where} holds none ({FILE_NAME} not found). "
            "Give the folder of a run, or its recording file."
        ) from error
    with stream:
        return _read(stream, file)


def _open_regular(file: Path) -> BinaryIO:
    """Open without hanging on a pipe or reading a device."""
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{file} must be a regular file; it is not. Give the recording file of a run.")
    return os.fdopen(descriptor, "rb", buffering=2**20)


def _read(stream: BinaryIO, file: Path) -> Log:
    header: Record | None = None
    records: list[Record] = []
    corrupt: list[int] = []
    n_corrupt = n_records = position = valid_bytes = line_number = 0
    torn = False
    start = b""
    while line := stream.readline(MAX_LINE_BYTES):
        line_number += 1
        position += len(line)
        start = start or line[: len(PREFIX)]
        whole = line.endswith(b"\n")
        if not whole and len(line) == MAX_LINE_BYTES:
            whole, skipped = _skip_line(stream)
            position += skipped
            line = b"\n"  # damaged, whatever it was
        if not whole:
            torn = True
            break
        try:
            record = decode_line(line)
        except CorruptLine:
            n_corrupt += 1
            if len(corrupt) < _LISTED_LINES:
                corrupt.append(line_number)
            continue
        n_records += 1
        valid_bytes = position
        if record["kind"] == "header":
            _check_header(record, file)
            if header is None:  # later ones restate it
                header = record
        else:
            records.append(record)
    if n_records == 0:
        raise _no_record(file, start, torn, n_corrupt)
    report = ReadReport(n_records, torn, n_corrupt, tuple(corrupt), header is None, valid_bytes)
    fallback: Record = {"kind": "header", "format": FORMAT, "version": VERSION, "meta": {}}
    return Log(header or fallback, records, report, file)


def _skip_line(stream: BinaryIO) -> tuple[bool, int]:
    """Read on to the end of the line: whether it has one, and the bytes passed."""
    passed = 0
    while line := stream.readline(2**20):
        passed += len(line)
        if line.endswith(b"\n"):
            return True, passed
    return False, passed


def _check_header(record: Record, file: Path) -> None:
    name, version = record.get("format"), record.get("version")
    if not isinstance(name, str) or name != FORMAT:  # it may be an array, which compares entry by entry
        raise DataError(
            f"{file} must be a {FORMAT} file; its header says {_shown(name)}. Give the recording file of a run."
        )
    if type(version) is not int or not 1 <= version <= VERSION:
        raise DataError(
            f"{file} must have a format version up to {VERSION}; got {_shown(version)}. "
            "Read it with a newer spectraledge."
        )


def _shown(value: object) -> str:
    """What a damaged file says, fit for one line: not an array of any size."""
    if isinstance(value, np.ndarray | list | dict):
        return f"a {type(value).__name__}"
    return repr(value)[:80]


def _no_record(file: Path, start: bytes, torn: bool, n_corrupt: int) -> DataError:
    if not start:
        return DataError(f"{file} must hold a recording; it is empty. The run wrote nothing yet.")
    if PREFIX.startswith(start) or start.startswith(PREFIX):
        state = "its only record is cut short" if torn and not n_corrupt else "none of its records is intact"
        return DataError(f"{file} must hold a recording; {state}. Record the run again.")
    return DataError(f"{file} must be a {FORMAT} file; it is of another format. Give the recording file of a run.")
