"""What a ticket study says: masks by |v_1| against masks by weight and at random, paired over seeds.

Knows nothing about torch or training; takes the rows of ``read_tickets``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from .paired import paired, read_curve

# The dense run last: how much a mask costs at all.
COMPARISONS = (
    ("v1", "magnitude"),
    ("v1", "random"),
    ("v1", "magnitude_as_v1"),
    ("magnitude", "random_magnitude"),
    ("v1", "dense"),
    ("magnitude", "dense"),
    ("random", "dense"),
)


@dataclass(frozen=True)
class TicketContrast:
    """One comparison of two kinds of tickets at one fraction.

    Attributes:
        fraction: Share of the parameters kept.
        comparison: ``v1 - magnitude`` and so on.
        mean: Mean over seeds of the difference, in the outcome's unit; for a loss, negative says that the first
            is better.
        low: Lower end of the bootstrap-t interval over seeds.
        high: Upper end.
        p_value: Two-sided sign-flip p over seeds.
        overlap: Mean share of the second's entries that the v_1 ticket keeps too; NaN against the dense run.
        n_seeds: Independent units.
    """

    fraction: float
    comparison: str
    mean: float
    low: float
    high: float
    p_value: float
    overlap: float
    n_seeds: int


def ticket_effects(
    rows: Iterable[Mapping[str, Any]],
    *,
    outcome: str = "test_loss",
    reading: str = "horizon",
    level: float = 0.95,
    n_boot: int = 2000,
    rng: np.random.Generator,
) -> list[TicketContrast]:
    """Differences between tickets of equal size, for every fraction of a study.

    Args:
        rows: Of ``read_tickets``.
        outcome: ``test_loss``, ``train_loss``, ``test_accuracy`` or ``train_accuracy``.
        reading: ``horizon``, the last evaluation, or ``area``, the mean of the curve (lower for a loss that falls
            earlier).
        level: Of the intervals.
        n_boot: Resamples of seeds.
        rng: Source of randomness.

    Returns:
        Contrasts in the order fraction by fraction, those of which no seed has both sides left out. With n seeds no
        p is below 2 / 2^n, and the p-values of several fractions and comparisons are several tests. Source: standard
        results (bootstrap over seeds, sign-flip test).

    Raises:
        SettingError: On an unknown outcome or reading.
        DataError: If no seed has two tickets to compare.
    """
    values: dict[tuple[float, str], dict[int, float]] = defaultdict(dict)
    overlaps: dict[tuple[float, str], list[float]] = defaultdict(list)
    for row in rows:
        key = (float(row["fraction"]), row["kind"])
        values[key][row["seed"]] = read_curve(row, outcome, reading)
        overlaps[key].append(np.nan if row["overlap"] is None else row["overlap"])
    found = []
    for fraction in sorted({f for f, kind in values if kind != "dense"}):
        for first, second in COMPARISONS:
            other = (1.0 if second == "dense" else fraction, second)
            # By .get: a defaultdict would gain a key.
            a, b = values.get((fraction, first), {}), values.get(other, {})
            shared = sorted(a.keys() & b.keys())
            if not shared:
                continue
            effect = paired([a[seed] - b[seed] for seed in shared], level=level, n_boot=n_boot, rng=rng)
            overlap = float(np.mean(overlaps[other]))
            found.append(
                TicketContrast(
                    fraction,
                    f"{first} - {second}",
                    effect.mean,
                    effect.low,
                    effect.high,
                    effect.p_value,
                    overlap,
                    effect.n_seeds,
                )
            )
    if not found:
        raise DataError("a ticket study must hold two kinds of tickets of one seed; got none. Let it finish a seed.")
    return found
