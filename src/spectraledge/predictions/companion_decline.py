"""C8 and C9: g_23 declines before grokking, and without weight decay there is neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact, mannwhitneyu

from ..dynamics.timeline import metric_at
from ..dynamics.verdict import LEVEL, PASS_RATE
from ..errors import DataError
from ..theory.gap import g23
from ..theory.intervals import clopper_pearson
from ..theory.isotonic import monotone_test
from ..theory.proportions import DetectorTable, detector_table
from ..theory.roc import auc
from .context import Array, Context
from .grokking import DECLINE, decline
from .pooled import MOST_RUNS, author_says, each, null_p, some
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Outcome, Verdict

_FEWEST = 2  # windows before the one at the grok step


@dataclass(frozen=True)
class _Series:
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
class _Matched:
    """Runs looked at when the others grok: run, series, indices of the windows."""

    positive: list[tuple[Run, _Series, list[int]]]
    negative: list[tuple[Run, _Series, list[int]]]

    @property
    def all(self) -> list[tuple[Run, _Series, list[int]]]:
        return self.positive + self.negative

    @property
    def labels(self) -> np.ndarray:
        """(n) whether each of all groks."""
        return np.arange(len(self.all)) < len(self.positive)

    def values(self, name: str) -> Array:
        """(n) a score of all of them, the median where a run is looked at several times."""
        return np.array([float(np.median(x.scores[name][i])) for _, x, i in self.all])


def _c8(runs: Sequence[Run], context: Context) -> Verdict:
    matched = _matched(runs, context)
    labels = matched.labels
    values = matched.values("decline of g_23")
    # A window without a g_23 says nothing of a decline.
    values = np.where(np.isfinite(values), values, 0.0)
    main = auc(values, labels)
    exchanged = _exchanged_p(values, labels)
    null, null_rate, own = _c8_null(matched, context)
    p = max(exchanged, null_p(main.value, null)) if len(null) else float("nan")
    table = detector_table(values > np.log(DECLINE), labels)
    areas = {
        name: _area(matched.values(name), labels)
        for name in matched.all[0][1].scores
        if name != "decline of g_23" and all(name in x.scores for _, x, _ in matched.all)
    }
    areas = {name: area for name, area in areas.items() if np.isfinite(area)}
    # g_23 over the trace is the claim in another unit: shown, and not competed with.
    rivals = {name: area for name, area in areas.items() if name != "g_23 / tr G"}
    best = max(rivals, key=lambda name: rivals[name]) if rivals else "none"
    n, m = len(matched.positive), len(matched.negative)
    outcome = _word(main.value, main.low, main.high, p, null_rate, areas.get(best, 0.5))
    beyond = sum(x <= LEVEL for x in own)
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"g_23 declines by more than {DECLINE} in {table.hits} of {n} runs before they grok and in "
        f"{table.false_alarms} of {m} "
        f"others by the same steps (area {main.value:.2f}, p {p:.2g}); {best} tells them with "
        f"{areas.get(best, 0.5):.2f}, "
        f"and in {beyond} of {len(own)} grokking runs the decline exceeds noise of the same norms.",
        statistic="area under the ROC of the decline of g_23 up to the grok step, matched in time",
        value=float(main.value),
        interval=(float(main.low), float(main.high)),
        interval_method="Newcombe, runs as units",
        n={"grokking runs": n, "other runs": m, "left out": len(runs) - n - m},
        null="norm_matched, run by run; grokking exchanged between runs",
        null_pass_rate=null_rate,
        p=p,
        baselines={**areas, "fixed clock": 0.5, "false alarms of the published rule": table.false_alarm_rate},
        author=_c8_author(matched, context),
        raw=_raw(matched, context),
    )


def _c9(runs: Sequence[Run], context: Context) -> Verdict:
    everything = each(runs, lambda run: _series(run, context))
    without = [(run, x) for run, x in everything if run.arm == "no-decay"]
    if not without:
        raise DataError(
            "runs without weight decay must be there, beside runs with it that grok; there are none. Train one with "
            "weight_decay=0."
        )
    author = _c9_author(without)
    matched = _matched(runs, context)
    positive = [item for item in matched.positive if item[0].arm == "decay"]
    # A run without decay counts as such whether it groks or not; the published count drops it where it does not.
    times = [float(x.grok) for _, x, _ in positive if x.grok is not None]
    looked = [(run, x, _indices(x, times)) for run, x in without]
    looked = [item for item in looked if item[2]]
    if not positive or not looked:
        raise DataError(
            "runs that grok with weight decay, and runs without it recorded up to the same steps, must be there; got "
            f"{len(positive)} and {len(looked)}. Train both for as long."
        )
    pair = _Matched(positive, looked)
    fired = np.nan_to_num(pair.values("decline of g_23")) > np.log(DECLINE)
    table = detector_table(fired, pair.labels)
    n, m, k = len(positive), len(looked), table.false_alarms
    low, high = table.false_alarm_interval
    p = _fewer(table)
    null_rate = _c9_null(pair, table.hits, context)
    groks = sum(x.grok is not None and x.grok <= max(times) for _, x, _ in looked)
    p_grok = float(fisher_exact([[n, 0], [groks, m - groks]], alternative="greater")[1])
    outcome: Outcome
    if low > 0.5:
        outcome = "contradicted"
    elif null_rate > PASS_RATE:
        outcome = "uninformative"
    elif high < 0.5 and p <= LEVEL and p_grok <= LEVEL:
        outcome = "supported"
    elif 2 * k < m and p <= LEVEL:
        outcome = "compatible"
    else:
        outcome = "not identifiable"
    placebos = [item for item in matched.negative if item[0].arm in ("placebo", "decay")]
    other = [
        float(np.nan_to_num(np.median(x.scores["decline of g_23"][i]))) > np.log(DECLINE) for _, x, i in placebos
    ]
    end = max(x.last for _, x, _ in looked)
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"by the steps at which runs with weight decay grok, g_23 has declined by more than {DECLINE} in {k} of {m} "
        "runs "
        f"without it ({100 * low:.0f} to {100 * high:.0f} %) and in {table.hits} of {n} with it; {groks} of the {m} "
        "had "
        f"grokked by then (p {p_grok:.2g}; they were trained to step {end:,.0f}).",
        statistic=f"share of runs without weight decay whose g_23 declines by more than {DECLINE} by the same steps",
        value=k / m,
        interval=(low, high),
        interval_method=f"Clopper-Pearson over {m} runs",
        n={"runs without decay": m, "grokking runs with decay": n},
        null="norm_matched, runs without decay",
        null_pass_rate=null_rate,
        p=p,
        baselines={
            "with decay, grokking": table.sensitivity,
            "with decay, never grokking": float(np.mean(other)) if other else float("nan"),
            "grokked without decay": groks / m,
        },
        author=author,
        raw=_raw(pair, context),
    )


def _fewer(table: DetectorTable) -> float:
    """One-sided p of the decline being rarer without decay."""
    cells = [
        [table.hits, table.n_positive - table.hits],
        [table.false_alarms, table.n_negative - table.false_alarms],
    ]
    return float(fisher_exact(cells, alternative="greater")[1])


def _series(run: Run, context: Context) -> _Series:
    if run.grok is None:
        raise DataError(
            f"a run must log its test accuracy for grokking to be known; {run.name} does not. Log test_accuracy with "
            "monitor.log."
        )
    spectra, at = context.spectra(run), context.whole(run)
    if len(at) <= _FEWEST:
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
    return _Series(steps, scores, grok, last, run.grok_step is not None)


def _matched(runs: Sequence[Run], context: Context) -> _Matched:
    key = ("decline", *(id(run) for run in runs))
    return context.kept(key, lambda: _match(runs, context))


def _match(runs: Sequence[Run], context: Context) -> _Matched:
    found = each(runs, lambda run: _series(run, context))
    positive = [(run, x, [x.at(x.grok)]) for run, x in found if x.grok is not None and x.at(x.grok) >= _FEWEST]
    if not positive:
        raise DataError(
            "at least one run must grok (test accuracy of 0.95) after three windows or more; none does. Train for "
            "longer, or record more often."
        )
    times = [float(x.grok) for _, x, _ in positive if x.grok is not None]
    # A run without the event is looked at where the others have it, never at its own end.
    negative = [(run, x, _indices(x, times)) for run, x in found if x.grok is None]
    negative = [item for item in negative if item[2]]
    if not negative:
        fired = sum(float(x.scores["decline of g_23"][i[0]]) > np.log(DECLINE) for _, x, i in positive)
        raise DataError(
            "runs that never grok must be there as well, recorded up to the steps at which the others do; without "
            "them "
            f"every detector is right: g_23 declines in {fired} of {len(positive)} runs that grok."
        )
    return _Matched(positive, negative)


def _indices(series: _Series, times: Sequence[float]) -> list[int]:
    return [i for i in (series.at(t) for t in times if t <= series.last) if i >= _FEWEST]


def _null_declines(run: Run, indices: Sequence[int], context: Context) -> Array:
    """(draws) decline of g_23 in norm-matched histories at given windows, their median."""
    drawn = g23(context.null_singular_values(run, "norm_matched"))
    at = np.unique([min(i, drawn.shape[1] - 1) for i in indices])
    before = np.maximum.accumulate(drawn, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(before[:, np.maximum(at - 1, 0)] / drawn[:, at])
    return np.asarray(np.median(np.clip(np.nan_to_num(ratio), -50.0, 50.0), axis=1))


def _c8_null(matched: _Matched, context: Context) -> tuple[Array, float, list[float]]:
    """(draws) area in null histories, the share of them that pass our test, and p of each grokking run's decline."""
    chosen_positive = some_items(matched.positive)
    chosen_negative = some_items(matched.negative)
    columns, labels, own = [], [], []
    for label, items in ((True, chosen_positive), (False, chosen_negative)):
        for run, x, i in items:
            try:
                drawn = _null_declines(run, i, context)
            except DataError:
                continue
            columns.append(drawn)
            labels.append(label)
            if label:
                own.append(null_p(float(np.median(x.scores["decline of g_23"][i])), drawn))
    if not any(labels) or all(labels):
        return np.empty(0), float("nan"), own
    flags = np.array(labels)
    found, passed = [], []
    for row in np.stack(columns, axis=1):
        area = auc(row, flags)
        found.append(area.value)
        passed.append(area.low > 0.5 and _exchanged_p(row, flags) <= LEVEL)
    return np.array(found), float(np.mean(passed)), own


