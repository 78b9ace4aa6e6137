"""The panels of some runs, one kind after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import SettingError
from ..plots.catalogue import KINDS, PROBE_KINDS
from ..plots.kind import Kind
from ..plots.panel import Panel
from ..recording.derive import check_window
from ..recording.recording import NORMALISATIONS
from ..recording.select import BlockChoice, select_blocks
from .header import grok_marks
from .runs import Run


@dataclass(frozen=True)
class View:
    """How a report looks at its runs.

    Attributes:
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union.
        normalisation: "raw", "row" or "lr".
        seed: Of the null's draws.
    """

    window: int = 10
    stride: int = 1
    block: BlockChoice = "all"
    normalisation: str = "raw"
    seed: int = 0


def check_view(view: View, runs: Sequence[Run]) -> None:
    """Refuse what no run can show.

    A run whose own band is too narrow gets panels that say so.

    Raises:
        SettingError: If the window or stride cannot be in any run, the block is unknown in one, or the
            normalisation is none.
    """
    lags = max(run.recording.lags for run in runs)
    if any(run.recording.n_updates for run in runs) or view.window < 2 or view.stride < 1:
        check_window(view.window, view.stride, view.window * max(view.stride, 1), lags)
    if view.normalisation not in NORMALISATIONS:
        raise SettingError(
            f"normalisation must be one of {', '.join(NORMALISATIONS)}; got {view.normalisation!r}. "
            '"raw" keeps the updates as they are.'
        )
    for run in runs:
        if run.recording.blocks:
            select_blocks(view.block, run.recording.blocks, run.recording.block_info)


def all_panels(runs: Sequence[Run], view: View) -> list[tuple[Kind, list[Panel]]]:
    """Every kind with one panel a run; those on probes only where a run has some."""
    kinds = (*KINDS, *(PROBE_KINDS if any(run.recording.probes for run in runs) else ()))
    marks = [grok_marks(run.recording) for run in runs]
    return [(kind, [_panel(kind, run, view, marks[i]) for i, run in enumerate(runs)]) for kind in kinds]


def _panel(kind: Kind, run: Run, view: View, marks: Any) -> Panel:
    try:
        return kind.panel(run.recording, marks=marks, **vars(view))
    except SettingError as error:  # this run's band is too narrow; check_view has seen to the rest
        empty = Panel(kind.key, kind.title, kind.reading, kind.method, x_label=kind.x_label)
        return replace(empty, note=str(error))
