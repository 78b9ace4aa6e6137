"""A text file with one JSON object a line, for any other program to follow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .alerts import Alert
from .base import Sink


class JsonlSink(Sink):
    """Lines ``{"step": 100, "values": {...}}``, ``{"step": ..., "alert": {...}}`` and ``{"rewind": step}``.

    Each line is in the file, whole, before the next is begun. An existing file is gone on with.

    Args:
        path: Of the file; its folder is made.

    Raises:
        OutputError: If the file cannot be written.
    """

    name = "jsonl"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} must be writable; got {error.strerror}. Choose another place.") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._write({"step": step, "values": dict(values)})

    def alert(self, alert: Alert) -> None:
        self._write({"step": alert.step, "alert": {"title": alert.title, "text": alert.text}})

    def rewind(self, step: int) -> None:
        self._write({"rewind": step})

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, allow_nan=False) + "\n")
        self._file.flush()
