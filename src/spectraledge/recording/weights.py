"""Singular values of weight matrices: a baseline, kept apart from the spectra of updates.

They say how large the weights' own directions are, not how the weights move; the published scripts use both under
one symbol.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .line import Record


@dataclass(frozen=True, eq=False)
class WeightSpectra:
    """Leading singular values of weight matrices over a run. T measurements, M matrices, K values.

    Attributes:
        steps: (T) optimizer steps.
        names: (M) matrices; "layer.q", "layer.k" and "layer.v" are the thirds of a fused projection.
        singular_values: (T, M, K) descending [parameter]; NaN where a matrix has fewer, or was not there.
    """

    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    names: list[str] = field(default_factory=list)
    singular_values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))

    def of(self, name: str) -> np.ndarray:
        """(T, K) singular values of one matrix."""
        return self.singular_values[:, self.names.index(name)]


def sound_weights(record: Record) -> bool:
    """Whether a record of kind "weights" holds one row of values for each of its names."""
    names, values = record.get("names"), record.get("singular_values")
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(values, np.ndarray)
        and values.ndim == 2
        and len(values) == len(names)
    )


def build_weights(records: list[Record]) -> WeightSpectra:
    """All measurements as one table."""
    if not records:
        return WeightSpectra()
    names: list[str] = list(dict.fromkeys(name for record in records for name in record["names"]))
    width = max(record["singular_values"].shape[1] for record in records)
    table = np.full((len(records), len(names), width), np.nan)
    for row, record in zip(table, records):
        values = record["singular_values"]
        row[[names.index(name) for name in record["names"]], : values.shape[1]] = values
    return WeightSpectra(np.array([record["step"] for record in records], dtype=np.int64), names, table)


def weights_records(spectra: WeightSpectra) -> list[dict[str, Any]]:
    """The fields of the records that say the same."""
    return [
        {"step": int(step), "names": list(spectra.names), "singular_values": values}
        for step, values in zip(spectra.steps, spectra.singular_values)
    ]
