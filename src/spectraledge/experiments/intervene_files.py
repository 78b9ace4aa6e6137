"""Files of an intervention study: one line a cell, one file a seed, whole lines only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, OutputError


def read_study(out: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All finished cells of a study's folder, seed by seed.

    Each holds seed, time, kind, position, amount (asked for), limit (largest that all positions of the fork
    allow), norm and relative (what came out), angle, k_star (guarded k* at the fork), sigma (of the window at
    the fork), sigma_after (of the window of W updates after it; None where the horizon is shorter), steps and
    the series train_loss, test_loss, train_accuracy, test_accuracy at them, the first right after the change.

    Raises:
        DataError: If there is no study.
    """
    folder = Path(out)
    files = sorted(folder.glob("seed-*.jsonl"), key=lambda path: int(path.stem[5:]))
    if not files:
        raise DataError(f"{folder} must hold a study; got no seed-*.jsonl. Run intervention_study first.")
    return [row for path in files for row in read_rows(path)]


class Lines:
    """Appends one JSON object a line; a line cut short by a kill is dropped before going on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        whole = "".join(json.dumps(row) + "\n" for row in read_rows(path))
        try:
            if path.exists() and path.read_text() != whole:
                path.write_text(whole)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{path} must be writable; got {error.strerror or error}. Choose another out=."
            ) from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Write and flush to disk."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def seed_file(folder: Path, seed: int) -> Path:
    """The file of one seed."""
    return folder / f"seed-{seed}.jsonl"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file, in order; none where there is no file."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # cut short by a kill; what follows cannot be trusted either
    return rows
