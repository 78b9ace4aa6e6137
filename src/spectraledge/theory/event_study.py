"""Are collapses at k* followed by anything that collapses at other cuts, as large and as late, are not?

An observational comparison: events are not assigned, and matching removes only what is matched on. The
interventional one is ``experiments.intervene_study``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.bootstrap import cluster_bootstrap

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EventStudy:
    """Collapses at k* against matched collapses at other cuts.

    Attributes:
        effect: Mean over runs of the mean over events of (change after the event at k* - mean change after
            its matches), unit of the outcome; for a loss, positive says that learning suffered more.
        low: Lower end of the cluster-bootstrap interval over runs; NaN for one run.
        high: Its upper end.
        p_value: Two-sided permutation p: how often does a random cut in the place of k* do as much?
        n_events: Events at k* that have matches.
        n_unmatched: Events at k* without any.
        n_other: Events at other cuts that could be matched.
        n_runs: Runs with a matched event.
        imbalance: (2,) mean difference of log level and time between events and their matches, in standard
            deviations over all events; beyond about 0.25 the matches are no matches.
        differences: (n_events,) one difference for each event.
    """

    effect: float
    low: float
    high: float
    p_value: float
    n_events: int
    n_unmatched: int
    n_other: int
    n_runs: int
    imbalance: Array
    differences: Array


def event_study(
    events: ArrayLike,
    change: ArrayLike,
    k_star: ArrayLike,
    level: ArrayLike,
    time: ArrayLike,
    run: ArrayLike | None = None,
    *,
    n_matches: int = 3,
    caliper: float = 1.0,
    n_permutations: int = 999,
    level_of_interval: float = 0.95,
    rng: np.random.Generator,
) -> EventStudy:
    """Match every collapse at k* with collapses at other cuts of like level and time, and compare.

    Matches are the ``n_matches`` nearest events of any run within ``caliper`` in the two standardised
    coordinates log level and time (Euclidean), with replacement. An event at another cut in the very same
    window is no match: it has the same outcome by construction. The permutation renames the cuts, run by run:
    k*(t) becomes pi(k*(t)) with pi a random permutation of 1..K, events and outcome stay, and the whole
    comparison is made again.

    Args:
        events: (T, K) from ``collapse_events``, runs one after another.
        change: (T,) of ``progress_change``, made run by run with a pre-registered horizon.
        k_star: (T,) position of the gap *before* the window (k* of t - 1 or of the last disjoint window), 1..K;
            0 where unresolved. With k* of the same window the cut has by definition not collapsed.
        level: (T, K) singular value sigma_k at the cut [parameter], or the gap's null point: what events are
            matched on besides time.
        time: (T,) training time, any unit.
        run: (T,) labels of runs; one run where None.
        n_matches: Matches for each event.
        caliper: Largest distance of a match [standard deviations].
        n_permutations: Renamings.
        level_of_interval: Of the interval.
        rng: Source of randomness.

    Returns:
        The comparison; NaN where no event has a match. Source: honest test of the gap maximality principle of
        arXiv:2603.28964v1-v3; design derived.

    Raises:
        SettingError: If shapes do not match.
    """
    e, y = np.asarray(events, dtype=bool), np.asarray(change, dtype=np.float64)
    k, t = np.asarray(k_star, dtype=np.int64), np.asarray(time, dtype=np.float64)
    x = np.asarray(level, dtype=np.float64)
    labels = np.zeros(len(y), dtype=np.int64) if run is None else np.unique(np.asarray(run), return_inverse=True)[1]
    if e.ndim != 2 or x.shape != e.shape or any(s.shape != e.shape[:1] for s in (y, k, t, labels)):
        raise SettingError(
            f"events and level must be (T, K), the rest (T,); got {e.shape}, {x.shape}, {y.shape}, {k.shape}, "
            f"{t.shape} and {labels.shape}. Put the runs one after another."
        )
    if np.any((k < 0) | (k > e.shape[1])):
        raise SettingError(f"k_star must lie in 0..{e.shape[1]}; got {k.min()}..{k.max()}. Positions are 1-indexed.")
    with np.errstate(divide="ignore", invalid="ignore"):
        log_level = np.log(x)
    row, column = np.nonzero(e & np.isfinite(y)[:, None] & np.isfinite(log_level) & (k > 0)[:, None])
    features = np.stack([log_level[row, column], t[row]], axis=-1)
    if len(row) > 1:
        spread = features.std(axis=0)
        features = features / np.where(spread > 0.0, spread, 1.0)
    pool = _Pool(row, column + 1, features, y[row], labels[row], n_matches, caliper)
    matched = pool.compare(column + 1 == k[row])
    effect = matched.effect
    low = high = np.nan
    if matched.n_runs > 1:
        ends = cluster_bootstrap(
            lambda means: float(np.mean(means)),
            matched.run_means.tolist(),
            rng=rng,
            level=level_of_interval,
            interval="t",
        )
        low, high = float(ends.low), float(ends.high)
    p = np.nan
    if np.isfinite(effect):
        reached = tried = 0
        for _ in range(n_permutations):
            names = np.array([rng.permutation(e.shape[1]) + 1 for _ in range(labels.max() + 1)])
            other = pool.compare(column + 1 == names[labels[row], k[row] - 1]).effect
            # A renaming under which nothing matches says nothing about the size of effects.
            tried += bool(np.isfinite(other))
            reached += bool(abs(other) >= abs(effect) * (1.0 - 1e-12))
        p = (1.0 + reached) / (1.0 + tried)
    n_other = int(np.sum(column + 1 != k[row]))
    return EventStudy(
        effect,
        low,
        high,
        p,
        len(matched.differences),
        matched.n_unmatched,
        n_other,
        matched.n_runs,
        matched.imbalance,
        matched.differences,
    )


@dataclass(frozen=True)
class _Matched:
    differences: Array
    run_means: Array
    imbalance: Array
    n_unmatched: int

    @property
    def effect(self) -> float:
        return float(self.run_means.mean()) if len(self.run_means) else float("nan")

    @property
    def n_runs(self) -> int:
        return len(self.run_means)


class _Pool:
    """All events with their distances, which no renaming changes."""

    def __init__(
        self,
        row: NDArray[np.intp],
        cut: NDArray[np.intp],
        features: Array,
        change: Array,
        run: NDArray[np.intp],
        n_matches: int,
        caliper: float,
    ) -> None:
        self.features, self.change, self.run, self.n_matches = features, change, run, n_matches
        distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
        # Events of one window share their outcome: no comparison.
        distance[(row[:, None] == row[None]) | (distance > caliper)] = np.inf
        self.distance = distance

    def compare(self, special: NDArray[np.bool_]) -> _Matched:
        differences, runs, offsets, unmatched = [], [], [], 0
        others = np.flatnonzero(~special)
        for i in np.flatnonzero(special):
            d = self.distance[i, others]
            nearest = np.argsort(d, kind="stable")[: self.n_matches]
            chosen = others[nearest[np.isfinite(d[nearest])]]
            if len(chosen) == 0:
                unmatched += 1
                continue
            differences.append(self.change[i] - self.change[chosen].mean())
            offsets.append(self.features[i] - self.features[chosen].mean(axis=0))
            runs.append(self.run[i])
        x, label = np.array(differences), np.array(runs)
        means = np.array([x[label == r].mean() for r in np.unique(label)])
        imbalance = np.mean(offsets, axis=0) if offsets else np.full(2, np.nan)
        return _Matched(x, means, imbalance, unmatched)
