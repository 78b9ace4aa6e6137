"""C9: without weight decay g_23 does not decline, and nothing groks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import fisher_exact

from ..dynamics.verdict import LEVEL, PASS_RATE
from ..errors import DataError
from ..theory.intervals import clopper_pearson
from ..theory.proportions import DetectorTable, detector_table
from .context import Context
from .declines import (
    FEWEST,
    DeclineSeries,
    Matched,
    decline_rows,
    decline_series,
    matched_runs,
    null_declines,
    some_items,
    windows_at,
)
from .grokking import DECLINE
from .pooled import author_says, each
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Outcome, Verdict


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    everything = each(runs, lambda run: decline_series(run, context))
    without = [(run, x) for run, x in everything if run.arm == "no-decay"]
    if not without:
        raise DataError(
            "runs without weight decay must be there, beside runs with it that grok; there are none. Train one with "
            "weight_decay=0."
        )
    author = _author(without)
    matched = matched_runs(runs, context)
    positive = [item for item in matched.positive if item[0].arm == "decay"]
    # A run without decay counts as such whether it groks or not; the published count drops it where it does not.
    times = [float(x.grok) for _, x, _ in positive if x.grok is not None]
    looked = [(run, x, windows_at(x, times)) for run, x in without]
    looked = [item for item in looked if item[2]]
    if not positive or not looked:
        raise DataError(
            "runs that grok with weight decay, and runs without it recorded up to the same steps, must be there; got "
            f"{len(positive)} and {len(looked)}. Train both for as long."
        )
    pair = Matched(positive, looked)
    fired = np.nan_to_num(pair.values("decline of g_23")) > np.log(DECLINE)
    table = detector_table(fired, pair.labels)
    n, m, k = len(positive), len(looked), table.false_alarms
    low, high = table.false_alarm_interval
    p = _fewer(table)
    null_rate = _null_rate(pair, table.hits, context)
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
        raw=decline_rows(pair, context),
    )


def _fewer(table: DetectorTable) -> float:
    """One-sided p of the decline being rarer without decay."""
    cells = [
        [table.hits, table.n_positive - table.hits],
        [table.false_alarms, table.n_negative - table.false_alarms],
    ]
    return float(fisher_exact(cells, alternative="greater")[1])


def _null_rate(pair: Matched, hits: int, context: Context) -> float:
    """Share of histories of noise in place of runs without decay for which the test says "no decline"."""
    columns = []
    for run, _, i in some_items(pair.negative):
        try:
            columns.append(null_declines(run, i, context) > np.log(DECLINE))
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


def _author(without: Sequence[tuple[Run, DeclineSeries]]) -> AuthorRule:
    """A run without a grok step cannot decline in the published count, so that any history passes there."""
    counts = []
    for _, x in without:
        i = x.at(x.grok) if x.grok is not None else -1
        counts.append(i >= FEWEST and float(x.scores["decline of g_23"][i]) > np.log(DECLINE))
    never = [x.grok is None for _, x in without]
    return author_says([not c for c in counts], [float(np.mean(counts))], float(np.mean(never)))


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C9",
        "Without weight decay there is no decline of g_23, and no grokking.",
        "arXiv:2603.28964v1-v3 (Table 7)",
        "runs with weight decay that grok, and runs without it recorded up to the same steps",
        "spectraledge run modular/add --seed 42; spectraledge run modular/add --seed 42 --set weight_decay=0",
        "largest g_23 before the grok step over that at it, not above 1.5; a run without a grok step has no decline",
        "1 of 18 modular runs declines, 0 of 6 Dyck and SCAN; confirmed",
        _judge,
    ),
)
