"""Panels with matplotlib, laid out in inches so that nothing moves with its content."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import require
from .axes import DASHES, fill_row, legend_handles
from .colors import GRID, INK
from .panel import Panel, extents_of, x_extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _GAP = 1.55, 0.34  # inches: an ordinary row, and between rows, where the label of the next one stands
_TEXT = 0.165  # a line of small text
_PER_INCH = 15.5  # characters of small text
_SOFT = "#4a5560"
_STYLE = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib and has every symbol used here
    "font.size": 9.0,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.parse_math": False,  # names are data: a dollar sign in one is a dollar sign
    "svg.hashsalt": "spectraledge",  # the same drawing gives the same file
}


def style() -> Any:
    """A context in which matplotlib draws, and saves, as this package does."""
    matplotlib: Any = require("matplotlib", "plot")
    return matplotlib.rc_context(_STYLE)


def draw_panel(panel: Panel, ax: Axes | None = None) -> Figure:
    """Draw one panel.

    Args:
        panel: What to draw.
        ax: Axes whose place its rows take. Where None a new figure, which pyplot does not know of: save it
            with ``savefig``, or let a notebook show it.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    if ax is None:
        return draw_panels([panel])
    with style():
        ax.set_axis_off()
        heights = [row.height for row in panel.rows] or [1.0]
        room = 0.35  # between rows, of an ordinary one
        unit = 1 / (sum(heights) + room * (len(heights) - 1))
        axes: list[Axes] = []
        top = 1.0
        for height in heights:
            axes.append(ax.inset_axes((0.0, top - height * unit, 1.0, height * unit)))
            top -= (height + room) * unit
        ax.set_title(panel.title, loc="left", fontweight="bold", pad=20)
        _fill_column(axes, panel, extents_of([panel]), x_extent([panel]))
        names, handles = legend_handles([panel])
        if handles:
            axes[0].legend(handles, names, fontsize=7, ncols=2, framealpha=0.8, loc="best")
        return ax.get_figure(root=True)  # type: ignore[return-value]


def draw_panels(panels: Sequence[Panel], names: Sequence[str] = ()) -> Figure:
    """Draw panels of one kind side by side, on common axes.

    Args:
        panels: One a run.
        names: Headings of the columns.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    heights = [max(panel.rows[i].height for panel in _with_row(panels, i)) for i in range(_n_rows(panels))] or [1.0]
    left, right = _margins(panels)
    width = max(7.4, 4.6 * len(panels)) if len(panels) > 1 else 7.4
    inner = (width - 0.15) / len(panels)
    reading = textwrap.wrap(panels[0].reading, int(width * _PER_INCH))
    notes = [line for text in _foot(panels, names) for line in textwrap.wrap(text, int(width * _PER_INCH))]
    with style():
        labels, handles = legend_handles(panels)
        columns, lines = _pack(labels, width - 0.3)
        head = 0.46 + _TEXT * len(reading) + 0.2 * lines + (0.3 if any(names) else 0.04) + 0.26
        foot = 0.5 + _TEXT * len(notes)
        height = head + _ROW * sum(heights) + _GAP * (len(heights) - 1) + foot
        figure = Figure(figsize=(width, height))

        def text(x: float, from_top: float, words: str, **style: Any) -> None:
            figure.text(x / width, 1 - from_top / height, words, va="top", **style)

        text(0.15, 0.12, panels[0].title, fontweight="bold", fontsize=11.5)
        text(0.15, 0.4, "\n".join(reading), fontsize=8, color=_SOFT, linespacing=1.25)
        if handles:
            y = 0.44 + _TEXT * len(reading)
            figure.legend(
                handles,
                labels,
                loc="upper left",
                bbox_to_anchor=(0.08 / width, 1 - y / height),
                ncols=columns,
                frameon=False,
                fontsize=8,
                handlelength=1.5,
                columnspacing=1.2,
                labelspacing=0.25,
                borderpad=0.1,
            )
        for column, panel in enumerate(panels):
            start, span = 0.15 + column * inner + left, inner - left - right
            if names:
                text(0.15 + column * inner, head - 0.47, _short(names[column], inner), fontweight="bold", color=_SOFT)
            axes = []
            y = height - head
            for row_height in heights:
                y -= row_height * _ROW
                box = (start / width, y / height, span / width, row_height * _ROW / height)
                axes.append(figure.add_axes(box))
                y -= _GAP
            _fill_column(axes, panel, extents_of(panels), x_extent(panels))
        if notes:
            text(0.15, height - foot + 0.46, "\n".join(notes), fontsize=8, color=_SOFT, linespacing=1.25)
    return figure


def _fill_column(
    axes: Sequence[Axes],
    panel: Panel,
    extents: Mapping[object, tuple[float, float] | None],
    x_range: tuple[float, float] | None,
) -> None:
    for i, ax in enumerate(axes):
        if i >= len(panel.rows):
            ax.set_axis_off()
            continue
        fill_row(ax, panel.rows[i], extents[panel.rows[i].axis])
        for mark in panel.marks:
            ax.axvline(mark.x, color=mark.color, linewidth=0.9, linestyle=DASHES[mark.dash])
        if x_range is not None:
            ax.set_xlim(*x_range)
        last = i == len(panel.rows) - 1
        ax.tick_params(labelbottom=last)
        if last:
            ax.set_xlabel(panel.x_label)
    if not panel.rows:
        words = "\n".join(textwrap.wrap(panel.note, 48))
        axes[0].text(0.5, 0.5, words, ha="center", va="center", color=_SOFT, transform=axes[0].transAxes)


def _n_rows(panels: Sequence[Panel]) -> int:
    return max(len(panel.rows) for panel in panels)


def _with_row(panels: Sequence[Panel], i: int) -> list[Panel]:
    return [panel for panel in panels if i < len(panel.rows)]


def _foot(panels: Sequence[Panel], names: Sequence[str]) -> list[str]:
    """Settings and counts of each run, then what is missing."""
    heads = [f"{name}: " for name in names] if len(panels) > 1 and names else [""] * len(panels)
    facts = [head + panel.facts for head, panel in zip(heads, panels) if panel.facts]
    notes = list(dict.fromkeys(panel.note for panel in panels if panel.note and panel.rows))
    return facts + notes


def _margins(panels: Sequence[Panel]) -> tuple[float, float]:
    """Left and right of the axes of a column, in inches: block names and colour scales need room."""
    rows = [row for panel in panels for row in panel.rows]
    texts = [text for row in rows for _, text in row.ticks]
    heat = [label for row in rows if row.heat is not None for label in row.heat.labels]
    longest = max((min(len(text), 24) for text in [*texts, *heat]), default=0)
    return max(0.52, 0.15 + 0.072 * longest), 0.72 if heat else 0.12


def _pack(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and lines of a legend that fits into ``width`` inches; matplotlib fills column by column."""
    n = len(labels)
    for columns in range(n, 0, -1):
        base, longer = divmod(n, columns)  # the first columns hold one entry more
        ends = np.cumsum([base + 1] * longer + [base] * (columns - longer))
        widths = [max(0.46 + 0.077 * len(label) for label in part) for part in np.split(np.array(labels), ends[:-1])]
        if sum(widths) <= width:
            return columns, -(-n // columns)
    return 1, n


def _short(name: str, inches: float) -> str:
    limit = max(8, int(inches * 11))
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
