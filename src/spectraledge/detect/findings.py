"""What an evaluation says, in sentences: the best cheap signal, who beats it, and what so few runs allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..theory.intervals import clopper_pearson
from .evaluation import Evaluation, SignalResult
from .matched import area, area_differences
from .signals import CLOCK, SIGNALS

FEWEST = 5
"""Runs of each kind below which no signal is said to beat another: 5 against 5 separate by chance in 1 of 252."""


@dataclass(frozen=True)
class Comparison:
    """The best baseline against every detector and published rule, on held-out runs.

    Attributes:
        before: Evaluation intervals before the event.
        baseline: The best; at the event itself, test loss and test accuracy are the event and do not compete.
        baseline_area: Its area.
        rival: The best detector or published rule.
        rival_area: Its area.
        difference: Rival less baseline, over pairs that both can compare.
        low: Lower end of its interval.
        high: Upper end.
        level: Of the interval: 95 % for all rivals at once.
        beating: All rivals whose interval lies above 0.
        enough: Whether there are 5 runs of each kind.
    """

    before: int
    baseline: str
    baseline_area: float
    rival: str
    rival_area: float
    difference: float
    low: float
    high: float
    level: float
    beating: tuple[str, ...]
    enough: bool


def compare(shares: Mapping[str, Mapping[int, np.ndarray]], before: int, n_boot: int, seed: int) -> Comparison | None:
    """The best baseline and its rivals.

    The baseline is the best on the very runs it is compared on, which is hard on the rivals.

    Args:
        shares: Signal to evaluation intervals before the event to (n, n) pairs, see ``matched.pair_shares``.
        before: Evaluation intervals before the event.
        n_boot: Resamples of runs.
        seed: Of the resamples.

    Returns:
        None where one of the two sides has no signal that can be compared.
    """
    areas = {name: area(by_lead[before]) for name, by_lead in shares.items()}
    areas = {name: value for name, value in areas.items() if np.isfinite(value)}
    base = [n for n in areas if SIGNALS[n].kind == "baseline" and (before > 0 or not SIGNALS[n].outcome)]
    rivals = [n for n in areas if SIGNALS[n].kind != "baseline"]
    if not base or not rivals:
        return None
    best, rival = (max(names, key=lambda name: areas[name]) for names in (base, rivals))
    level = 1.0 - 0.05 / len(rivals)
    stack = np.stack([shares[name][before] for name in rivals])
    found = area_differences(stack, shares[best][before], n_boot=n_boot, rng=np.random.default_rng(seed), level=level)
    known = np.isfinite(shares[best][before])
    enough = min(int(known.any(axis=1).sum()), int(known.any(axis=0).sum())) >= FEWEST
    k = rivals.index(rival)
    return Comparison(
        before,
        best,
        areas[best],
        rival,
        areas[rival],
        float(found.value[k]),
        float(found.low[k]),
        float(found.high[k]),
        level,
        tuple(name for name, low in zip(rivals, found.low) if enough and low > 0.0),
        enough,
    )


def sentences(evaluation: Evaluation) -> list[str]:
    """The findings for people, the most important first."""
    out = [evaluation.split.sentence, _allows(evaluation)]
    out += [_best(comparison, evaluation) for comparison in evaluation.comparisons]
    out += _trivial(evaluation)
    out += [_alarms(evaluation), _when(evaluation)]
    short = _short(evaluation)
    return [sentence for sentence in [*out, short] if sentence]


def _allows(evaluation: Evaluation) -> str:
    m, n = evaluation.n_positive, sum(evaluation.n_negative.values())
    low = 100.0 * float(clopper_pearson(m, m)[0])
    high = 100.0 * float(clopper_pearson(0, n)[1])
    groups = ", ".join(f"{count} {group}" for group, count in evaluation.n_negative.items())
    return (
        f"{m} judged runs with the event, {n} without ({groups}). With so few, an alarm in each of the {m} would "
        f"leave a sensitivity of {low:.0f} % or more, and none in the {n} a false-alarm rate of up to {high:.0f} %; "
        "to show 5 % takes 72 runs without the event."
    )


def _best(comparison: Comparison, evaluation: Evaluation) -> str:
    when = (
        "At the event (where test loss and accuracy are the event and do not compete)"
        if comparison.before == 0
        else f"{comparison.before} evaluation ({evaluation.interval:g} steps) before the event"
    )
    start = f"{when}, the best baseline is {comparison.baseline} with an AUC of {comparison.baseline_area:.2f}"
    rival = (
        f"{comparison.rival} with {comparison.rival_area:.2f}, a difference of {comparison.difference:+.2f} "
        f"({comparison.low:+.2f} to {comparison.high:+.2f}, {100 * comparison.level:.1f} % each)"
    )
    if not comparison.enough:
        return f"{start}; the best rival is {rival}; fewer than {FEWEST} runs of a kind decide nothing."
    if not comparison.beating:
        return f"{start}; no detector and no published rule beats it: the best is {rival}."
    return f"{start}; beaten by {', '.join(comparison.beating)}: the best is {rival}."


def _trivial(evaluation: Evaluation) -> list[str]:
    """Groups that one cheap signal separates at once."""
    out = []
    for group in evaluation.n_negative:
        names = [
            s.name
            for s in evaluation.signals
            if s.kind == "baseline" and not s.outcome and s.auc_by_group[group].value >= 0.99
        ]
        if names:
            out.append(f"Runs of the group '{group}' are told apart by {', '.join(names)} alone (AUC 0.99 or more).")
    return out


def _alarms(evaluation: Evaluation) -> str:
    """Detectors and published rules as they come."""
    parts = []
    for signal in evaluation.signals:
        row = next((row for row in signal.operating if row.label == "fixed"), None)
        if row is None or signal.kind == "baseline" or not row.table.hits + row.table.false_alarms:
            continue
        t = row.table
        parts.append(f"{signal.name} {t.hits} of {t.n_positive} and {t.false_alarms} of {t.n_negative}")
    if not parts:
        return ""
    return (
        "With the thresholds they come with, alarms before the event in runs that have it, and in runs that do not: "
        f"{'; '.join(parts)}."
    )


def _when(evaluation: Evaluation) -> str:
    timed = [s for s in evaluation.signals if s.name != CLOCK and not s.outcome and s.timing.n > 1]
    if not timed:
        return ""
    better = [s for s in timed if s.timing.low > 0.0 and s.timing.n >= FEWEST]
    clock = timed[0].timing.clock
    best = max(timed, key=lambda s: s.timing.gain)
    rival = f"a clock set on training runs of the same group (median error {clock:g} steps)"
    if not better:
        return (
            f"No signal says WHEN the event comes better than {rival}; the best is {best.name}, "
            f"{best.timing.gain:+.0f} steps closer on average ({best.timing.low:+.0f} to {best.timing.high:+.0f})."
        )
    named = ", ".join(f"{s.name} ({_gain(s)})" for s in sorted(better, key=lambda s: -s.timing.gain)[:5])
    return f"Closer to WHEN the event comes than {rival}: {named}."


def _gain(signal: SignalResult) -> str:
    t = signal.timing
    return f"{t.gain:+.0f} steps, {t.low:+.0f} to {t.high:+.0f}"


def _short(evaluation: Evaluation) -> str:
    """Pairs that could not be compared since the run without the event ended before."""
    m, n = evaluation.n_positive, sum(evaluation.n_negative.values())
    if evaluation.split.kind == "leave one seed out" or not evaluation.signals:
        return ""
    clock = [s.auc.pairs for s in evaluation.signals if s.name == CLOCK]
    open_pairs = m * n - clock[0] if clock else 0
    if not open_pairs:
        return ""
    return f"{open_pairs} of {m * n} pairs are left out: the run without the event ended before the other had it."
