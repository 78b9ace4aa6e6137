"""Revisions of a repository in the cache: fetched one at a time, and dropped again where that is asked for.

Owns what may be removed from the cache: what this call put there, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, require
from ..stream.cost import human_bytes
from .hub import HubSeries, Revision, explained, no_weights, storage_of
from .series import Checkpoint, Series

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class HubCheckpoint(Checkpoint):
    """A revision in the cache, or one that holds no weights."""

    revision: str = ""
    problem: str | None = None

    def open(self) -> Any:
        """As its base; a problem that was known before is raised."""
        if self.problem is not None:
            raise DataError(self.problem)
        return super().open()


@dataclass(frozen=True)
class Fetched:
    """A revision in the cache.

    Attributes:
        checkpoint: To be opened.
        mine: Files of the cache that are there because of this call.
    """

    checkpoint: HubCheckpoint
    mine: tuple[Path, ...]

    def drop(self) -> None:
        """Remove from the cache what this call put there."""
        for path in self.mine:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in self.mine if path.parent.parent.name == "snapshots"}:
            if not any(folder.iterdir()):
                folder.rmdir()


class Ledger:
    """Files that this call put into the cache, noted in a file: what a run that was killed left there is known.

    Args:
        folder: Where the file is kept; None keeps it in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "downloads.txt"
        self.paths: set[Path] = set()
        if self._file is not None and self._file.is_file():
            self.paths = {Path(line) for line in self._file.read_text().splitlines()}

    def add(self, paths: Iterable[Path]) -> None:
        """Note some files."""
        self.paths.update(paths)
        if self._file is not None:
            with self._file.open("a") as file:
                file.writelines(f"{path}\n" for path in paths)


def fetch(series: HubSeries, revision: Revision, ledger: Ledger | None = None) -> Fetched:
    """Download a revision's weight files, or find them in the cache.

    Args:
        series: Its series.
        revision: What to fetch.
        ledger: What a former run of the same call downloaded; what this one does is added.

    Raises:
        DataError: If they cannot be had, or the revision has moved since it was looked up.
    """
    hub: Any = require("huggingface_hub", "hub")
    storage = storage_of(series.repo)
    if not revision.files:
        problem = no_weights(series.repo, revision.name)
        nothing = HubCheckpoint(revision.step, storage, storage, revision=revision.name, problem=problem)
        return Fetched(nothing, ())
    before = _contents(storage) - (set() if ledger is None else ledger.paths)
    with explained(series.repo):
        folder = Path(hub.snapshot_download(series.repo, revision=revision.name, allow_patterns=list(revision.files)))
    if folder.name != revision.commit:
        raise DataError(
            f"revision {revision.name} of {series.repo} must stay as it is while it is analyzed; it moved from "
            f"{revision.commit[:8]} to {folder.name[:8]}. Analyze it again."
        )
    mine: list[Path] = []
    for name in revision.files:
        link = folder / name
        for path in dict.fromkeys((link, Path(os.path.realpath(link)))):
            if path not in before:
                mine.append(path)
    whole = any(name.startswith(("model.safetensors", "pytorch_model.bin")) for name in revision.files)
    path = folder if whole else folder / next(iter(revision.files))
    if ledger is not None:
        ledger.add(mine)
    checkpoint = HubCheckpoint(revision.step, path, storage, series.state_key, revision=revision.name)
    return Fetched(checkpoint, tuple(mine))


def fetch_all(series: HubSeries, say: Say, progress: Progress | None) -> Series:
    """Every revision in the cache, one download at a time.

    Raises:
        DataError: As ``fetch``. What has been downloaded stays in the cache.
    """
    say(
        f"{len(series.revisions)} revisions of {series.repo} hold {human_bytes(series.n_bytes)} of weights; those "
        "that are not in the cache yet are downloaded, and stay there"
    )
    checkpoints = []
    for i, revision in enumerate(series.revisions):
        checkpoints.append(fetch(series, revision).checkpoint)
        if progress is not None:
            progress(i + 1, len(series.revisions), f"{revision.name} is in the cache")
    return Series(series.source, tuple(checkpoints), series.ignored)


def _contents(storage: Path) -> set[Path]:
    """Files of the cache of a repository: links of snapshots, and what they point to."""
    return {*storage.glob("snapshots/*/*"), *storage.glob("blobs/*")}
