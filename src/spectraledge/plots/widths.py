"""Widths of the gap in every unit, beside the energy that they shrink with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory.gap import g23
from ..theory.spectrum import gram_spectrum
from .colors import BLUE, GREEN, GREY, PURPLE, VERMILION
from .kind import Kind, Table, window_facts
from .null import METHOD, null_table
from .panel import Band, Layer, Line, Mark, Row, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording
    from ..recording.select import BlockChoice


def widths_table(
    recording: Recording, *, window: int = 10, stride: int = 1, block: BlockChoice = "all", seed: int = 0
) -> Table:
    """Gap widths of all windows, as they are and in proportion.

    Args:
        recording: T updates.
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union.
        seed: Of the null's draws.

    Returns:
        ``steps`` (N); ``trace``, ``g23`` and ``eigen_width`` at guarded k* (N) [parameter^2]; ``width`` at
        guarded k* (N) [parameter]; ``g23_share`` = g23 / tr G (N); ``g23_row_share``, the same of rows scaled
        to length 1 (N); ``null_steps`` (n); ``null_low``, ``null_high`` (n) of ``g23_share`` and
        ``null_row_low``, ``null_row_high`` (n) of ``g23_row_share``, at 5 and 95 %; ``facts``, ``note``.

    Raises:
        SettingError: If the band is too narrow for the window.
        DataError: If there are fewer updates than one window needs.
    """
    spectra = recording.spectra(window, stride, block)
    norms = np.where(spectra.norms > 0, spectra.norms, np.nan)
    cosines = spectra.gram / (norms[:, :, None] * norms[:, None, :])
    row_sigma = gram_spectrum(cosines, update_eps=recording.update_eps).singular_values
    gap, null = spectra.gap("guarded"), null_table(spectra, seed=seed)
    null_row = null_table(spectra, norms=norms / norms, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(spectra.trace > 0, spectra.g23 / spectra.trace, np.nan)
    return {
        "steps": spectra.steps,
        "trace": spectra.trace,
        "g23": spectra.g23,
        "eigen_width": gap.eigen_width,
        "width": gap.width,
        "g23_share": share,
        "g23_row_share": g23(row_sigma) / window,
        "null_steps": null["steps"],
        "null_low": null["g23_share_low"],
        "null_high": null["g23_share_high"],
        "null_row_low": null_row["g23_share_low"],
        "null_row_high": null_row["g23_share_high"],
        "facts": window_facts(spectra, recording.n_steps),
        "note": null["note"],
    }


def widths_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    t, steps = table, table["steps"]

    def line(column: str, name: str, color: str, **style: Any) -> Line:
        return Line(steps, positive(t[column]), name, color, **style)

    energies = (
        line("trace", "tr G", GREY, width=1.8),
        line("eigen_width", "σ² width at guarded k*", GREEN),
        line("g23", "g₂₃ = σ₂² - σ₃²", VERMILION),
    )
    shares: list[Layer] = []
    row_shares: list[Layer] = []
    if np.isfinite(t["null_low"]).any():
        name, x = "null of g₂₃ / tr G, 5-95 %", t["null_steps"]
        shares = [Band(x, positive(t["null_low"]), positive(t["null_high"]), name, GREY, opacity=0.28)]
        row_shares = [Band(x, positive(t["null_row_low"]), positive(t["null_row_high"]), name, GREY, opacity=0.28)]
    shares += [line("g23_share", "g₂₃ / tr G", VERMILION)]
    row_shares += [line("g23_row_share", "g₂₃ / tr G, rows of length 1", PURPLE)]
    return [
        Row("energies [parameter²]", energies, log=True, height=1.3),
        Row(
            "width σ - σ at guarded k* [parameter]",
            (line("width", "width at guarded k*", BLUE),),
            log=True,
            height=0.8,
        ),
        Row("g₂₃ as a share of tr G", tuple(shares), log=True),
        Row("the same, rows of length 1", tuple(row_shares), log=True),
    ]


WIDTHS = Kind(
    key="widths",
    title="Widths of the gap",
    reading=(
        "A collapse of g₂₃ means something only as far as it exceeds the fall of tr G, and its share of tr G leaves "
        "the grey band: shrinking updates alone make it fall by orders of magnitude."
    ),
    method="width is in units of σ, g₂₃ and tr G in units of σ². " + METHOD,
    table=widths_table,
    rows=widths_rows,
    options=("window", "stride", "block", "seed"),
)


def plot_widths(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw the widths of the gap, and g23 as a share of the trace against its null.

    Args:
        source: A recording, or a table of ``widths_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: Of ``widths_table``.
    """
    return WIDTHS.draw(source, ax, marks=marks, **options)
