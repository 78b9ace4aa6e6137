"""One statement from several runs: what counts as a unit, and the word that interval, nulls and baselines allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..dynamics.verdict import FEWEST_BLOCKS, LEVEL, PASS_RATE
from ..errors import DataError, SettingError
from ..theory.bootstrap import BootstrapInterval, cluster_bootstrap
from .runs import Run
from .verdict import AuthorRule, Outcome

Array = NDArray[np.float64]
T = TypeVar("T")

N_BOOT = 1000
MOST_RUNS = 16
"""Runs for which nulls are drawn, where the statistic is one of every run and not a contrast of arms."""


def each(runs: Sequence[Run], make: Callable[[Run], T]) -> list[tuple[Run, T]]:
    """What ``make`` gives of every run that brings what it needs.

    Raises:
        DataError: If no run does, with the reason of the first.
    """
    found: list[tuple[Run, T]] = []
    reasons: list[str] = []
    for run in runs:
        try:
            found.append((run, make(run)))
        except (DataError, SettingError) as error:
            reasons.append(str(error))
    if not found:
        raise DataError(reasons[0] if reasons else "there must be a run to judge; got none. Name a run folder.")
    return found


def some(runs: Sequence[Run], most: int = MOST_RUNS) -> list[Run]:
    """At most so many runs, spread evenly over the list: nulls cost a second a run."""
    if len(runs) <= most:
        return list(runs)
    return [runs[i] for i in np.linspace(0, len(runs) - 1, most).round().astype(int)]


def over_runs(
    values: Sequence[float], alone: Callable[[], BootstrapInterval], rng: np.random.Generator
) -> tuple[BootstrapInterval, str]:
    """Mean over runs with its interval, and how that was made.

    Several runs: they are the units, with Student's t of as many less one, which is wide for three. A single run:
    its own interval over blocks of time.

    Args:
        values: One a run; those that are not finite are left out.
        alone: Interval of the only run.
        rng: Of the resamples.
    """
    known = [float(x) for x in values if np.isfinite(x)]
    if len(known) < 2:
        return alone(), "moving blocks of the windows of one run"
    found = cluster_bootstrap(np.mean, known, n_boot=N_BOOT, rng=rng, interval="t")
    return found, f"bootstrap over {len(known)} runs, Student's t"


def shifted(interval: BootstrapInterval, by: float) -> BootstrapInterval:
    """The same statistic less a number."""
    value, low, high = (np.asarray(x - by) for x in (interval.value, interval.low, interval.high))
    return BootstrapInterval(value, low, high, interval.level, interval.n_units)


def word(
    interval: BootstrapInterval, *, null_rate: float, p: float, beaten: bool = True, blocks: float = float("inf")
) -> Outcome:
    """The word for a claim that a statistic is positive.

    As ``dynamics.verdict.outcome``, with baselines: ``supported`` needs them beaten as well, and is ``compatible``
    where they are not.

    Args:
        interval: Of the statistic.
        null_rate: Share of null draws that pass the same test; NaN where there is no null.
        p: Of the observed value under the null; NaN where there is none.
        beaten: Whether every baseline does worse.
        blocks: Independent blocks behind the interval, over all runs: below 10 it contradicts nothing.

    >>> up = BootstrapInterval(0.2, 0.1, 0.3, 0.95, 12.0)
    >>> word(up, null_rate=0.05, p=0.01), word(up, null_rate=0.05, p=0.01, beaten=False)
    ('supported', 'compatible')
    """
    if null_rate > PASS_RATE:
        return "uninformative"
    if float(interval.high) < 0.0 and blocks >= FEWEST_BLOCKS:
        return "contradicted"
    if not float(interval.low) > 0.0 or not p >= 0.0:
        return "not identifiable"
    return "supported" if p <= LEVEL and beaten else "compatible"


def null_p(observed: float, draws: Array) -> float:
    """P(null >= observed), (1 + count) / (1 + n); draws without a number count against the finding."""
    if not np.isfinite(observed) or not len(draws):
        return float("nan")
    reached = int(np.sum(np.where(np.isfinite(draws), draws, np.inf) >= observed))
    return (1.0 + reached) / (1.0 + len(draws))


def mean_draws(per_run: Sequence[Array]) -> Array:
    """(D) null of a mean over runs: draw by draw, as many as the shortest list has."""
    n = min((len(draws) for draws in per_run), default=0)
    return np.mean([draws[:n] for draws in per_run], axis=0) if n else np.empty(0)


def author_says(passes: Sequence[bool], values: Sequence[float], null_pass_rate: float) -> AuthorRule:
    """A published check over runs: passes where it holds in most of them."""
    n, passed = len(passes), int(np.sum(passes)) if len(passes) else 0
    known = [x for x in values if np.isfinite(x)]
    return AuthorRule(
        "",
        outcome="not applicable" if n == 0 else ("passes" if 2 * passed > n else "fails"),
        passed=passed,
        n=n,
        value=float(np.median(known)) if known else float("nan"),
        null_pass_rate=null_pass_rate,
    )


def mean_known(values: Sequence[float]) -> float:
    """Mean of the numbers that are finite; NaN where there is none."""
    known = [float(x) for x in values if np.isfinite(x)]
    return float(np.mean(known)) if known else float("nan")


def ends(interval: BootstrapInterval) -> tuple[float, float]:
    """Its two ends as plain numbers."""
    return float(interval.low), float(interval.high)


def disjoint(n: int, window: int) -> NDArray[np.intp]:
    """Indices of windows that share no row, from the last one back."""
    return np.arange(n - 1, -1, -window)[::-1]
