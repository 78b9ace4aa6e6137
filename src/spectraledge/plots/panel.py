"""What a figure shows, before anything draws it: rows of lines, bands, points and maps over one x axis.

Both renderers, matplotlib here and the page in ``reporting``, draw the same panels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Dash = Literal["solid", "dash", "dot"]

STEPS = "optimizer step"
_PAD = 0.05  # of the extent, on both sides


@dataclass(frozen=True)
class Line:
    """A line; NaN interrupts it. ``guide`` lines (a floor, a level) do not stretch the axis."""

    x: Array
    y: Array
    name: str
    color: str
    width: float = 1.4
    dash: Dash = "solid"
    markers: bool = False
    guide: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two lines; NaN interrupts it."""

    x: Array
    low: Array
    high: Array
    name: str
    color: str
    opacity: float = 0.18


@dataclass(frozen=True)
class Points:
    """Separate points, filled or hollow."""

    x: Array
    y: Array
    name: str
    color: str
    filled: bool = True
    size: float = 5.0


@dataclass(frozen=True)
class Heat:
    """A map: one line of cells for each label, one column for each x."""

    x: Array
    labels: tuple[str, ...]
    values: Array  # (labels, x)
    unit: str
    log: bool = False


Layer = Line | Band | Points | Heat


@dataclass(frozen=True)
class Mark:
    """A vertical line through all rows: an event at a step."""

    x: float
    name: str
    color: str
    dash: Dash = "dash"


@dataclass(frozen=True)
class Row:
    """One pair of axes.

    Attributes:
        label: Quantity and unit; stands above the axes, where it fits on a phone.
        layers: Drawn in this order.
        log: Whether y is logarithmic; values at or below 0 are then left out.
        limits: Fixed y range, or None for the extent of the layers.
        ticks: Fixed y ticks as (value, text), or none.
        height: Relative to an ordinary row.
    """

    label: str
    layers: tuple[Layer, ...]
    log: bool = False
    limits: tuple[float, float] | None = None
    ticks: tuple[tuple[float, str], ...] = ()
    height: float = 1.0

    @property
    def axis(self) -> object:
        """Equal for rows of different runs that can be compared on one y axis."""
        return self.label, self.log, self.ticks

    @property
    def heat(self) -> Heat | None:
        """The map that this row shows, if it shows one."""
        return next((layer for layer in self.layers if isinstance(layer, Heat)), None)


@dataclass(frozen=True)
class Panel:
    """A figure of one recording.

    Attributes:
        key: Short name, as in ``plot_<key>``.
        title: Title.
        reading: One sentence on how to read it.
        method: Rules, normalisation and null behind it.
        rows: From top to bottom; empty where there is nothing to draw.
        facts: Settings and counts of this recording: window, stride, n.
        note: What is missing and why; empty if nothing is.
        x_label: Name of the x axis.
        marks: Vertical lines.
    """

    key: str
    title: str
    reading: str
    method: str = ""
    rows: tuple[Row, ...] = ()
    facts: str = ""
    note: str = ""
    x_label: str = STEPS
    marks: tuple[Mark, ...] = field(default=())


def row_extent(rows: Iterable[Row]) -> tuple[float, float] | None:
    """Common y range of rows that are to be compared, padded; of a map, its range of colours.

    Returns:
        (low, high), or None where there is nothing finite to show.
    """
    rows = list(rows)
    fixed = [row.limits for row in rows if row.limits is not None]
    if fixed:
        return min(low for low, _ in fixed), max(high for _, high in fixed)
    log = any(row.log or (row.heat is not None and row.heat.log) for row in rows)
    values = np.concatenate([np.ravel(v) for row in rows for v in _values(row)] or [np.empty(0)])
    values = values[np.isfinite(values) & (values > 0)] if log else values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if any(row.heat is not None for row in rows):
        return (low, high) if high > low else (low, low * 2 if low > 0 else low + 1)
    if log:
        low, high = np.log10(low), np.log10(high)
    pad = _PAD * (high - low) if high > low else (_PAD if log else _PAD * abs(high) or 1.0)
    low, high = low - pad, high + pad
    return (float(10**low), float(10**high)) if log else (low, high)


def extents_of(panels: Iterable[Panel]) -> dict[object, tuple[float, float] | None]:
    """Common extents of the rows that show the same quantity on the same kind of axis, by ``Row.axis``."""
    alike: dict[object, list[Row]] = {}
    for panel in panels:
        for row in panel.rows:
            alike.setdefault(row.axis, []).append(row)
    return {axis: row_extent(rows) for axis, rows in alike.items()}


def x_extent(panels: Iterable[Panel]) -> tuple[float, float] | None:
    """Common x range of panels that are to be compared, or None where nothing is drawn."""
    every = [layer.x for panel in panels for row in panel.rows for layer in row.layers if len(layer.x)]
    if not every:
        return None
    low, high = min(float(np.min(x)) for x in every), max(float(np.max(x)) for x in every)
    pad = 0.02 * (high - low) if high > low else 1.0
    return low - pad, high + pad


def legend(panels: Iterable[Panel]) -> dict[str, Line | Band | Points | Mark]:
    """What each name in a figure looks like: lines and points as they appear, then bands, then marks.

    Maps have scales instead.
    """
    entries: dict[str, Line | Band | Points | Mark] = {}
    for panel in panels:
        for layer in [*(layer for row in panel.rows for layer in row.layers), *panel.marks]:
            if not isinstance(layer, Heat):
                entries.setdefault(layer.name, layer)
    rank = {Line: 0, Points: 0, Band: 1, Mark: 2}
    return dict(sorted(entries.items(), key=lambda entry: rank[type(entry[1])]))


def positive(values: Array) -> Array:
    """Values that a logarithmic axis can show; NaN for the others."""
    with np.errstate(invalid="ignore"):
        return np.where(values > 0, values, np.nan)


def segments(finite: NDArray[np.bool_]) -> Iterator[slice]:
    """Stretches of True.

    >>> [(s.start, s.stop) for s in segments(np.array([True, True, False, True]))]
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2]):
        yield slice(int(start), int(stop))


def spread(n: int, limit: int) -> NDArray[np.int64]:
    """At most ``limit`` of the indices 0..n-1, evenly spread, both ends among them.

    >>> spread(10, 4)
    array([0, 3, 6, 9])
    """
    if n <= limit:
        return np.arange(n)
    return np.unique(np.round(np.linspace(0, n - 1, limit)).astype(np.int64))


def _values(row: Row) -> Sequence[Array]:
    out: list[Array] = []
    for layer in row.layers:
        if isinstance(layer, Band):
            out += [layer.low, layer.high]
        elif isinstance(layer, Heat):
            out.append(layer.values)
        elif not (isinstance(layer, Line) and layer.guide):
            out.append(layer.y)
    return out
