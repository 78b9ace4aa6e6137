"""Which blocks the energy of the updates sits in, and how dominant the first mode of each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory.spectrum import gram_spectrum
from .kind import Kind, Table
from .panel import Heat, Mark, Row, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording

_COLUMNS = 240  # windows shown, at most
_BLOCKS = 40


def block_map_table(recording: Recording, *, window: int = 10, stride: int = 1) -> Table:
    """Trace share and sigma_1 / sigma_2 of every block over time.

    Args:
        recording: T updates.
        window: Rows W of a window.
        stride: Updates in a row.

    Returns:
        ``steps`` (n) of at most 240 windows; ``blocks`` (B) names without "all", of at most 40 blocks with
        the largest share; ``share`` (B, n) of tr G, summing to 1 over all blocks; ``ratio`` (B, n)
        sigma_1 / sigma_2, NaN where sigma_2 is not resolved; ``facts``, ``note``.

    Raises:
        SettingError: If the band is too narrow for the window.
        DataError: If there are fewer updates than one window needs.
    """
    names = [name for name in recording.blocks if name != "all"] or list(recording.blocks)
    energy, ratio = [], []
    steps = np.empty(0)
    for name in names:
        steps, gram = recording.gram(window, stride, name)
        chosen = spread(len(steps), _COLUMNS)
        gram = gram[chosen]
        spectrum = gram_spectrum(gram, update_eps=recording.update_eps)
        sigma = np.where(spectrum.resolved, spectrum.singular_values, np.nan)
        energy.append(np.trace(gram, axis1=1, axis2=2))
        ratio.append(sigma[:, 0] / sigma[:, 1])
        steps = steps[chosen]
    share = np.array(energy)
    # A block that belongs to another segment has no product at all: it counts as nothing, not as unknown.
    total = np.where(np.isfinite(share).any(axis=0), np.nansum(share, axis=0), np.nan)
    share = share / np.where(total > 0, total, np.nan)
    size = np.nansum(share, axis=1)
    kept = np.sort(np.argsort(-size, kind="stable")[:_BLOCKS])
    note = ""
    if len(names) == 1:
        note = "There is one block only, so its share is 1 throughout. Record with blocks='layer' to compare layers."
    elif len(kept) < len(names):
        note = f"The {len(kept)} blocks with the largest share of {len(names)} are shown."
    return {
        "steps": steps,
        "blocks": [names[b] for b in kept],
        "share": share[kept],
        "ratio": np.array(ratio)[kept],
        "facts": f"W = {window}{'' if stride == 1 else f' rows of {stride} updates'} · {len(names)} blocks · "
        f"n = {len(steps)} windows shown",
        "note": note,
    }


def block_map_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    labels, x = tuple(table["blocks"]), table["steps"]
    height = 0.5 + 0.14 * len(labels)
    rows = [
        Row("share of tr G", (Heat(x, labels, table["share"], "share"),), height=height),
        Row("σ₁ / σ₂ of the block", (Heat(x, labels, table["ratio"], "σ₁/σ₂", log=True),), height=height),
    ]
    return [row for row in rows if row.heat is not None and np.isfinite(row.heat.values).any()]


BLOCK_MAP = Kind(
    key="block_map",
    title="Blocks over time",
    reading=(
        "The first map shows where the updates' energy sits, the second how far one direction dominates in each; "
        "a change in one block only is a change in that layer."
    ),
    method="Each block by itself, raw rows; shares add up to 1 over all blocks. Colours of both maps: dark is low.",
    table=block_map_table,
    rows=block_map_rows,
    options=("window", "stride"),
)


def plot_block_map(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw trace share and sigma_1 / sigma_2 of all blocks as maps over time.

    Args:
        source: A recording, or a table of ``block_map_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: Of ``block_map_table``.
    """
    return BLOCK_MAP.draw(source, ax, marks=marks, **options)
