"""T3: k* does not exceed the number of curvatures that act within a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.horizon import Krylov, krylov
from ..errors import DataError
from ..theory.bootstrap import BootstrapInterval
from .context import Array, Context
from .pooled import author_says, each, ends, mean_known, null_p, over_runs, some
from .position import most_frequent
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Outcome, Verdict

LARGEST = 4  # arXiv:2603.28964's script for small language models; 5 for the larger one


@dataclass(frozen=True)
class _Bound:
    """Of one run: what was counted, the share of violations with each shift of the counts in time (0 first)."""

    found: Krylov
    shifted: Array
    testable: int


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    probed = each(runs, lambda run: _bound(run, context))
    author = _author(runs, context)
    # Thresholds 1/2, 1, 2 of eta h s W: the claim is judged at 1.
    testable = [(run, x) for run, x in probed if x.testable]
    raw = [
        {
            "run": run.name,
            "verdict": x.found.verdict,
            "source": x.found.source,
            "testable": x.testable,
            "violated": float(x.found.violated.value[1]),
            "rank_correlation": float(x.found.correlation.value[1]),
            "probes": len(x.found.steps),
        }
        for run, x in probed
    ]
    if not testable:
        raise DataError(
            "the bound must be able to fail; at every probe 1 + K_s reaches the largest k* of a window, or "
            "only curvatures above the threshold were measured. Use a smaller window or stride and more eigenvalues "
            "(--probe eigenvalues=10)."
        )
    lower_bounds = any(x.found.source == "curvature of modes" for _, x in testable)
    shares = [float(x.found.violated.value[1]) for _, x in testable]

    def alone() -> BootstrapInterval:
        v = testable[0][1].found.violated
        return BootstrapInterval(v.value[1], v.low[1], v.high[1], v.level, v.n_units)

    interval, method = over_runs(shares, alone, context.rng(31))
    value, low = float(interval.value), float(interval.low)
    null = _pooled_shifts([x.shifted for _, x in testable])
    holds = float(np.mean(null <= value)) if len(null) else float("nan")  # wrong counts do as well
    p = null_p(-value, -null) if len(null) else float("nan")
    correlation = mean_known([float(r) for r in _correlations(testable)])
    outcome: Outcome
    if low > 0.0:
        outcome = "not identifiable" if lower_bounds else "contradicted"
    elif value > 0.0:
        outcome = "not identifiable"
    elif not holds <= 0.2:
        outcome = "uninformative" if holds > 0.2 else "not identifiable"
    else:
        outcome = "supported" if p <= 0.05 else "compatible"
    total = sum(x.testable for _, x in testable)
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"k* exceeds 1 + K_s in {100 * value:.0f} % of {total} probes where it could, and in "
        f"{100 * float(np.mean(null)) if len(null) else float('nan'):.0f} % with counts from other times (p {p:.2g})"
        + ("; curvatures of probed modes only bound K_s from below." if lower_bounds else "."),
        statistic="share of testable probes with k* > 1 + K_s, K_s counting eta (h + omega) s W >= 1",
        value=value,
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(testable), "probes": total, "runs with probes": len(probed)},
        null="counts shifted in time",
        null_pass_rate=holds,
        p=p,
        baselines={"rank correlation of K_s and k*": correlation},
        author=author,
        raw=raw,
    )


def _pooled_shifts(per_run: Sequence[Array]) -> Array:
    """(n) mean over runs of the share of violations with shifted counts; as many as the shortest run has."""
    n = min(len(shares) for shares in per_run) - 1
    if n < 1:
        return np.empty(0)
    at = [np.linspace(1, len(shares) - 1, n).round().astype(int) for shares in per_run]
    return np.asarray(np.mean([shares[i] for shares, i in zip(per_run, at)], axis=0))


def _correlations(testable: Sequence[tuple[Run, _Bound]]) -> Array:
    return np.array([float(x.found.correlation.value[1]) for _, x in testable])


def _author(runs: Sequence[Run], context: Context) -> AuthorRule:
    def largest(run: Run) -> float:
        k = context.spectra(run).gap("plain").position[context.whole(run)]
        return float(most_frequent(k))

    found = each(runs, largest)
    values = [k for _, k in found]
    _, rate = context.largest_null_pass_rate(some([run for run, _ in found]), _small)
    return author_says([0 < k <= LARGEST for k in values], values, rate)


def _small(sigma: Array) -> bool:
    ratios = sigma[:, :-1] / np.maximum(sigma[:, 1:], np.finfo(np.float64).tiny)
    return most_frequent(np.argmax(ratios, axis=1) + 1) <= LARGEST


def _bound(run: Run, context: Context) -> _Bound:
    found = krylov(run.recording, n_boot=500, seed=context.seed)
    usable = found.testable[:, 1]
    counts, k = found.counts[:, 1], found.k_star
    n = len(k)
    shares = np.full(max(n, 1), np.nan)
    for shift in range(n):
        other = np.roll(counts, shift)
        at = usable & np.roll(usable, shift)
        if at.any():
            shares[shift] = float(np.mean(k[at] > 1.0 + other[at]))
    return _Bound(found, np.append(shares[:1], shares[1:][np.isfinite(shares[1:])]), int(usable.sum()))


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "T3",
        "k* is at most one more than the number of Hessian eigenvalues above 1 / (eta W).",
        "arXiv:2603.28964v1-v3 (draft Proposition 2.6); steps of a snapshot and the optimizer's metric derived",
        "runs with probes that measured eigenvalues of the Hessian, in the optimizer's metric for Adam",
        "spectraledge run modular/add --seed 42 --probe-every 100 --probe eigenvalues=10",
        "the most frequent k* is at most 4; no Hessian is measured",
        "k* = 2 against an assumed 2 to 3 outliers, k* = 3 against 3 to 4; confirmed",
        _judge,
    ),
)
