"""T7: the gap opens at grokking, in every run that groks and in none that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from ..dynamics.timeline import metric_at
from ..dynamics.verdict import LEVEL
from ..errors import DataError
from ..theory.gap import g23
from ..theory.intervals import clopper_pearson
from ..theory.roc import auc
from .context import Array, Context
from .pooled import author_says, each, null_p, some
from .position import log_guarded_ratio
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Outcome, Verdict

DECLINE = 1.5  # arXiv:2603.28964's script

_PERMUTATIONS = 1999


@dataclass(frozen=True)
class _Series:
    """Of one run, in step with its N windows.

    Attributes:
        steps: (N) optimizer steps.
        scores: Name to (N); larger before or at grokking, where the claim holds.
        sigma: (N, W).
        grok: Step of the first accuracy of 0.95; None where never.
        last: Last step that is known.
    """

    steps: Array
    scores: dict[str, Array]
    sigma: Array
    grok: float | None
    last: float


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    # A placebo generalises to nothing, whatever its accuracy on labels drawn at random.
    found = [(run, x) for run, x in each(runs, lambda run: _series(run, context))]
    positive = [(run, x) for run, x in found if x.grok is not None and run.arm != "placebo" and _at(x, x.grok) >= 2]
    author, fired = _author(positive, context)
    negative = [(run, x) for run, x in found if x.grok is None or run.arm == "placebo"]
    if not positive:
        raise DataError(
            "at least one run must grok (test accuracy of 0.95) after three windows or more; none does. Train for "
            "longer, or record more often."
        )
    times = [float(x.grok) for _, x in positive if x.grok is not None]
    # A negative is looked at where the positives grokked, never at its own end.
    looked = [(run, x, [t for t in times if t <= x.last and _at(x, t) >= 2]) for run, x in negative]
    looked = [(run, x, at) for run, x, at in looked if at]
    if not looked:
        raise DataError(
            "runs that never grok must be there as well, recorded up to the steps at which the others do; without "
            f"them every detector is right: the gap rule fires in {sum(fired)} of {len(fired)} runs that grok."
        )
    labels = np.array([True] * len(positive) + [False] * len(looked))
    names = list(positive[0][1].scores)
    values = {
        name: np.array(
            [x.scores[name][_at(x, float(x.grok or 0.0))] for _, x in positive]
            + [float(np.median([x.scores[name][_at(x, t)] for t in at])) for _, x, at in looked]
        )
        for name in names
        if all(name in x.scores for _, x in positive) and all(name in x.scores for _, x, _ in looked)
    }
    areas = {name: _area(v, labels) for name, v in values.items() if np.isfinite(v).all()}
    main = auc(values["gap opening"], labels)
    p = _permutation_p(values["gap opening"], labels, context)
    # Labels exchanged: the test passes where p <= 0.05, at most that often.
    baselines = {name: max(a, 1.0 - a) for name, a in areas.items() if name not in ("gap opening", "decline of g_23")}
    rule = {name: areas[name] for name in ("decline of g_23",) if name in areas}
    # The test loss at the grok step is the event itself: shown, and not competed with.
    rivals = {name: area for name, area in baselines.items() if name != "test_loss"}
    best = max(rivals, key=lambda name: rivals[name]) if rivals else ""
    alarms = [
        bool(np.median([np.exp(x.scores["decline of g_23"][_at(x, t)]) for t in at]) > DECLINE) for _, x, at in looked
    ]
    low, high = (float(x) for x in clopper_pearson(sum(alarms), len(alarms)))
    outcome = _word(main.value, main.low, main.high, p, baselines.get(best, 0.0))
    smallest = 1.0 / _choices(len(positive), len(looked))
    few = f", and {len(positive)} + {len(looked)} runs cannot reach 0.05" if 2.0 * smallest > LEVEL else ""
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"at matched steps the gap opening tells {len(positive)} grokking from {len(looked)} other runs with an "
        f"area of {main.value:.2f} (p {p:.2g}{few}), the best cheap signal ({best or 'none'}) with "
        f"{baselines.get(best, float('nan')):.2f}, and the published decline fires in {sum(alarms)} of {len(alarms)} "
        f"of the others ({100 * low:.0f} to {100 * high:.0f} %).",
        statistic="area under the ROC of the opening of log R (guarded k*) at the grok step, matched in time",
        value=float(main.value),
        interval=(float(main.low), float(main.high)),
        interval_method="Newcombe, runs as units",
        n={
            "grokking runs": len(positive),
            "other runs": len(looked),
            "left out": len(runs) - len(positive) - len(looked),
        },
        null="grokking exchanged between runs",
        null_pass_rate=LEVEL,
        p=p,
        baselines={**rule, **baselines, "fixed clock": 0.5},
        author=author,
        raw=[
            {
                "run": run.name,
                "arm": run.arm,
                "groks": bool(label),
                **{name: float(v[i]) for name, v in values.items()},
                **_weights(run),
            }
            for i, (run, label) in enumerate(zip([r for r, _ in positive] + [r for r, _, _ in looked], labels))
        ],
    )


def decline(g: Array) -> Array:
    """(N) log of the largest value before a window over the value in it; the published rule is 1.5 of its ratio."""
    before = np.fmax.accumulate(g)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.full(len(g), np.nan)
        out[1:] = np.log(np.maximum(before[:-1], 0.0)) - np.log(g[1:])
    return np.where(np.isnan(out), np.nan, np.clip(out, -50.0, 50.0))


def _series(run: Run, context: Context) -> _Series:
    spectra = context.spectra(run)
    at = context.whole(run)
    if run.grok is None:
        raise DataError(
            f"a run must log its test accuracy for grokking to be known; {run.name} does not. Log test_accuracy with "
            "monitor.log."
        )
    if len(at) < 3:
        raise DataError(f"a gap opening takes three whole windows; {run.name} has {len(at)}. Record more often.")
    sigma, steps = spectra.singular_values[at], spectra.steps[at].astype(np.float64)
    floor = spectra.floor[at][:, None]
    log_ratio = log_guarded_ratio(np.where(sigma > floor, sigma, np.nan))
    trace = spectra.trace[at]
    recording = run.recording
    ends = np.searchsorted(recording.steps, steps)
    theta = np.sqrt(recording.theta_norm2[np.minimum(ends, recording.n_updates - 1), 0])
    gap = g23(sigma)
    scores = {
        "gap opening": _rise(log_ratio, context.window),
        "decline of g_23": decline(gap),
        "g_23 / tr G": -_rise(np.log(np.maximum(gap / trace, 1e-300)), context.window),
        "tr G": -_rise(np.log(trace), context.window),
        "norm of parameters": -_rise(np.log(np.maximum(theta, 1e-300)), context.window),
    }
    for name in ("train_loss", "test_loss", "grad_norm"):
        values = metric_at(recording, name, steps, how="last")
        if np.isfinite(values).any():
            scores[name] = values
    last = float(run.grok.first_095.last_step)
    return _Series(steps, scores, sigma, run.grok_step, min(last, float(steps[-1])))


def _rise(x: Array, window: int) -> Array:
    """(N) mean of the last W windows less the median of all before them; of the first ones, less the first."""
    out = np.full(len(x), np.nan)
    for i in range(len(x)):
        recent = x[max(0, i - window + 1) : i + 1]
        before = x[: max(1, i - window + 1)]
        if np.isfinite(recent).any() and np.isfinite(before).any():
            out[i] = np.nanmean(recent) - np.nanmedian(before)
    return out


def _at(series: _Series, step: float) -> int:
    """Last window that ends at or before a step; -1 where there is none."""
    return int(np.searchsorted(series.steps, step, side="right")) - 1


def _author(positive: Sequence[tuple[Run, _Series]], context: Context) -> tuple[AuthorRule, list[bool]]:
    values = [float(np.exp(x.scores["decline of g_23"][_at(x, float(x.grok or 0.0))])) for _, x in positive]
    fired = [v > DECLINE for v in values]
    rates: list[Array] = []
    for run, x in [item for item in positive if item[0] in some([r for r, _ in positive])]:
        i = _at(x, float(x.grok or 0.0))
        try:
            drawn = g23(context.null_singular_values(run, "norm_matched"))
        except DataError:
            continue
        i = min(i, drawn.shape[1] - 1)
        if i >= 1:
            rates.append((drawn[:, :i].max(axis=1) > DECLINE * drawn[:, i]).astype(np.float64))
    rate = float(np.mean([r.mean() for r in rates])) if rates else float("nan")
    return author_says(fired, values, rate), fired


def _area(values: Array, labels: Array) -> float:
    return float(auc(values, labels).value)


def _permutation_p(values: Array, labels: Array, context: Context) -> float:
    """One-sided p of the area under exchanged labels; (1 + count) / (1 + n)."""
    rng = context.rng(71)
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
    # Mid-ranks, so that ties count one half in draws as in the data.
    for v in np.unique(values):
        same = values == v
        ranks[same] = ranks[same].mean()
    m = int(labels.sum())
    order = np.argsort(rng.random((_PERMUTATIONS, len(values))), axis=1)[:, :m]
    return null_p(float(ranks[labels].sum()), ranks[order].sum(axis=1))


def _choices(m: int, n: int) -> float:
    return float(comb(m + n, m))


def _word(value: float, low: float, high: float, p: float, best: float) -> Outcome:
    if high < 0.5:
        return "contradicted"
    if not low > 0.5:
        return "not identifiable"
    return "supported" if p <= LEVEL and value > best else "compatible"


def _weights(run: Run) -> dict[str, float]:
    """sigma_1 / sigma_2 of query matrices at the grok step and at the end: what the published table holds."""
    weights = run.recording.weights
    names = [name for name in weights.names if name.endswith((".q", "q_proj.weight", "q_proj", "W_Q"))]
    if not names or weights.singular_values.shape[-1] < 2 or not len(weights.steps):
        return {}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nanmedian(np.stack([weights.of(name)[:, 0] / weights.of(name)[:, 1] for name in names]), axis=0)
    out = {"W_Q ratio at the end": float(ratio[-1])}
    if run.grok_step is not None:
        at = int(np.searchsorted(weights.steps, run.grok_step, side="right")) - 1
        out["W_Q ratio at grokking"] = float(ratio[max(at, 0)])
    return out


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "T7",
        "The gap opens at grokking: in every run that groks, and in none that does not.",
        "arXiv:2603.28964v1-v3 (Tables 6 and 7)",
        "runs that grok and runs that do not (labels shuffled, no weight decay, a task that never groks), with their "
        "test accuracy, recorded up to the same steps",
        "spectraledge run modular/add --seed 42; spectraledge run modular/add --seed 42 --set labels=shuffled; "
        "spectraledge run modular/add --seed 42 --set weight_decay=0",
        "largest g_23 before the grok step over that at it, above 1.5; runs without a grok step cannot be counted",
        "24 of 24 with weight decay, 0 or 1 of 24 without; confirmed",
        _judge,
    ),
)
