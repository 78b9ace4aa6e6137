"""One row of a panel on matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colors import GREY
from .panel import Band, Heat, Layer, Line, Mark, Panel, Points, Row, extents_of, legend
from .ticks import log_ticks, shorten, tick_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES: dict[str, Any] = {"solid": "-", "dash": "--", "dot": ":"}
_MAP = "cividis"  # from dark to light for every kind of eye


def fill_row(ax: Axes, row: Row, extent: tuple[float, float] | None) -> None:
    """Draw a row's layers and set its y axis.

    Args:
        ax: Empty axes.
        row: What to draw.
        extent: y range, or the range of a map's colours; None where nothing is finite.
    """
    ax.set_title(row.label, loc="left", fontsize=8, color=GREY, pad=4)
    for layer in row.layers:
        if isinstance(layer, Heat):
            _heat(ax, layer, extent)
            return
        _layer(ax, layer)
    ax.grid(True)
    if extent is None:
        ax.text(0.5, 0.5, "no finite value", ha="center", va="center", color=GREY, transform=ax.transAxes)
        return
    if row.log:
        ax.set_yscale("log")
        _log_ticks(ax, extent)
    ax.set_ylim(*extent)
    if row.ticks:
        ax.set_yticks([value for value, _ in row.ticks], [shorten(text) for _, text in row.ticks])
        ax.minorticks_off()


def legend_handles(panels: Sequence[Panel]) -> tuple[list[str], list[Any]]:
    """Names and proxy artists of all layers of some panels, without guides that lie off the axes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names: list[str] = []
    handles: list[Any] = []
    extents = extents_of(panels)
    shown = {
        layer.name
        for panel in panels
        for row in panel.rows
        for layer in row.layers
        if not isinstance(layer, Heat) and _on_axes(layer, extents[row.axis])
    }
    for name, layer in legend(panels).items():
        if not isinstance(layer, Mark) and name not in shown:
            continue
        names.append(name)
        if isinstance(layer, Band):
            handles.append(Patch(color=layer.color, alpha=min(1.0, 1.6 * layer.opacity), linewidth=0))
        elif isinstance(layer, Points):
            handles.append(Line2D([], [], color=layer.color, marker="o", markersize=4, linestyle="none"))
        else:
            width = layer.width if isinstance(layer, Line) else 1.0
            handles.append(Line2D([], [], color=layer.color, linewidth=width, linestyle=DASHES[layer.dash]))
    return names, handles


def _on_axes(layer: Layer, extent: tuple[float, float] | None) -> bool:
    if not (isinstance(layer, Line) and layer.guide and extent is not None):
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.any((layer.y >= extent[0]) & (layer.y <= extent[1])))


def _layer(ax: Axes, layer: Line | Band | Points) -> None:
    if isinstance(layer, Band):
        ax.fill_between(layer.x, layer.low, layer.high, color=layer.color, alpha=layer.opacity, linewidth=0)
    elif isinstance(layer, Points):
        face = layer.color if layer.filled else "none"
        ax.plot(
            layer.x,
            layer.y,
            linestyle="none",
            marker="o",
            markersize=0.7 * layer.size,
            color=layer.color,
            markerfacecolor=face,
            alpha=0.8,
        )
    else:
        marker = "o" if layer.markers else None
        style = DASHES[layer.dash]
        ax.plot(
            layer.x, layer.y, color=layer.color, linewidth=layer.width, linestyle=style, marker=marker, markersize=3
        )


def _heat(ax: Axes, heat: Heat, extent: tuple[float, float] | None) -> None:
    from matplotlib.colors import LogNorm, Normalize

    ax.set_yticks(np.arange(len(heat.labels)), [shorten(label) for label in heat.labels])
    ax.set_ylim(len(heat.labels) - 0.5, -0.5)  # the first block on top
    ax.tick_params(axis="y", length=0)
    if extent is None:
        return
    log = heat.log and extent[0] > 0
    norm = LogNorm(*extent) if log else Normalize(*extent)
    edges = cell_edges(heat.x)
    values = np.ma.masked_invalid(heat.values)
    y = np.arange(len(heat.labels) + 1) - 0.5
    mesh = ax.pcolormesh(edges, y, values, norm=norm, cmap=_MAP, rasterized=True)
    scale = ax.inset_axes((1.02, 0.0, 0.025, 1.0))
    bar = ax.figure.colorbar(mesh, cax=scale)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    if log:
        _few_ticks(bar, extent)


def cell_edges(x: np.ndarray) -> np.ndarray:
    """(n+1) borders of cells around n positions: half-way between neighbours.

    >>> cell_edges(np.array([10.0, 20.0, 40.0]))
    array([ 5., 15., 30., 50.])
    """
    x = np.asarray(x, dtype=np.float64)
    if len(x) == 1:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = (x[1:] + x[:-1]) / 2
    return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def _log_ticks(ax: Axes, extent: tuple[float, float]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    ticks = log_ticks(*extent)
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.set_yticklabels([tick_text(v) for v in ticks])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def _few_ticks(bar: Any, extent: tuple[float, float]) -> None:
    ticks = log_ticks(*extent)
    bar.set_ticks(ticks, labels=[tick_text(v) for v in ticks])
    bar.minorticks_off()
