"""Where the table of thresholds comes from: run-level maxima of every statistic over the nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .charts import sustained_maximum
from .detectors import DETECTORS, SUSTAIN
from .judge import PAST, Judge
from .null_runs import NULLS, null_bands

EMERGENCE_ONLY = ("R",)
"""Not a null: a descent has gaps that open and close. Only emergence has to stay silent on it."""


def concerns(null: str, detector: str) -> bool:
    """Whether a detector has to keep its level on a null.

    >>> concerns("R", "gap-opening"), concerns("R", "mode2-emergence")
    (False, True)
    """
    return null not in EMERGENCE_ONLY or DETECTORS[detector].kind == "mode emergence"


def run_maxima(
    null: str, n_runs: int, rng: np.random.Generator, horizons: Sequence[int], *, window: int = 10
) -> np.ndarray:
    """Largest sustained statistic within the first ``horizon`` judged windows of each run.

    Returns:
        (n_runs, detectors, horizons); a detector with a threshold h raises an alarm in a run where this exceeds h.
    """
    burn_in = (PAST + 3) * window
    never = dict.fromkeys(DETECTORS, float("inf"))
    out = np.empty((n_runs, len(DETECTORS), len(horizons)))
    run = 0
    while run < n_runs:
        bands = null_bands(null, min(50, n_runs - run), rng, n_updates=burn_in + max(horizons), lags=2 * window - 1)
        for band in bands:
            for k, judged in enumerate(Judge(window, thresholds=never).extend(band)):
                out[run, k] = [sustained_maximum(judged.statistic[: burn_in + h], SUSTAIN) for h in horizons]
            run += 1
    return out


def fit_table(
    maxima: Mapping[str, np.ndarray], levels: Sequence[float], *, reserve: float = 0.5, least: float = 4.0
) -> dict[str, list[list[float]]]:
    """Thresholds by detector, level and horizon from the maxima of every null.

    Args:
        maxima: Null to ``run_maxima``.
        levels: Run-level shares of false alarms.
        reserve: Share of the level that is used up on the worst null.
        least: Smallest threshold, in scales of the feature: less is no event.

    Returns:
        Detector to (levels, horizons), rounded up to 0.1 and never falling with the horizon.
    """
    table = {}
    for k, name in enumerate(DETECTORS):
        rows = []
        for level in levels:
            worst = np.max(
                [
                    np.quantile(m[:, k], 1.0 - reserve * level, axis=0, method="higher")
                    for null, m in maxima.items()
                    if concerns(null, name)
                ],
                axis=0,
            )
            rows.append((np.ceil(10.0 * np.maximum.accumulate(np.maximum(worst, least))) / 10.0).tolist())
        table[name] = rows
    return table


def all_maxima(n_runs: int, seed: int, horizons: Sequence[int]) -> dict[str, np.ndarray]:
    """``run_maxima`` of every null, each from its own stream of random numbers."""
    seeds = np.random.SeedSequence(seed).spawn(len(NULLS))
    return {null: run_maxima(null, n_runs, np.random.default_rng(s), horizons) for null, s in zip(NULLS, seeds)}
