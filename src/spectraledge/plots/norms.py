"""Lengths of parameters and updates, and how much of an update is weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, SettingError
from ..recording.select import select_blocks
from .colors import BLUE, GREEN, GREY, PURPLE, VERMILION
from .kind import Kind, Table
from .panel import Layer, Line, Mark, Row, positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording
    from ..recording.select import BlockChoice


def norms_table(recording: Recording, *, window: int = 10, stride: int = 1, block: BlockChoice = "all") -> Table:
    """Norms of all updates, and the share of weight decay where it was recorded.

    Args:
        recording: T updates.
        window: Rows W of the windows whose leading mode is compared with the parameters.
        stride: Updates in a row of these.
        block: Block or union.

    Returns:
        ``steps`` (T); ``theta_norm``, ``update_norm`` (T) [parameter]; ``decay_share`` =
        <delta_wd, delta> / ||delta||^2 (T), signed; ``decay_ratio`` = ||delta_wd|| / ||delta|| (T); both NaN
        where not recorded. ``cosine_steps`` (N), ``theta_cosine`` = |cos(v_1, theta)| (N), empty where the
        run has no such window, which the note then says. ``facts``, ``note``.

    Raises:
        SettingError: If the block is unknown.
        DataError: If the recording holds no update.
    """
    r = recording
    if not r.n_updates:
        raise DataError("A run must have at least 1 update to be drawn; it has 0. Wait for the first snapshot.")
    chosen = select_blocks(block, r.blocks, r.block_info)
    energy = r.products[:, chosen, 0].sum(axis=1)
    divisor = np.where(energy > 0, energy, np.nan)
    share = ratio = np.full(r.n_updates, np.nan)
    note = "The share of weight decay was not recorded: attach(..., decay_products=True)."
    if r.decay_products is not None and r.decay_norm2 is not None:
        share = r.decay_products[:, chosen, 0].sum(axis=1) / divisor
        ratio = np.sqrt(r.decay_norm2[:, chosen].sum(axis=1) / divisor)
        note = ""
    cosine_steps, cosine = np.empty(0), np.empty(0)
    try:
        cosine_steps, cosines = r.theta_overlap(window, block, stride)
        cosine = np.abs(cosines[:, 0])
    except (DataError, SettingError) as error:  # no such window in this run: the norms are there all the same
        note = f"No |cos(v₁, θ)|: {error} {note}".strip()
    each = np.unique(r.n_steps)
    words = f"{each[0]}" if len(each) == 1 else f"{each[0]}-{each[-1]}"
    return {
        "steps": r.steps,
        "theta_norm": np.sqrt(r.theta_norm2[:, chosen].sum(axis=1)),
        "update_norm": np.sqrt(energy),
        "decay_share": share,
        "decay_ratio": ratio,
        "cosine_steps": cosine_steps,
        "theta_cosine": cosine,
        "facts": f"n = {r.n_updates} updates of {words} steps · v₁ of windows of {window} rows",
        "note": note,
    }


def norms_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    t, steps = table, table["steps"]
    norms = (
        Line(steps, positive(t["theta_norm"]), "‖θ‖", GREY, width=1.8),
        Line(steps, positive(t["update_norm"]), "‖δ‖", BLUE),
    )
    rows = [Row("norms [parameter]", norms, log=True, height=1.2)]
    shares: list[Layer] = []
    if np.isfinite(t["decay_ratio"]).any():
        zero = Line(steps[[0, -1]].astype(float), np.zeros(2), "0", GREY, width=0.8, dash="dot")
        shares = [
            zero,
            Line(steps, t["decay_ratio"], "‖δ_wd‖ / ‖δ‖", GREEN),
            Line(steps, t["decay_share"], "⟨δ_wd, δ⟩ / ‖δ‖², signed", VERMILION),
        ]
    if len(t["theta_cosine"]):
        shares.append(Line(t["cosine_steps"], t["theta_cosine"], "|cos(v₁, θ)|", PURPLE))
    if shares:
        rows.append(Row("weight decay and direction of θ", tuple(shares), height=1.2))
    return rows


NORMS = Kind(
    key="norms",
    title="Norms and weight decay",
    reading=(
        "Where |cos(v₁, θ)| is near 1 and weight decay a large share, the leading mode is the parameters shrinking, "
        "not something being learned."
    ),
    method=(
        "‖δ‖ is the length of a whole recorded update, of several optimizer steps. The signed share is the part of "
        "‖δ‖² that decoupled weight decay accounts for; the ratio of norms exceeds 1 where gradient and decay cancel."
    ),
    table=norms_table,
    rows=norms_rows,
    options=("window", "stride", "block"),
)


def plot_norms(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw the norms of parameters and updates, and the share of weight decay.

    Args:
        source: A recording, or a table of ``norms_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: Of ``norms_table``.
    """
    return NORMS.draw(source, ax, marks=marks, **options)
