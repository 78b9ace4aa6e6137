"""C8: g_23 declines before grokking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import mannwhitneyu

from ..dynamics.verdict import LEVEL, PASS_RATE
from ..errors import DataError
from ..theory.proportions import detector_table
from ..theory.roc import auc
from .context import Array, Context
from .declines import Matched, decline_rows, matched_runs, null_declines, some_items
from .grokking import DECLINE
from .pooled import author_says, null_p
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Outcome, Verdict


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    matched = matched_runs(runs, context)
    labels = matched.labels
    values = matched.values("decline of g_23")
    # A window without a g_23 says nothing of a decline.
    values = np.where(np.isfinite(values), values, 0.0)
    main = auc(values, labels)
    exchanged = _exchanged_p(values, labels)
    null, null_rate, own = _null(matched, context)
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
        author=_author(matched, context),
        raw=decline_rows(matched, context),
    )


def _null(matched: Matched, context: Context) -> tuple[Array, float, list[float]]:
    """(draws) area in null histories, the share of them that pass our test, and p of each grokking run's decline."""
    chosen_positive = some_items(matched.positive)
    chosen_negative = some_items(matched.negative)
    columns, labels, own = [], [], []
    for label, items in ((True, chosen_positive), (False, chosen_negative)):
        for run, x, i in items:
            try:
                drawn = null_declines(run, i, context)
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


def _author(matched: Matched, context: Context) -> AuthorRule:
    values = [float(np.exp(x.scores["decline of g_23"][i[0]])) for _, x, i in matched.positive]
    rates = []
    for run, _, i in some_items(matched.positive):
        try:
            rates.append(float(np.mean(null_declines(run, i, context) > np.log(DECLINE))))
        except DataError:
            continue
    return author_says([v > DECLINE for v in values], values, float(np.mean(rates)) if rates else float("nan"))


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
        _judge,
    ),
)
