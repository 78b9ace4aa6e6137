"""The demo in one figure: accuracy, singular values, and whether the gap is one that noise shows too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..plots.draw import draw_panels, style
from ..plots.gap_position import GAP_POSITION
from ..plots.metrics import METRICS
from ..plots.panel import Panel
from ..plots.singular_values import SINGULAR_VALUES
from ..recording import Recording
from .compare import WINDOW


def overview_panel(recording: Recording) -> Panel:
    """One run's panel: its accuracy, its singular values with their null, the p-value of its guarded gap."""
    accuracy = METRICS.panel(recording)
    sigma = SINGULAR_VALUES.panel(recording, window=WINDOW)
    gap = GAP_POSITION.panel(recording, window=WINDOW)
    rows = (
        *(row for row in accuracy.rows if row.label == "accuracy"),
        *sigma.rows,
        *(row for row in gap.rows if row.label.startswith("p-value")),
    )
    return replace(
        sigma,
        key="overview",
        title="A network that groks, and its placebo",
        reading=(
            "Where the p-value is high, the gap is one that noise of the same norms shows too. The decline up to "
            "there happens with and without anything to learn; the gap that opens again, only with."
        ),
        rows=rows,
    )


def save_overview(recordings: Mapping[str, Recording], path: Path) -> Path:
    """Draw the runs side by side into a PNG file."""
    figure = draw_panels([overview_panel(r) for r in recordings.values()], list(recordings))
    with style():
        figure.savefig(path, dpi=130)
    return path
