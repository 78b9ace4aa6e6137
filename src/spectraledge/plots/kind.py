"""A kind of figure: from a recording to a table, from a table to a panel, from a panel to a drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .panel import STEPS, Mark, Panel, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording, Spectra

Table = dict[str, Any]

_NOTHING = "Nothing to draw: no window has all its products, or no update moved anything."


@dataclass(frozen=True)
class Kind:
    """One kind of figure.

    Attributes:
        key: Short name.
        title: Title.
        reading: One sentence on how to read it.
        method: Rules, normalisation and null behind it.
        table: Arrays from a recording; may raise DataError where the run is too short.
        rows: What to draw, from the table.
        options: Options that ``table`` takes.
        x_label: Name of the x axis.
    """

    key: str
    title: str
    reading: str
    method: str
    table: Callable[..., Table]
    rows: Callable[[Table], Sequence[Row]]
    options: tuple[str, ...] = ("window", "stride", "block", "normalisation", "seed")
    x_label: str = STEPS

    def panel(self, source: Recording | Mapping[str, Any], *, marks: Sequence[Mark] = (), **options: Any) -> Panel:
        """The panel of a recording or of a table made before.

        A run that is too short gives a panel without rows whose note says so.

        Args:
            source: A recording, or this kind's table.
            marks: Vertical lines at events; none where x is not the step.
            **options: For the table; those that this kind does not take are left out.

        Raises:
            SettingError: If an option cannot be.
        """
        empty = Panel(self.key, self.title, self.reading, self.method, x_label=self.x_label)
        try:
            table = self._table(source, options)
        except DataError as error:
            return replace(empty, note=str(error))
        rows = tuple(self.rows(table))
        return replace(
            empty,
            rows=rows,
            facts=table.get("facts", ""),
            note=table.get("note", "") or ("" if rows else _NOTHING),
            marks=tuple(marks) if self.x_label == STEPS else (),
        )

    def draw(
        self,
        source: Recording | Mapping[str, Any],
        ax: Axes | None = None,
        *,
        marks: Sequence[Mark] = (),
        **options: Any,
    ) -> Figure:
        """Draw the panel with matplotlib; see ``draw_panel``."""
        from .draw import draw_panel

        return draw_panel(self.panel(source, marks=marks, **options), ax)

    def _table(self, source: Any, options: Mapping[str, Any]) -> Table:
        if isinstance(source, Mapping):
            return dict(source)
        return self.table(source, **{name: value for name, value in options.items() if name in self.options})


def window_facts(spectra: Spectra, n_steps: np.ndarray) -> str:
    """Window, stride, block and counts behind a panel, in one line."""
    per_row = np.unique(n_steps) * spectra.stride
    each = f"{per_row[0]}" if len(per_row) == 1 else f"{per_row.min()}-{per_row.max()}"
    usable = int(np.isfinite(spectra.singular_values[:, 0]).sum())
    rows = "updates" if spectra.stride == 1 else f"rows of {spectra.stride} updates"
    missing = "" if usable == len(spectra.steps) else f", {len(spectra.steps) - usable} without all products"
    words = {"raw": "raw rows", "row": "rows of length 1", "lr": "rows over their learning rate"}
    return (
        f"W = {spectra.window} {rows} ({each} steps each) · block {spectra.block} · "
        f"{words[spectra.normalisation]} · n = {usable} windows{missing}"
    )


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def sub(j: int) -> str:
    """A number as an index.

    >>> sub(12)
    '₁₂'
    """
    return str(j).translate(_SUBSCRIPTS)
