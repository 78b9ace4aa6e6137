"""Panels as plotly figures: plain dictionaries that JSON can hold, NaN as null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..plots.colors import GRID, INK
from ..plots.panel import STEPS, Mark, Panel, Row, extents_of, x_extent
from ..plots.ticks import shorten
from .traces import escape, traces_of

MAX_POINTS = 2000
_ROW, _GAP, _TOP, _BOTTOM = 150, 36, 24, 46  # pixels
_LABEL = 16  # characters of a block's name on the axis; the whole name is in the hover
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'

Figure = dict[str, Any]


def figures_of(panels: Sequence[Panel], max_points: int = MAX_POINTS) -> list[Figure | None]:
    """Plotly figures of panels of one kind, on common axes.

    Args:
        panels: One a run.
        max_points: Of a trace; beyond it, extremes are kept.

    Returns:
        ``{"data": ..., "layout": ...}`` for each, or None where a panel has no rows.
    """
    extents, shared, margins = extents_of(panels), x_extent(panels), _margins(panels)
    return [_figure(panel, extents, shared, margins, max_points) if panel.rows else None for panel in panels]


def _figure(
    panel: Panel,
    extents: Mapping[object, tuple[float, float] | None],
    shared: tuple[float, float] | None,
    margins: tuple[int, int],
    max_points: int,
) -> Figure:
    over_steps = panel.x_label == STEPS
    heights = [row.height * _ROW for row in panel.rows]
    inner = sum(heights) + _GAP * (len(heights) - 1)
    layout: dict[str, Any] = {
        "height": round(inner + _TOP + _BOTTOM),
        "margin": {"l": margins[0], "r": margins[1], "t": _TOP, "b": _BOTTOM},
        "font": {"family": _FONT, "size": 11, "color": INK},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": "zoom",
        "hoverlabel": {"font": {"family": _FONT, "size": 12}, "namelength": -1},
        "annotations": [],
        "shapes": [_mark(mark) for mark in panel.marks],
    }
    data: list[dict[str, Any]] = []
    top = inner
    for i, row in enumerate(panel.rows):
        domain = [max(0.0, (top - heights[i]) / inner), top / inner]
        top -= heights[i] + _GAP
        axis = "y" if i == 0 else f"y{i + 1}"
        layout[f"yaxis{axis[1:]}"] = _y_axis(row, extents[row.axis], domain, heights[i])
        layout["annotations"].append(_label(row.label, domain[1]))
        for layer in row.layers:
            for trace in traces_of(
                layer, over_steps=over_steps, extent=extents[row.axis], domain=domain, limit=max_points
            ):
                data.append({**trace, "xaxis": "x", "yaxis": axis})
    layout["xaxis"] = {
        "title": {"text": panel.x_label, "standoff": 6},
        "anchor": axis,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#9aa3ad",
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#9aa3ad",
        "tickformat": ",d" if over_steps else "d",
        "nticks": 6,
        "range": None if shared is None else list(shared),
    }
    if not over_steps:
        layout["xaxis"] |= {"dtick": 1} if shared is not None and shared[1] - shared[0] < 14 else {}
    return {"data": data, "layout": layout}


def log_step(low: float, high: float, pixels: float) -> int | str:
    """Distance of the ticks of a logarithmic axis, as plotly writes it; page.js does the same after a zoom.

    Plotly's own choice lets digits overlap on short axes: decades where 1-2-5 would not fit, and even steps
    where fewer than three of these would be seen.

    >>> log_step(1e-5, 10.0, 150), log_step(0.1, 2.0, 150), log_step(1.0, 1.5, 150)
    (2, 'D2', 'L0.2')
    """
    decades = float(np.log10(high / low))
    if decades > pixels / 100:
        return int(np.ceil(decades / 5))
    if decades > 0.7:
        return "D2"
    rough = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(rough))
    return f"L{next(m for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9)) * power:.3g}"


def _y_axis(row: Row, extent: tuple[float, float] | None, domain: list[float], pixels: float) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "domain": domain,
        "anchor": "x",
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#9aa3ad",
        "exponentformat": "power",
        "nticks": 6,
    }
    heat = row.heat
    if heat is not None:
        names = [escape(label) for label in heat.labels]
        short = [escape(shorten(label, _LABEL)) for label in heat.labels]
        return axis | {
            "type": "category",
            "autorange": "reversed",
            "tickvals": names,
            "ticktext": short,
            "fixedrange": True,
            "showgrid": False,
        }
    if row.log:
        axis["type"] = "log"
        if extent is not None:
            axis |= {"tickmode": "linear", "tick0": 0, "dtick": log_step(extent[0], extent[1], pixels)}
    if extent is not None:
        axis["range"] = [float(np.log10(v)) for v in extent] if row.log else list(extent)
    if row.ticks:
        axis |= {
            "tickmode": "array",
            "tickvals": [v for v, _ in row.ticks],
            "ticktext": [escape(shorten(t, _LABEL)) for _, t in row.ticks],
        }
        axis["fixedrange"] = True
    return axis


def _mark(mark: Mark) -> dict[str, Any]:
    line = {"color": mark.color, "width": 1, "dash": mark.dash}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": mark.x, "x1": mark.x, "y0": 0, "y1": 1, "line": line}


def _label(text: str, y: float) -> dict[str, Any]:
    return {
        "text": escape(text),
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": y,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 11, "color": "#55606c"},
        "bgcolor": "#fff",
        "borderpad": 1,
    }


def _margins(panels: Sequence[Panel]) -> tuple[int, int]:
    rows = [row for panel in panels for row in panel.rows]
    texts = [text for row in rows for _, text in row.ticks]
    labels = [label for row in rows if row.heat is not None for label in row.heat.labels]
    longest = max((min(len(text), _LABEL) for text in [*texts, *labels]), default=0)
    return max(52, 14 + round(6.4 * longest)), 52 if labels else 14
