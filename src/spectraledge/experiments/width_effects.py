"""What a width study says: slopes on log width, with and without mu-P, and their difference.

Knows nothing about torch or training; takes the rows of ``read_widths``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..theory.width_slope import width_slope
from .paired import paired

# What is fitted, from which column, and whether in logarithms: the slope is then the exponent of a power law.
QUANTITIES = {
    "log R": ("ratio", True),
    "k*": ("k_star", False),
    "log A_rel": ("a_rel", True),
    "log P_eff": ("p_eff", True),
}


@dataclass(frozen=True)
class WidthEffect:
    """Slope of one quantity on log width.

    Attributes:
        quantity: ``log R``, ``k*``, ``log A_rel`` or ``log P_eff``.
        parametrisation: ``standard``, ``mup``, or ``standard - mup``.
        slope: Change for a factor e in width; the exponent of width for a logarithm.
        low: Lower end of its interval: Student's over runs, for the difference bootstrap-t over seeds.
        high: Upper end.
        p_value: Two-sided sign-flip p over seeds, of every seed's own slope.
        n: Runs; for the difference seeds with both slopes.
        n_widths: Distinct widths.
    """

    quantity: str
    parametrisation: str
    slope: float
    low: float
    high: float
    p_value: float
    n: int
    n_widths: int


def width_effects(
    rows: Iterable[Mapping[str, Any]],
    *,
    level: float = 0.95,
    n_boot: int = 2000,
    rng: np.random.Generator,
) -> list[WidthEffect]:
    """Whether the quantities of a width study change with width.

    An interval around 0 shows that a quantity keeps still only down to the interval's own width. At the base width
    both parametrisations share one run and so its error: their difference is taken seed by seed.

    Args:
        rows: Of ``read_widths``.
        level: Of the intervals.
        n_boot: Resamples of seeds.
        rng: Source of randomness.

    Returns:
        Quantity by quantity one effect a parametrisation with at least 3 runs at 2 widths, then the difference.
        Source: standard results (least squares, bootstrap over seeds, sign-flip test).

    Raises:
        DataError: If no parametrisation has enough runs.
    """
    listed = list(rows)
    found = []
    for quantity, (column, logarithm) in QUANTITIES.items():
        slopes: dict[str, dict[int, float]] = {}
        n_widths = {}
        for arm in sorted({row["parametrisation"] for row in listed}, reverse=True):
            runs = [
                (row["seed"], row["width"], np.log(row[column]) if logarithm else float(row[column]))
                for row in listed
                if row["parametrisation"] == arm and _usable(row[column], logarithm)
            ]
            # From the first on: a slope does not change, and that of a constant is 0 without rounding.
            widths, values = [run[1] for run in runs], [run[2] - runs[0][2] for run in runs]
            if len(runs) < 3 or len(set(widths)) < 2:
                continue
            line = width_slope(widths, values, level=level)
            slopes[arm], n_widths[arm] = _by_seed(runs), line.n_widths
            own = list(slopes[arm].values())
            p = paired(own, level=level, n_boot=n_boot, rng=rng).p_value
            found.append(WidthEffect(quantity, arm, line.slope, line.low, line.high, p, line.n, line.n_widths))
        if {"standard", "mup"} <= slopes.keys():
            shared = sorted(slopes["standard"].keys() & slopes["mup"].keys())
            differences = [slopes["standard"][seed] - slopes["mup"][seed] for seed in shared]
            d = paired(differences, level=level, n_boot=n_boot, rng=rng)
            least = min(n_widths.values())
            found.append(WidthEffect(quantity, "standard - mup", d.mean, d.low, d.high, d.p_value, d.n_seeds, least))
    if not found:
        raise DataError("a slope needs 3 runs at 2 widths of one parametrisation; got fewer. Let the study go on.")
    return found


def _usable(value: float | None, logarithm: bool) -> bool:
    return value is not None and (value > 0.0 or not logarithm)


def _by_seed(runs: list[tuple[int, int, float]]) -> dict[int, float]:
    """Least-squares slope on log width of every seed with two widths or more."""
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for seed, width, value in runs:
        points[seed].append((float(np.log(width)), value))
    found = {}
    for seed, pairs in points.items():
        x, y = np.array(pairs).T
        centred = x - x.mean()
        if centred.any():
            found[seed] = float(centred @ (y - y[0]) / (centred @ centred))
    return found
