"""``report``: one page for one run or several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..recording.select import BlockChoice
from .page import render
from .panels import View, all_panels, check_view
from .runs import RunSource, find_runs

if TYPE_CHECKING:
    from ..predictions.verdict import Verdict


def report(
    runs: RunSource | Iterable[RunSource],
    out: str | os.PathLike[str] = "report.html",
    *,
    window: int = 10,
    stride: int = 1,
    block: BlockChoice = "all",
    normalisation: str = "raw",
    names: Sequence[str] | None = None,
    title: str | None = None,
    summary: Sequence[str] | None = None,
    verdicts: Sequence[Verdict] | None = None,
    seed: int = 0,
) -> Path:
    """Write a page that shows runs side by side and opens anywhere, without a network.

    Args:
        runs: A run folder, a folder below which recordings lie, a recording, or several of these.
        out: The HTML file; an older one is replaced, at once and whole.
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union of blocks that all panels but the map of blocks look at.
        normalisation: "raw", "row" (rows of length 1) or "lr" (rows over their learning rate), for the
            panels of spectra.
        names: Names of the runs; those of their folders where None.
        title: Heading of the page.
        summary: What these runs share and how they differ, in sentences; left out where None.
        verdicts: What ``spectraledge.verify`` said of these runs; left out where None.
        seed: Of the surrogates behind bands and p-values.

    Returns:
        The file.

    Raises:
        DataError: If a folder holds no recording.
        SettingError: If no run can show such windows, or the block or normalisation is unknown.
        OutputError: If the file cannot be written.
        MissingDependencyError: If plotly or jinja2 is not installed.
    """
    found = find_runs(runs, names)
    view = View(window, stride, block, normalisation, seed)
    check_view(view, found)
    path = Path(out)
    if path.is_dir():
        raise OutputError(f"out must be a file; {path} is a folder. Name a file in it, such as report.html.")
    heading = title or (found[0].name if len(found) == 1 else f"{len(found)} runs side by side")
    page = render(found, all_panels(found, view), title=heading, summary=summary, verdicts=verdicts)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} must be writable; got {error.strerror or error}. Choose another place.") from error
    return path
