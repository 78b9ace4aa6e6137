"""Singular values of every window, with what noise of the same norms would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colors import GREY, ordered
from .kind import Kind, Table, sub, window_facts
from .null import METHOD, null_table, p_eff_words
from .panel import Band, Layer, Line, Mark, Row, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording
    from ..recording.select import BlockChoice


def singular_values_table(
    recording: Recording,
    *,
    window: int = 10,
    stride: int = 1,
    block: BlockChoice = "all",
    normalisation: str = "raw",
    seed: int = 0,
) -> Table:
    """Spectra of all windows and their null.

    Args:
        recording: T updates.
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union.
        normalisation: "raw", "row" or "lr".
        seed: Of the null's draws.

    Returns:
        ``steps`` (N), ``singular_values`` (N, W), ``floor`` (N), ``resolved`` (N, W); ``null_steps`` (n),
        ``null_low``, ``null_high`` (n, W) at 5 and 95 %; ``p_eff`` (n); ``facts``, ``note``.

    Raises:
        SettingError: If the band is too narrow for the window.
        DataError: If there are fewer updates than one window needs.
    """
    spectra = recording.spectra(window, stride, block, normalisation)
    null = null_table(spectra, seed=seed)
    unresolved = int(np.sum(~spectra.resolved & np.isfinite(spectra.singular_values)))
    facts = window_facts(spectra, recording.n_steps) + p_eff_words(null["p_eff"])
    if np.isfinite(spectra.floor).any():
        facts += f" · floor ≤ {np.nanmax(spectra.floor):.1e}"
    if unresolved:
        facts += f" · {unresolved} values at or below the floor"
    return {
        "steps": spectra.steps,
        "singular_values": spectra.singular_values,
        "floor": spectra.floor,
        "resolved": spectra.resolved,
        "null_steps": null["steps"],
        "null_low": null["sigma_low"],
        "null_high": null["sigma_high"],
        "p_eff": null["p_eff"],
        "facts": facts,
        "note": null["note"],
    }


def singular_values_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    sigma, steps = np.where(table["resolved"], table["singular_values"], np.nan), table["steps"]
    colors = ordered(sigma.shape[1])
    # Far below everything as a rule, the floor must not flatten the rest: it does not stretch the axis.
    floor = Line(steps, positive(table["floor"]), "resolution floor", GREY, width=1.0, dash="dot", guide=True)
    layers: list[Layer] = [floor]
    # Noise of fewer dimensions than rows has no smallest singular value: such a band is cut below the data.
    smallest = np.nanmin(sigma) / 3 if np.isfinite(sigma).any() else 0.0
    if np.isfinite(table["null_low"]).any():
        layers += [
            Band(
                table["null_steps"],
                positive(np.maximum(table["null_low"][:, j], smallest)),
                positive(np.maximum(table["null_high"][:, j], smallest)),
                "null, 5-95 % (same colour)",
                colors[j],
                opacity=0.14,
            )
            for j in range(sigma.shape[1])
        ]
    layers += [
        Line(steps, sigma[:, j], f"σ{sub(j + 1)}", colors[j], width=1.9 if j < 3 else 1.1)
        for j in range(sigma.shape[1])
    ]
    return [Row("singular values of the update window", tuple(layers), log=True, height=2.2)]


SINGULAR_VALUES = Kind(
    key="singular_values",
    title="Singular values of the updates",
    reading=(
        "A mode stands out where its line leaves the band of its own colour, which noise of the same norms would "
        "fill; a line that falls within it only shows updates getting shorter, and σ₁ above it may be weight decay."
    ),
    method="σ from the Gram matrix of the last W updates, not centred. " + METHOD,
    table=singular_values_table,
    rows=singular_values_rows,
)


def plot_singular_values(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw the singular values over time, with the floor and the null's band.

    Args:
        source: A recording, or a table of ``singular_values_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: Of ``singular_values_table``.
    """
    return SINGULAR_VALUES.draw(source, ax, marks=marks, **options)
