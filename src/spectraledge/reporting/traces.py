"""Layers of a panel as plotly traces."""

from __future__ import annotations

import html
from itertools import pairwise
from typing import Any

import numpy as np

from ..plots.panel import Band, Heat, Layer, Points, segments, spread
from ..plots.ticks import log_ticks, tick_text

Trace = dict[str, Any]


def traces_of(
    layer: Layer, *, over_steps: bool, extent: tuple[float, float] | None, domain: list[float], limit: int
) -> list[Trace]:
    """Traces of one layer.

    Args:
        layer: What to draw.
        over_steps: Whether x is an optimizer step, not a position.
        extent: Range of a map's colours; None where nothing is finite.
        domain: Vertical place of the row, for a map's scale.
        limit: Points of a trace at most; beyond it, extremes are kept.
    """
    if isinstance(layer, Heat):
        return [_heat(layer, extent, domain)] if extent is not None else []
    if isinstance(layer, Band):
        return _band(layer, limit)
    kept = decimate(layer.x, layer.y, limit)
    name = escape(layer.name)
    what = "step" if over_steps else "j"
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": name,
        "x": numbers(layer.x[kept]),
        "y": numbers(layer.y[kept]),
        "hovertemplate": f"<b>{name}</b><br>{what} %{{x:,}}<br>%{{y:.4~g}}<extra></extra>",
    }
    if isinstance(layer, Points):
        symbol = "circle" if layer.filled else "circle-open"
        marker = {"color": layer.color, "size": layer.size, "symbol": symbol, "opacity": 0.8}
        return [trace | {"mode": "markers", "marker": marker, "cliponaxis": False}]
    line = {"color": layer.color, "width": layer.width, "dash": layer.dash}
    trace |= {"mode": "lines+markers" if layer.markers else "lines", "line": line, "connectgaps": False}
    if layer.markers:
        trace["marker"] = {"color": layer.color, "size": 4}
    return [trace]


def _band(band: Band, limit: int) -> list[Trace]:
    """One closed outline for each stretch: plotly cannot fill between lines with holes."""
    out = []
    for part in segments(np.isfinite(band.low) & np.isfinite(band.high)):
        kept = np.arange(part.start, part.stop)[spread(part.stop - part.start, limit // 2)]
        x, low, high = band.x[kept], band.low[kept], band.high[kept]
        out.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(band.name),
                "x": numbers(np.concatenate([x, x[::-1]])),
                "y": numbers(np.concatenate([low, high[::-1]])),
                "fill": "toself",
                "fillcolor": _rgba(band.color, band.opacity),
                "line": {"width": 0, "color": band.color},
                "hoverinfo": "skip",
            }
        )
    return out


def _heat(heat: Heat, extent: tuple[float, float], domain: list[float]) -> Trace:
    log = heat.log and extent[0] > 0
    low, high = (np.log10(extent) if log else np.asarray(extent)).tolist()
    with np.errstate(invalid="ignore", divide="ignore"):
        shown = np.log10(heat.values) if log else heat.values
    bar: dict[str, Any] = {
        "thickness": 8,
        "len": domain[1] - domain[0],
        "y": (domain[0] + domain[1]) / 2,
        "x": 1.01,
        "xpad": 0,
        "ypad": 0,
        "outlinewidth": 0,
        "tickfont": {"size": 10},
        "nticks": 5,
    }
    if log:
        ticks = log_ticks(*extent)
        bar |= {"tickvals": [float(np.log10(v)) for v in ticks], "ticktext": [tick_text(v) for v in ticks]}
    name = escape(heat.unit)
    return {
        "type": "heatmap",
        "name": name,
        "x": numbers(heat.x),
        "y": [escape(label) for label in heat.labels],
        "z": [numbers(line) for line in shown],
        "customdata": [numbers(line) for line in heat.values],
        "zmin": low,
        "zmax": high,
        "colorscale": "Cividis",
        "colorbar": bar,
        "hoverongaps": False,
        "hovertemplate": f"<b>%{{y}}</b><br>step %{{x:,}}<br>{name} %{{customdata:.3~g}}<extra></extra>",
    }


def numbers(values: np.ndarray) -> list[float | int | None]:
    """Numbers for JSON: six digits, which no screen shows, and null for what is not finite.

    >>> numbers(np.array([0.123456789, np.nan, 3.0]))
    [0.123457, None, 3]
    """
    out: list[float | int | None] = []
    for value in np.asarray(values, dtype=np.float64).tolist():
        if not np.isfinite(value):
            out.append(None)
        elif value == int(value):
            out.append(int(value))
        else:
            out.append(float(f"{value:.6g}"))
    return out


def decimate(x: np.ndarray, y: np.ndarray, limit: int) -> np.ndarray:
    """Indices of at most ``limit`` points that keep the extremes of every stretch, so that no spike is lost.

    >>> y = np.zeros(100); y[37] = 1
    >>> 37 in decimate(np.arange(100), y, 20)
    True
    """
    n = len(x)
    if n <= limit:
        return np.arange(n)
    edges = np.linspace(0, n, max(1, limit // 2) + 1).astype(int)
    kept = set()
    for start, stop in pairwise(edges):
        part = y[start:stop]
        if np.isfinite(part).any():
            kept |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
        elif stop > start:
            kept.add(int(start))  # one missing point keeps the hole open
    return np.array(sorted(kept))


def escape(text: str) -> str:
    """A name as plotly must get it: it reads tags such as <b> and links in texts.

    >>> escape("<b>x</b>")
    '&lt;b&gt;x&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def _rgba(color: str, opacity: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"
