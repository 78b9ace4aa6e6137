"""C10: the onset of the commutator defect comes before grokking. C11 is in ``lead_times``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import mannwhitneyu

from ..dynamics.verdict import LEVEL
from ..errors import DataError
from ..theory.proportions import DetectorTable, detector_table
from ..theory.roc import Auc, auc
from . import lead_times
from .context import Array, Context
from .defect_onset import Defect, cheap_signals, defect_of
from .pooled import author_says, each
from .registry_types import Prediction
from .runs import Run
from .verdict import Outcome, Verdict

_Item = tuple[Run, Defect, list[float]]
FEWEST = 2
"""Runs that decay and never grok, below which those without decay stand in, and nothing is supported."""


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(runs, defect_of)
    positive = [(run, x, [x.before]) for run, x in found if x.before is not None and x.at(x.before) >= 0]
    groks = [float(x.grok) for _, x in found if x.grok is not None]
    if not positive:
        raise DataError(
            "at least one run must grok after four evaluations of the defect; none does. Train for longer, or "
            "evaluate more often."
        )
    times = [float(x.before or 0.0) for _, x, _ in positive]
    fired = [x.fired(float(x.grok)) for _, x in found if x.grok is not None]
    leads = [x.grok - x.onset for _, x in found if x.grok is not None and x.onset is not None]
    # A negative is looked at where the others are about to grok, never at its own end.
    others = [
        (run, x, [t for t in times if t <= x.last and x.at(t) >= 0])
        for run, x in found
        if run.grok_step is None or run.arm == "placebo"
    ]
    others = [item for item in others if item[2]]
    if not others:
        raise DataError(
            "runs that never grok must be there as well, recorded up to the steps at which the others do: the onset "
            f"comes first in {sum(fired)} of {len(fired)} runs that grok, and any alarm that is early enough would."
        )
    alike = [item for item in others if item[0].arm != "no-decay"]
    strict = len(alike) >= FEWEST
    negative = alike if strict else others
    main, p = _area(positive, negative)
    everyone, _ = _area(positive, others)
    table = _alarms(found, negative, groks)
    without = _alarms(found, [item for item in others if item[0].arm == "no-decay"], groks)
    rivals = _rivals(positive, negative)
    best = max(rivals, key=lambda name: rivals[name]) if rivals else "none"
    outcome = _word(main, p, table, rivals.get(best, 0.5), strict)
    kind = "that decay and never grok" if strict else "that never grok, all without decay or too few with it"
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"the onset comes before grokking in {table.hits} of {table.n_positive} runs, and by the same steps in "
        f"{table.false_alarms} of {table.n_negative} {kind} and in {without.false_alarms} of {without.n_negative} "
        f"without decay; before half of the accuracy is there the defect tells the first two with an area of "
        f"{main.value:.2f} (p {p:.2g}), {best} with {rivals.get(best, float('nan')):.2f}.",
        statistic="area under the ROC of the largest defect before an accuracy of 0.5, matched in time and decay",
        value=main.value,
        interval=(main.low, main.high),
        interval_method="Newcombe, runs as units",
        n={
            "grokking runs": len(positive),
            "other runs": len(negative),
            "left out": len(runs) - len(positive) - len(negative),
        },
        null="grokking exchanged between runs",
        null_pass_rate=LEVEL,
        p=p,
        baselines={
            **rivals,
            "fixed clock": 0.5,
            "defect, runs without decay among the others": everyone.value,
            "false alarms of the published onset": table.false_alarm_rate,
        },
        # The runs that never grok are the null of the published rule: what it says where nothing is to be announced.
        author=author_says(fired, leads, table.false_alarm_rate),
        raw=[_row(run, x, times) for run, x in found],
    )


def _area(positive: Sequence[_Item], negative: Sequence[_Item]) -> tuple[Auc, float]:
    values = [_score(x, times) for _, x, times in (*positive, *negative)]
    labels = np.arange(len(values)) < len(positive)
    scores = np.array(values)
    p = float(mannwhitneyu(scores[labels], scores[~labels], alternative="greater").pvalue)
    return auc(scores, labels), p


def _score(x: Defect, times: Sequence[float]) -> float:
    return float(np.median([x.level[x.at(t)] for t in times]))


def _alarms(found: Sequence[tuple[Run, Defect]], negative: Sequence[_Item], groks: Sequence[float]) -> DetectorTable:
    """The published onset before the step of 0.9, and by most such steps that a negative lived to see."""
    hits = [x.fired(float(x.grok)) for _, x in found if x.grok is not None]
    alarms = []
    for _, x, _ in negative:
        seen = [t for t in groks if t <= x.last] or [x.last]
        alarms.append(float(np.mean([x.fired(t) for t in seen])) > 0.5)
    return detector_table([*hits, *alarms], [True] * len(hits) + [False] * len(alarms))


def _rivals(positive: Sequence[_Item], negative: Sequence[_Item]) -> dict[str, float]:
    """Areas of cheap signals at the same steps, in whichever direction is better."""
    items = [(cheap_signals(run, x), x, times) for run, x, times in (*positive, *negative)]
    labels = np.arange(len(items)) < len(positive)
    found = {}
    for name in items[0][0]:
        if not all(name in signals for signals, _, _ in items):
            continue
        values: Array = np.array([np.median([s[name][x.at(t)] for t in times]) for s, x, times in items])
        if np.isfinite(values).all():
            area = float(auc(values, labels).value)
            found[name] = max(area, 1.0 - area)
    return found


def _word(main: Auc, p: float, table: DetectorTable, best: float, strict: bool) -> Outcome:
    if table.sensitivity_interval[1] < 0.5 or main.high < 0.5:
        return "contradicted"
    if not main.low > 0.5:
        return "not identifiable"
    clear = p <= LEVEL and main.value > best and strict and table.p <= LEVEL
    return "supported" if clear else "compatible"


def _row(run: Run, x: Defect, times: Sequence[float]) -> dict[str, object]:
    seen = [x.before] if x.before is not None else [t for t in times if t <= x.last]
    seen = [t for t in seen if x.at(t) >= 0]
    return {
        "run": run.name,
        "arm": run.arm,
        "onset": x.onset,
        "grok": x.grok,
        "lead": x.grok - x.onset if x.grok is not None and x.onset is not None else None,
        "defect over onset": float(np.exp(_score(x, seen))) if seen else None,
    }


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C10",
        "The onset of the commutator defect comes before grokking.",
        "arXiv:2602.16967, arXiv:2602.18523 and companions, cited by arXiv:2603.28964",
        "runs that grok and runs with weight decay that never do (labels shuffled, a task that never groks), with "
        "commutator_defect and test accuracy, evaluated up to the same steps",
        "spectraledge run modular/add --seed 42; spectraledge run modular/add --seed 42 --set labels=shuffled",
        "first defect above 20 and above 10 times the median of the first three, before an accuracy of 0.9; taken "
        "from the exact limit of the quotient: rounding in float32 makes the published first values ten times larger",
        "12 of 12 modular, 15 of 15 Dyck, 11 of 11 SCAN, 42 of 42 multi-task; confirmed",
        _judge,
    ),
    *lead_times.PREDICTIONS,
)
