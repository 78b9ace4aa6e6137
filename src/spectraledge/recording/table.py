"""Recordings as tables: columns by name, for pandas, CSV and people."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutputError, SettingError
from .select import BlockChoice, block_label, select_blocks

if TYPE_CHECKING:
    from .recording import Recording

Table = dict[str, Sequence[Any] | np.ndarray]
_RULES = ("guarded", "plain", "weighted")


def make_table(recording: Recording, kind: str = "windows", **options: Any) -> Table:
    """Columns of one kind of table; see ``Recording.to_dataframe``.

    Raises:
        SettingError: If the kind is unknown.
    """
    makers = {"windows": windows_table, "rows": rows_table, "metrics": metrics_table}
    if kind not in makers:
        raise SettingError(f"kind must be one of {', '.join(makers)}; got {kind!r}. Name one of these.")
    return makers[kind](recording, **options)


def windows_table(
    recording: Recording,
    *,
    window: int = 10,
    stride: int = 1,
    block: BlockChoice = "all",
    normalisation: str = "raw",
    p_value: bool = False,
) -> Table:
    """One row a window: spectrum, and position, ratio and widths of the gap by every rule.

    Args:
        recording: T updates.
        window: W.
        stride: Updates in a row.
        block: Block or union.
        normalisation: "raw", "row" or "lr".
        p_value: Whether to add P_eff and the p-value of the guarded rule (seconds for thousands of windows).
    """
    spectra = recording.spectra(window, stride, block, normalisation)
    n = len(spectra.steps)
    table: Table = {
        "step": spectra.steps,
        "window": np.full(n, window),
        "stride": np.full(n, stride),
        "block": [spectra.block] * n,
        "normalisation": [normalisation] * n,
    }
    for j in range(window):
        table[f"sigma_{j + 1}"] = spectra.singular_values[:, j]
    table |= {
        "floor": spectra.floor,
        "n_resolved": spectra.resolved.sum(axis=1),
        "trace": spectra.trace,
        "participation_ratio": spectra.participation_ratio,
        "g23": spectra.g23,
    }
    for rule in _RULES:
        gap = spectra.gap(rule)  # type: ignore[arg-type]
        table |= {
            f"{rule}_position": gap.position,
            f"{rule}_ratio": gap.ratio,
            f"{rule}_width": gap.width,
            f"{rule}_eigen_width": gap.eigen_width,
        }
    if p_value:
        table |= {"p_eff": spectra.p_eff, "guarded_p_value": spectra.gap("guarded").p_value}
    return table


def rows_table(recording: Recording, *, block: BlockChoice = "all") -> Table:
    """One row an update: what was measured for one block or union, at lags 0 and 1."""
    r = recording
    chosen = select_blocks(block, r.blocks, r.block_info)
    products = r.products[:, chosen].sum(axis=1)
    table: Table = {
        "t": np.arange(r.n_updates),
        "segment": r.segment,
        "step": r.steps,
        "n_steps": r.n_steps,
        "block": [block_label(block)] * r.n_updates,
        "update_norm": np.sqrt(products[:, 0]),
        "theta_norm": np.sqrt(r.theta_norm2[:, chosen].sum(axis=1)),
        "theta_dot": r.theta_dot[:, chosen].sum(axis=1),
        "unchanged": r.unchanged[:, chosen].sum(axis=1),
        "nonfinite": r.nonfinite[:, chosen].sum(axis=1),
    }
    if r.lags >= 1:
        previous = np.append(np.nan, np.sqrt(products[:-1, 0])) if r.n_updates else np.empty(0)
        norms = np.sqrt(products[:, 0]) * previous
        table["cosine_1"] = products[:, 1] / np.where(norms > 0, norms, np.nan)
    for group in range(r.lr_sum.shape[1]):
        table[f"lr_sum_{group}"] = r.lr_sum[:, group]
    return table | {"seconds": r.seconds, "flags": [";".join(flags) for flags in r.flags]}


def metrics_table(recording: Recording) -> Table:
    """One row a logged number: step, name, value."""
    steps, names, values = [], [], []
    for name, (at, what) in recording.metrics.items():
        steps += at.tolist()
        names += [name] * len(at)
        values += what.tolist()
    return {"step": steps, "name": names, "value": values}


def write_csv(table: Mapping[str, Sequence[Any] | np.ndarray], path: Path) -> Path:
    """Write a table; numbers in full precision, missing ones empty.

    Raises:
        OutputError: If the file cannot be written.
    """
    columns = [np.asarray(column).tolist() for column in table.values()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(table)
            writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))
    except OSError as error:
        raise OutputError(f"{path} must be writable; got {error.strerror}. Choose another place.") from error
    return path


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value
