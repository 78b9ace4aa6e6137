"""Accuracy and loss over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colors import CYCLE, GREY
from .kind import Kind, Table
from .panel import Line, Mark, Row, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording

_NONE = "No metric was logged. Log some: monitor.log(test_accuracy=..., test_loss=...)."


def metrics_table(recording: Recording) -> Table:
    """Logged numbers, grouped into accuracies, losses and others.

    Returns:
        ``accuracy``, ``loss`` and ``other``: name to (steps, values); ``drawn``: which groups are drawn;
        ``note`` and ``facts``.
    """
    groups: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {"accuracy": {}, "loss": {}, "other": {}}
    for name, series in recording.metrics.items():
        lower = name.lower()
        group = "loss" if "loss" in lower else "accuracy" if "acc" in lower else "other"
        groups[group][name] = series
    named = [name for name in ("accuracy", "loss") if groups[name]]
    drawn = named or (["other"] if groups["other"] else [])
    table: Table = {**groups, "drawn": drawn, "note": "" if drawn else _NONE, "facts": ""}
    counts = [len(steps) for group in drawn for steps, _ in groups[group].values()]
    if counts:
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
        table["facts"] = f"n = {each} evaluations each"
        if named and groups["other"]:
            table["facts"] += f" · recorded, not drawn: {', '.join(groups['other'])}"
    return table


def metrics_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    rows = []
    for group in table["drawn"]:
        series = table[group]
        if group == "other":
            rows += [
                Row(name, (_line(name, values, CYCLE[i % len(CYCLE)]),))
                for i, (name, values) in enumerate(list(series.items())[:4])
            ]
            continue
        colors = {name: _color(name, i) for i, name in enumerate(series)}
        values = np.concatenate([y for _, y in series.values()])
        known = values[np.isfinite(values)]
        if group == "accuracy":
            share = len(known) == 0 or (known.min() >= 0 and known.max() <= 1)
            lines = tuple(_line(name, xy, colors[name]) for name, xy in series.items())
            rows.append(Row("accuracy", lines, limits=(-0.03, 1.03) if share else None))
        else:
            log = len(known) > 0 and bool((known > 0).any())
            lines = tuple(_line(name, xy, colors[name], log=log) for name, xy in series.items())
            rows.append(Row("loss", lines, log=log))
    return rows


def _color(name: str, i: int) -> str:
    # The same set in both rows has the same colour.
    for start, color in (("train", CYCLE[0]), ("test", CYCLE[1]), ("val", CYCLE[2]), ("batch", GREY)):
        if name.lower().startswith(start):
            return color
    return CYCLE[(3 + i) % len(CYCLE)]


def _line(name: str, series: tuple[np.ndarray, np.ndarray], color: str, *, log: bool = False) -> Line:
    steps, values = series
    return Line(steps, positive(values) if log else values, name, color, markers=len(steps) < 40)


METRICS = Kind(
    key="metrics",
    title="Accuracy and loss",
    reading="Grokking is a test accuracy that rises long after the training accuracy has reached 1.",
    method="As logged at the evaluations, without smoothing.",
    table=metrics_table,
    rows=metrics_rows,
    options=(),
)


def plot_metrics(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw accuracy and loss over time.

    Args:
        source: A recording, or a table of ``metrics_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: None are taken.
    """
    return METRICS.draw(source, ax, marks=marks, **options)