def some_items(items: list[tuple[Run, _Series, list[int]]]) -> list[tuple[Run, _Series, list[int]]]:
    """At most as many as nulls are drawn for, those that other predictions draw as well."""
    chosen = {id(run) for run in some([run for run, _, _ in items], MOST_RUNS // 2)}
    return [item for item in items if id(item[0]) in chosen]


def _c9_null(pair: _Matched, hits: int, context: Context) -> float:
    """Share of histories of noise in place of runs without decay for which the test says "no decline"."""
    columns = []
    for run, _, i in some_items(pair.negative):
        try:
            columns.append(_null_declines(run, i, context) > np.log(DECLINE))
        except DataError:
            continue
    if not columns:
        return float("nan")
    fired, m, n = np.stack(columns, axis=1).sum(axis=1), len(columns), len(pair.positive)
    passes = [
        float(clopper_pearson(k, m)[1]) < 0.5
        and float(fisher_exact([[hits, n - hits], [k, m - k]], alternative="greater")[1]) <= LEVEL
        for k in fired.tolist()
    ]
    return float(np.mean(passes))


def _exchanged_p(values: Array, labels: np.ndarray) -> float:
    """One-sided p of the area with grokking exchanged between runs."""
    return float(mannwhitneyu(values[labels], values[~labels], alternative="greater").pvalue)


def _area(values: Array, labels: np.ndarray) -> float:
    return float(auc(values, labels).value) if np.isfinite(values).all() else float("nan")


def _word(value: float, low: float, high: float, p: float, null_rate: float, best: float) -> Outcome:
    if null_rate > PASS_RATE:
        return "uninformative"
    if high < 0.5:
        return "contradicted"
    if not low > 0.5 or not p >= 0.0:
        return "not identifiable"
    return "supported" if p <= LEVEL and value > best else "compatible"


def _c8_author(matched: _Matched, context: Context) -> AuthorRule:
    values = [float(np.exp(x.scores["decline of g_23"][i[0]])) for _, x, i in matched.positive]
    rates = []
    for run, _, i in some_items(matched.positive):
        try:
            rates.append(float(np.mean(_null_declines(run, i, context) > np.log(DECLINE))))
        except DataError:
            continue
    return author_says([v > DECLINE for v in values], values, float(np.mean(rates)) if rates else float("nan"))


def _c9_author(without: Sequence[tuple[Run, _Series]]) -> AuthorRule:
    """A run without a grok step cannot decline in the published count, so that any history passes there."""
    counts = []
    for _, x in without:
        i = x.at(x.grok) if x.grok is not None else -1
        counts.append(i >= _FEWEST and float(x.scores["decline of g_23"][i]) > np.log(DECLINE))
    never = [x.grok is None for _, x in without]
    return author_says([not c for c in counts], [float(np.mean(counts))], float(np.mean(never)))


def _raw(matched: _Matched, context: Context) -> list[dict[str, object]]:
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


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C8",
        "g_23 = sigma_2^2 - sigma_3^2 declines before grokking.",
        "arXiv:2603.28964v1-v3 (Table 7)",
        "runs that grok and runs that do not (labels shuffled, no weight decay, a task that never groks), with their "
        "test accuracy, recorded up to the same steps",
        "spectraledge run modular/add --seed 42; spectraledge run modular/add --seed 42 --set labels=shuffled",
        "largest g_23 before the grok step over that at it, above 1.5",
        "18 of 18 modular (8 to 111 times), 6 of 6 Dyck and SCAN; confirmed",
        _c8,
    ),
    Prediction(
        "C9",
        "Without weight decay there is no decline of g_23, and no grokking.",
        "arXiv:2603.28964v1-v3 (Table 7)",
        "runs with weight decay that grok, and runs without it recorded up to the same steps",
        "spectraledge run modular/add --seed 42; spectraledge run modular/add --seed 42 --set weight_decay=0",
        "largest g_23 before the grok step over that at it, not above 1.5; a run without a grok step has no decline",
        "1 of 18 modular runs declines, 0 of 6 Dyck and SCAN; confirmed",
        _c9,
    ),
)
