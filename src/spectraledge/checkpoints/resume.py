"""Finished parts of an analysis, kept so that one that was killed goes on: an append-only log with checksums.

The log belongs to one fingerprint of the series and the settings; of another one, nothing in it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError
from ..recording.line import CorruptLine, Record, decode_line, encode_line
from ..recording.lock import lock
from .rows import Sums

FOLDER = "partial"
_LOG = "parts.jsonl"
_VERSION = 1

Say = Callable[[str], None]


def fingerprint(content: object) -> str:
    """A checksum of plain values: equal for equal contents only."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class Partial:
    """The kept parts of one analysis.

    Args:
        folder: Run folder; None keeps nothing.

    Raises:
        OutputError: If the folder cannot be written, or another process analyses into it.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder / FOLDER
        self._descriptor: int | None = None
        self._found: dict[tuple[int, int], Sums] = {}
        self._holds_parts = False
        if self.folder is None:
            return
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / _LOG
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            lock(self._descriptor, self.folder)

    def begin(self, about: Mapping[str, Any], say: Say) -> None:
        """Find what a former process finished of the same analysis, or start anew.

        Args:
            about: What the sums depend on, by name; plain values. A change of any of them starts anew.
            say: Told what was found.
        """
        self._found = {}
        if self._descriptor is None:
            return
        with self._explained():
            header, parts, end = _read(self._descriptor)
            mine = {name: fingerprint(value) for name, value in about.items()}
            theirs = header.get("about") if header is not None else None
            if theirs == mine:
                os.ftruncate(self._descriptor, end)
                self._found, self._holds_parts = parts, bool(parts)
                if parts:
                    say(f"going on behind {len(parts)} parts that a former run finished")
                return
            if isinstance(theirs, dict):
                changed = [name for name in mine if theirs.get(name) != mine[name]]
                say(f"starting anew: {', '.join(changed)} changed since {len(parts)} parts were finished and kept")
            self._holds_parts = False
            os.ftruncate(self._descriptor, 0)
            self._write({"kind": "parts", "version": _VERSION, "about": mine})

    def sums(self, stretch: int, part: int) -> Sums | None:
        """Sums of a part that is done already."""
        return self._found.get((stretch, part))

    def keep(self, stretch: int, part: int, sums: Sums) -> None:
        """Keep a part; it is in the file, whole, when this returns."""
        if self._descriptor is None:
            return
        self._holds_parts = True
        arrays = {each.name: getattr(sums, each.name) for each in fields(Sums)}
        with self._explained():
            self._write({"kind": "part", "stretch": stretch, "part": part, **arrays})

    def close(self, *, remove: bool = False) -> None:
        """Let go of the log, and remove it where the recording is written."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self.folder is not None and (remove or not self._holds_parts):
            shutil.rmtree(self.folder, ignore_errors=True)  # what is left does no harm
        os.close(descriptor)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, record: Record) -> None:
        assert self._descriptor is not None
        line = encode_line(record)
        written = os.write(self._descriptor, line)
        while written < len(line):
            written += os.write(self._descriptor, line[written:])

    def _explained(self) -> _Explained:
        assert self.folder is not None
        return _Explained(self.folder)


class _Explained:
    """Turns errors of the system into sentences."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(
                f"{self._folder} must be writable, with room for finished parts; got {error.strerror or error}. "
                "Free some space or choose another folder, and give the same command again."
            ) from error


def _read(descriptor: int) -> tuple[Record | None, dict[tuple[int, int], Sums], int]:
    """Header, parts and the byte behind the last intact line: all before the first damage."""
    header: Record | None = None
    parts: dict[tuple[int, int], Sums] = {}
    end = 0
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        for line in file:
            try:
                record = decode_line(line)
                if not line.endswith(b"\n"):
                    break
                if header is None:
                    if record["kind"] != "parts" or record.get("version") != _VERSION:
                        break
                    header = record
                else:
                    parts[record["stretch"], record["part"]] = _sums(record)
            except (CorruptLine, KeyError, TypeError, AttributeError):
                break
            end += len(line)
    return header, parts, end


def _sums(record: Record) -> Sums:
    arrays = {each.name: np.array(record[each.name]) for each in fields(Sums)}
    if any(array.dtype != np.float64 for array in arrays.values()):
        raise TypeError
    return Sums(**arrays)
