"""``figures``: the panels of a report as files for papers and slides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import OutputError, SettingError
from ..plots.draw import draw_panels, style
from ..recording.select import BlockChoice
from .panels import View, all_panels, check_view
from .runs import RunSource, find_runs

FORMATS = ("png", "svg", "pdf")
_TOGETHER = 4  # runs that fit side by side on a page
# Dates would make the same figure another file each time.
_METADATA: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def figures(
    runs: RunSource | Iterable[RunSource],
    folder: str | os.PathLike[str] = "figures",
    formats: Sequence[str] = FORMATS,
    *,
    window: int = 10,
    stride: int = 1,
    block: BlockChoice = "all",
    normalisation: str = "raw",
    names: Sequence[str] | None = None,
    seed: int = 0,
    dpi: int = 200,
) -> list[Path]:
    """Write every panel as files; the same recordings give the same bytes.

    Up to four runs share a figure, ``<panel>.<format>``; more get one each, ``<run>-<panel>.<format>``.

    Args:
        runs: As in ``report``.
        folder: Where to; made if it is not there.
        formats: Of "png", "svg" and "pdf".
        window: As in ``report``.
        stride: As in ``report``.
        block: As in ``report``.
        normalisation: As in ``report``.
        names: As in ``report``.
        seed: As in ``report``.
        dpi: Of PNG files.

    Returns:
        The files.

    Raises:
        DataError: If a folder holds no recording.
        SettingError: If a format is unknown, or as in ``report``.
        OutputError: If the folder cannot be written.
        MissingDependencyError: If matplotlib is not installed.
    """
    wrong = [name for name in formats if name not in FORMATS]
    if wrong or isinstance(formats, str) or not formats:
        given = repr(formats) if isinstance(formats, str) else ", ".join(map(repr, wrong)) or "none"
        raise SettingError(f"formats must be some of {', '.join(FORMATS)}; got {given}. Pass a list of these.")
    found = find_runs(runs, names)
    view = View(window, stride, block, normalisation, seed)
    check_view(view, found)
    out, written = Path(folder), []
    panels = all_panels(found, view)
    labels = [run.name for run in found]
    together = len(found) <= _TOGETHER
    try:
        out.mkdir(parents=True, exist_ok=True)
        for kind, row in panels:
            for i in [None] if together else range(len(found)):
                part, heads = (row, labels) if i is None else ([row[i]], [labels[i]])
                stem = kind.key if i is None else f"{_slug(labels[i])}-{kind.key}"
                figure = draw_panels(part, heads)
                for name in formats:
                    file = out / f"{stem}.{name}"
                    with style():
                        figure.savefig(file, format=name, dpi=dpi, metadata=_METADATA[name])
                    written.append(file)
    except OSError as error:
        raise OutputError(f"{out} must be writable; got {error.strerror or error}. Choose another place.") from error
    return written


def _slug(name: str) -> str:
    """A name as part of a file name.

    >>> _slug("modular/add 42")
    'modular-add-42'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
