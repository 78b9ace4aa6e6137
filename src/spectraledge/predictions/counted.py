"""Claims that hold in a run or do not: how many of them, against how often nulls make one hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from ..dynamics.timeline import metric_at
from ..dynamics.verdict import LEVEL, PASS_RATE
from ..errors import DataError
from ..theory.intervals import clopper_pearson
from .context import Array
from .runs import Run
from .verdict import Outcome

LOSSES = ("val_loss", "test_loss")


def counted(
    k: int, n: int, null_rate: float, p: float | None = None, *, beaten: bool = True
) -> tuple[Outcome, tuple[float, float], float]:
    """The word for a claim that holds in k of n runs, its Clopper-Pearson interval, and p.

    ``contradicted`` where the interval excludes that it holds in half of the runs; ``supported`` where it holds in
    half or more, and more often than in the null.

    Args:
        k: Runs in which it holds.
        n: Runs.
        null_rate: Share of null draws in which it holds in a run; NaN where there is no null.
        p: Of k; the binomial tail at ``null_rate`` where None.
        beaten: Whether every baseline does worse.

    >>> counted(8, 8, 0.02)[0], counted(0, 8, 0.02)[0], counted(8, 8, 0.6)[0]
    ('supported', 'contradicted', 'uninformative')
    """
    low, high = (float(x) for x in clopper_pearson(k, n))
    chance = float(binom.sf(k - 1, n, null_rate)) if p is None and np.isfinite(null_rate) else float(p or np.nan)
    if null_rate > PASS_RATE:
        return "uninformative", (low, high), chance
    if high < 0.5:
        return "contradicted", (low, high), chance
    if not np.isfinite(null_rate) or not n or 2 * k < n:
        return "not identifiable", (low, high), chance
    clear = chance <= LEVEL and low > null_rate and beaten
    return ("supported" if clear else "compatible"), (low, high), chance


def smallest_rate(rate: float, draws: int) -> float:
    """A share of draws that is not below what so many can tell: none of 99 is less than one in 100, not never."""
    return max(rate, 1.0 / (1.0 + draws)) if np.isfinite(rate) else rate


def held_out_loss(run: Run, steps: Array) -> Array:
    """(N) logarithm of the loss on data held out, in step with windows; NaN outside its evaluations.

    Raises:
        DataError: If none was logged four times.
    """
    name = next((x for x in LOSSES if len(run.recording.metrics.get(x, ((),))[0]) >= 4), None)
    if name is None:
        raise DataError(
            f"the loss on held-out data must be logged at four steps or more; {run.name} does not. Log val_loss or "
            "test_loss with monitor.log."
        )
    loss = metric_at(run.recording, name, steps)
    return np.where(loss > 0.0, np.log(np.where(loss > 0.0, loss, 1.0)), np.nan)


def is_scheduled(runs: Sequence[Run]) -> bool:
    """Whether the learning rate of any of them changes by more than 1 % after its first tenth."""
    for run in runs:
        recording = run.recording
        if not recording.lr_sum.shape[1]:
            continue
        rate = recording.lr_sum.mean(axis=1) / np.maximum(recording.n_steps, 1)
        rate = rate[len(rate) // 10 :]
        rate = rate[np.isfinite(rate)]
        if len(rate) and rate.max() > 1.01 * rate.min():
            return True
    return False
