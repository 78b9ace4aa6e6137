"""Declines of runs, looked at when those that grok do so: what C8 and C9 have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.timeline import metric_at
from ..errors import DataError
from ..theory.gap import g23
from ..theory.isotonic import monotone_test
from .context import Array, Context
from .grokking import DECLINE, decline
from .pooled import MOST_RUNS, each, some
from .runs import Run

FEWEST = 2  # windows before the one at the grok step


@dataclass(frozen=True)
class DeclineSeries:
    """Of one run, in step with its N windows.

    Attributes:
        steps: (N).
        scores: Name to (N) log of the largest value so far over the value there.
        grok: Step of the first accuracy of 0.95, of runs that can generalise; None where never.
        last: Last step that is known.
        crossed: Whether any accuracy of 0.95 was reached, which is all that the published count asks.
    """

    steps: Array
    scores: dict[str, Array]
    grok: float | None
    last: float
    crossed: bool

    def at(self, step: float) -> int:
        """Last window that ends at or before a step; -1 where there is none."""
        return int(np.searchsorted(self.steps, step, side="right")) - 1


@dataclass(frozen=True)
class Matched:
    """Runs looked at when the others grok: run, series, indices of the windows."""

    positive: list[tuple[Run, DeclineSeries, list[int]]]
    negative: list[tuple[Run, DeclineSeries, list[int]]]

    @property
    def all(self) -> list[tuple[Run, DeclineSeries, list[int]]]:
        return self.positive + self.negative

    @property
    def labels(self) -> np.ndarray:
        """(n) whether each of all groks."""
        return np.arange(len(self.all)) < len(self.positive)

    def values(self, name: str) -> Array:
        """(n) a score of all of them, the median where a run is looked at several times."""
        return np.array([float(np.median(x.scores[name][i])) for _, x, i in self.all])


def decline_series(run: Run, context: Context) -> DeclineSeries:
    if run.grok is None:
        raise DataError(
            f"a run must log its test accuracy for grokking to be known; {run.name} does not. Log test_accuracy with "
            "monitor.log."
        )
    spectra, at = context.spectra(run), context.whole(run)
    if len(at) <= FEWEST:
        raise DataError(f"a decline takes three whole windows; {run.name} has {len(at)}. Record more often.")
    steps, sigma = spectra.steps[at].astype(np.float64), spectra.singular_values[at]
    gap, trace = g23(sigma), spectra.trace[at]
    ends = np.minimum(np.searchsorted(run.recording.steps, steps), run.recording.n_updates - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {
            "decline of g_23": decline(gap),
            "g_23 / tr G": decline(gap / trace),
            "tr G": decline(trace),
            "norm of parameters": decline(np.sqrt(run.recording.theta_norm2[ends, 0])),
        }
    for name in ("train_loss", "grad_norm"):
        x = metric_at(run.recording, name, steps, how="last")
        if np.isfinite(x).sum() > len(x) // 2:
            scores[name] = decline(np.where(np.isfinite(x), np.maximum(x, 1e-12), np.nan))
    # A placebo generalises to nothing, whatever its accuracy on labels drawn at random.
    grok = None if run.arm == "placebo" else run.grok_step
    last = min(float(run.grok.first_095.last_step), float(steps[-1]))
    return DeclineSeries(steps, scores, grok, last, run.grok_step is not None)


def matched_runs(runs: Sequence[Run], context: Context) -> Matched:
    key = ("decline", *(id(run) for run in runs))
    return context.kept(key, lambda: _match(runs, context))


def _match(runs: Sequence[Run], context: Context) -> Matched:
    found = each(runs, lambda run: decline_series(run, context))
    positive = [(run, x, [x.at(x.grok)]) for run, x in found if x.grok is not None and x.at(x.grok) >= FEWEST]
    if not positive:
        raise DataError(
            "at least one run must grok (test accuracy of 0.95) after three windows or more; none does. Train for "
            "longer, or record more often."
        )
    times = [float(x.grok) for _, x, _ in positive if x.grok is not None]
    # A run without the event is looked at where the others have it, never at its own end.
    negative = [(run, x, windows_at(x, times)) for run, x in found if x.grok is None]
    negative = [item for item in negative if item[2]]
    if not negative:
        fired = sum(float(x.scores["decline of g_23"][i[0]]) > np.log(DECLINE) for _, x, i in positive)
        raise DataError(
            "runs that never grok must be there as well, recorded up to the steps at which the others do; without "
            "them "
            f"every detector is right: g_23 declines in {fired} of {len(positive)} runs that grok."
        )
    return Matched(positive, negative)


def windows_at(series: DeclineSeries, times: Sequence[float]) -> list[int]:
    return [i for i in (series.at(t) for t in times if t <= series.last) if i >= FEWEST]


def null_declines(run: Run, indices: Sequence[int], context: Context) -> Array:
    """(draws) decline of g_23 in norm-matched histories at given windows, their median."""
    drawn = g23(context.null_singular_values(run, "norm_matched"))
    at = np.unique([min(i, drawn.shape[1] - 1) for i in indices])
    before = np.maximum.accumulate(drawn, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(before[:, np.maximum(at - 1, 0)] / drawn[:, at])
    return np.asarray(np.median(np.clip(np.nan_to_num(ratio), -50.0, 50.0), axis=1))


def some_items(items: list[tuple[Run, DeclineSeries, list[int]]]) -> list[tuple[Run, DeclineSeries, list[int]]]:
    """At most as many as nulls are drawn for, those that other predictions draw as well."""
    chosen = {id(run) for run in some([run for run, _, _ in items], MOST_RUNS // 2)}
    return [item for item in items if id(item[0]) in chosen]


def decline_rows(matched: Matched, context: Context) -> list[dict[str, object]]:
    rng = context.rng(181)
    out: list[dict[str, object]] = []
    for (run, x, i), grokking in zip(matched.all, matched.labels):
        row: dict[str, object] = {"run": run.name, "arm": run.arm, "groks": bool(grokking)}
        row |= {
            name: float(np.exp(np.median(x.scores[name][i]))) for name in ("decline of g_23", "g_23 / tr G", "tr G")
        }
        if grokking:
            gap = g23(context.spectra(run).singular_values[context.whole(run)])[: i[0] + 1]
            peak = int(np.nanargmax(gap))
            thinned = gap[::-1][:: context.window][::-1]  # windows that share no row, the last at the grok step
            row["windows from peak to grok"] = len(gap) - 1 - peak
            if len(thinned) >= 3 and np.isfinite(thinned).all():
                test = monotone_test(np.log(np.maximum(thinned, 1e-300)), n_draws=199, rng=rng)
                row |= {"monotone": test.monotone, "author_monotone": test.author, "p_trend": test.p_trend}
        out.append(row)
    return out
