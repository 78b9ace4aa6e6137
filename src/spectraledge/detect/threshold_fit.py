"""Where the table of thresholds comes from: run-level maxima of every statistic over the nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .charts import sustained_maximum
from .detectors import DETECTORS, SUSTAIN
from .judge import PAST, Judge
from .null_runs import NULLS, null_bands

_AT_ONCE = 50

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
    """Largest sustained statistic of runs of each length, ``horizon`` judged windows and the burn-in before them.

    Every horizon has runs of its own: phases drawn anew make slow swings whose length is that of the run, so that the
    head of a long run says too little about a short one (gap collapse on F: a threshold that 3.5 % of heads pass is
    passed by 7.2 % of whole runs of 200 updates).

    Returns:
        (n_runs, detectors, horizons); a detector with a threshold h raises an alarm in a run where this exceeds h.
    """
    burn_in = (PAST + 2) * window
    never = dict.fromkeys(DETECTORS, float("inf"))
    out = np.empty((n_runs, len(DETECTORS), len(horizons)))
    for i, horizon in enumerate(horizons):
        for start in range(0, n_runs, _AT_ONCE):
            size = min(_AT_ONCE, n_runs - start)
            bands = null_bands(null, size, rng, n_updates=burn_in + horizon, lags=2 * window - 1)
            for run, band in enumerate(bands, start):
                judged = Judge(window, thresholds=never).extend(band)
                out[run, :, i] = [sustained_maximum(j.statistic, SUSTAIN) for j in judged]
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
