"""One row of a panel on matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colors import GREY
from .panel import Band, Heat, Line, Mark, Panel, Points, Row, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
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
    """Names and proxy artists of all layers of some panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names: list[str] = []
    handles: list[Any] = []
    for name, layer in legend(panels).items():
        names.append(name)
        if isinstance(layer, Band):
            handles.append(Patch(color=layer.color, alpha=min(1.0, 1.6 * layer.opacity), linewidth=0))
        elif isinstance(layer, Points):
            handles.append(Line2D([], [], color=layer.color, marker="o", markersize=4, linestyle="none"))
        elif isinstance(layer, Line | Mark):
            width = layer.width if isinstance(layer, Line) else 1.0
            handles.append(Line2D([], [], color=layer.color, linewidth=width, linestyle=_DASHES[layer.dash]))
    return names, handles


def shorten(name: str, limit: int = 24) -> str:
    """A name with its middle left out where it is long.

    >>> shorten("encoder.layers.0.attention.out", 16)
    'encoder…tion.out'
    """
    if len(name) <= limit:
        return name
    front = (limit - 1) // 2
    return f"{name[:front]}…{name[len(name) - (limit - 1 - front) :]}"


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
        style = _DASHES[layer.dash]
        ax.plot(layer.x, layer.y, color=layer.color, linewidth=layer.width, linestyle=style, marker=marker, markersize=3)


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


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: decades where there are several, else 1-2-5, else round steps.

    >>> log_ticks(0.9, 2e4)
    [1.0, 10.0, 100.0, 1000.0, 10000.0]
    >>> log_ticks(1.0, 6.0)
    [1.0, 2.0, 5.0]
    """
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    powers = 10.0**decades
    inside = powers[(powers >= low) & (powers <= high)]
    if len(inside) >= 3:
        return [float(v) for v in inside[:: -(-len(inside) // 6)]]
    fine = np.sort(np.concatenate([powers * m for m in (1, 2, 5)]))
    fine = fine[(fine >= low * (1 - 1e-12)) & (fine <= high * (1 + 1e-12))]
    if len(fine) >= 3:
        return [float(f"{v:.3g}") for v in fine]
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    step *= next(m for m in (5, 2, 1) if (high - low) / (m * step) >= 2)
    return [float(f"{v:.6g}") for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


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


_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def tick_text(value: float) -> str:
    """A number on a logarithmic axis.

    >>> tick_text(0.05), tick_text(1e-5), tick_text(2e6)
    ('0.05', '10⁻⁵', '2·10⁶')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    power = "10" + str(int(exponent)).translate(_POWERS)
    m = float(mantissa)
    return power if m == 1 else f"{m:g}·{power}"
