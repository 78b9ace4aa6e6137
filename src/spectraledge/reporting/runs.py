"""The runs of a report: found on disk, read, and given names that tell them apart."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SettingError
from ..recording import Recording, load
from ..recording.reader import FILE_NAME, recordings_at

RunSource = str | os.PathLike[str] | Recording


@dataclass(frozen=True)
class Run:
    """One run of a report.

    Attributes:
        name: Tells it apart from the others.
        recording: What it left behind.
        config: Content of its ``config.json``; empty where there is none.
        remark: What was wrong with that file.
    """

    name: str
    recording: Recording
    config: dict[str, Any] = field(default_factory=dict)
    remark: str = ""


def find_runs(sources: RunSource | Iterable[RunSource], names: Sequence[str] | None = None) -> list[Run]:
    """Read all runs meant by ``sources``.

    Args:
        sources: A run folder, a recording file, a folder below which recordings lie, a recording, or several
            of these.
        names: One for each run found.

    Raises:
        DataError: If a folder holds no recording, or one cannot be read.
        SettingError: If nothing is given, or the names are not as many as the runs.
    """
    listed = [sources] if isinstance(sources, str | os.PathLike | Recording) else list(sources)
    if not listed:
        raise SettingError("a report must have at least one run; got none. Name a run folder.")
    found: list[Recording | Path] = []
    seen: set[Path] = set()
    for source in listed:
        for item in [source] if isinstance(source, Recording) else recordings_at(Path(source)):
            # A folder and its parent may both be named; equal recordings in memory are still several.
            if isinstance(item, Recording) or item not in seen:
                found.append(item)
            if isinstance(item, Path):
                seen.add(item)
    labels = list(names) if names is not None else distinct([_parts(item) for item in found])
    if len(labels) != len(found):
        raise SettingError(
            f"names must be one for each run; got {len(labels)} for {len(found)} runs. Name all or none."
        )
    runs = []
    for label, item in zip(labels, found):
        recording = item if isinstance(item, Recording) else load(item)
        config, remark = ({}, "") if recording.path is None else _config(recording.path.parent / "config.json")
        runs.append(Run(label, recording, config, remark))
    return runs


def distinct(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """The shortest ends of paths that differ from one another; numbered where whole paths are equal.

    >>> distinct([("a", "x", "s1"), ("a", "y", "s1"), ("a", "y", "s2")])
    ['x/s1', 'y/s1', 's2']
    """
    labels = []
    for own in parts:
        for n in range(1, len(own) + 1):
            if sum(other[-n:] == own[-n:] for other in parts) == 1:
                break
        labels.append("/".join(own[-n:]))
    repeated = {label for label, count in Counter(labels).items() if count > 1}
    return [f"{label} ({i + 1})" if label in repeated else label for i, label in enumerate(labels)]


def _parts(item: Recording | Path) -> tuple[str, ...]:
    path = item.path if isinstance(item, Recording) else item
    if path is None:
        return ("recording",)
    path = path.resolve()
    return path.parent.parts[1:] if path.name == FILE_NAME else (*path.parent.parts[1:], path.name)


def _config(file: Path) -> tuple[dict[str, Any], str]:
    if not file.is_file():
        return {}, ""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, f"config.json cannot be read: {error}"
    return (table, "") if isinstance(table, dict) else ({}, "config.json does not hold an object")
