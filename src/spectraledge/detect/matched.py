"""Runs compared at matched time: each pair is looked at up to the event of the one that has it, never further.

A run that goes on for longer has more chances to show anything; in such pairs no length helps, and a signal that
only knows the time (a clock) has an area of exactly 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..theory.bootstrap import BootstrapInterval, cluster_bootstrap
from ..theory.roc import auc
from .signals import SignalSpec
from .traces import Trace


def pair_shares(
    traces: Sequence[Trace | None],
    events: np.ndarray,
    ends: np.ndarray,
    spec: SignalSpec,
    sign: float,
    *,
    margin: float = 0.0,
    positive: np.ndarray | None = None,
    negative: np.ndarray | None = None,
) -> np.ndarray:
    """Whether the run with the event scores higher, pair by pair, both looked at up to ``event - margin``.

    Args:
        traces: (n) of one signal; None where a run does not have it.
        events: (n) steps; NaN for runs without.
        ends: (n) last step of each run.
        spec: Of the signal.
        sign: 1 where high values count, -1 where low ones do.
        margin: Steps before the event [steps].
        positive: Indices of runs with the event that count; all where None.
        negative: The same of those without.

    Returns:
        (n, n) rows runs with the event, columns runs without: 1 won, 0 lost, 0.5 tied; NaN for all other pairs, for
        runs without the signal, and where the run without the event was not recorded for so long.
    """
    n = len(traces)
    out = np.full((n, n), np.nan)
    rows = np.flatnonzero(np.isfinite(events)) if positive is None else positive
    columns = np.flatnonzero(~np.isfinite(events)) if negative is None else negative
    rows = np.array([i for i in rows.tolist() if traces[i] is not None], dtype=np.intp)
    if not len(rows):
        return out
    cuts = events[rows] - margin
    own = np.array([_score(traces[i], spec, sign, cuts[k : k + 1])[0] for k, i in enumerate(rows.tolist())])
    for j in columns.tolist():
        if traces[j] is None:
            continue
        other = _score(traces[j], spec, sign, cuts)
        share = np.where(own > other, 1.0, np.where(own == other, 0.5, 0.0))
        out[rows, j] = np.where(np.isnan(own) | np.isnan(other) | (ends[j] < cuts), np.nan, share)
    return out


def _score(trace: Trace | None, spec: SignalSpec, sign: float, cuts: np.ndarray) -> np.ndarray:
    if trace is None:
        return np.full(len(cuts), np.nan)
    return trace.largest(cuts, sign) if spec.reading == "largest" else sign * trace.present(cuts)


def area(shares: np.ndarray) -> float:
    """Mean over the pairs that can be compared; NaN for none."""
    return float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def areas(
    shares: np.ndarray, *, n_boot: int = 2000, rng: np.random.Generator, level: float = 0.95
) -> BootstrapInterval:
    """Areas of several sets of pairs of the same runs, with intervals from a bootstrap over runs.

    Args:
        shares: (k, n, n) from ``pair_shares``; the same runs are drawn for all k.
        n_boot: Resamples.
        rng: Of the resamples.
        level: Of the intervals.

    Returns:
        (k) each. Where all pairs are won, or lost, resamples say nothing and Newcombe's interval stands instead.
        Source: standard result; pairs matched in time derived.
    """
    used = np.isfinite(shares).any(axis=0)
    runs = np.flatnonzero(used.any(axis=0) | used.any(axis=1))
    if len(runs) < 2:
        nothing = np.full(len(shares), np.nan)
        return BootstrapInterval(nothing, nothing.copy(), nothing.copy(), level, float(len(runs)))
    known = np.isfinite(shares)
    weight, won = known.astype(np.float64), np.where(known, shares, 0.0)
    found = cluster_bootstrap(
        lambda drawn: _weighted(won, weight, np.bincount(drawn, minlength=shares.shape[1]).astype(np.float64)),
        runs.tolist(),
        n_boot=n_boot,
        rng=rng,
        level=level,
    )
    low, high = found.low.copy(), found.high.copy()
    for k in np.flatnonzero((found.value == 0.0) | (found.value == 1.0)):
        m, n = int(known[k].any(axis=1).sum()), int(known[k].any(axis=0).sum())
        scores = np.r_[np.full(m, found.value[k]), np.full(n, 1.0 - found.value[k])]
        exact = auc(scores, np.r_[np.ones(m, dtype=bool), np.zeros(n, dtype=bool)], level=level)
        low[k], high[k] = exact.low, exact.high
    return BootstrapInterval(found.value, low, high, level, found.n_units)


def area_differences(
    shares: np.ndarray, base: np.ndarray, *, n_boot: int = 2000, rng: np.random.Generator, level: float
) -> BootstrapInterval:
    """Area of each of k sets of pairs less that of another, over the pairs that both can compare.

    Args:
        shares: (k, n, n).
        base: (n, n).
        n_boot: Resamples of runs.
        rng: Of the resamples.
        level: Of each interval; divide the error by k for all of them at once.

    Returns:
        (k) each.
    """
    difference = shares - base
    known = np.isfinite(difference)
    runs = np.flatnonzero(known.any(axis=(0, 1)) | known.any(axis=(0, 2)))
    if len(runs) < 2:
        nothing = np.full(len(shares), np.nan)
        return BootstrapInterval(nothing, nothing.copy(), nothing.copy(), level, float(len(runs)))
    weight, gain = known.astype(np.float64), np.where(known, difference, 0.0)
    return cluster_bootstrap(
        lambda drawn: _weighted(gain, weight, np.bincount(drawn, minlength=base.shape[0]).astype(np.float64)),
        runs.tolist(),
        n_boot=n_boot,
        rng=rng,
        level=level,
    )


def _weighted(values: np.ndarray, weight: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(k) mean over pairs, each as often as both of its runs were drawn."""
    total, count = (((x @ times) @ times) for x in (values, weight))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)
