"""What announces grokking: traces of the chosen rule with its threshold, and all rules side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..detect.precursors.final import Final
from ..detect.precursors.frozen import Frozen
from ..detect.precursors.rules import SILENT
from ..errors import require
from .colors import BLUE, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GROUPS = {"candidate": BLUE, "baseline": VERMILION, "outcome": GREY}
_GROUP_WORDS = {"candidate": "candidates", "baseline": "baselines", "outcome": "reads held-out data"}


def plot_precursors(outcome: Final, frozen: Frozen) -> Figure:
    """Traces of the chosen rule by kind of run, then sensitivity, false alarms and lead of every rule.

    Args:
        outcome: Of ``judge_final``.
        frozen: The rules it was made with.
    """
    module: Any = require("matplotlib.figure", "plot")
    figure = module.Figure(figsize=(11, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    grokking, others = top.subplots(1, 2, sharey=True)
    _traces(grokking, outcome, frozen, positive=True)
    _traces(others, outcome, frozen, positive=False)
    rates, leads = bottom.subplots(1, 2, sharey=True)
    _forest(rates, leads, outcome)
    return figure


def _traces(ax: Axes, outcome: Final, frozen: Frozen, *, positive: bool) -> None:
    rule = frozen.rules[outcome.winner]
    traces = rule.traces(outcome.runs, frozen.judging)
    assert traces is not None  # it was judged
    for run, trace in zip(outcome.runs, traces):
        if (run.event is not None) != positive:
            continue
        steps = run.history.steps
        y = np.where(trace[: len(steps)] == SILENT, np.nan, trace[: len(steps)])
        x = steps - run.event if run.event is not None else steps
        ax.plot(x, y, color=BLUE if positive else VERMILION, alpha=0.35, lw=0.8)
    ax.axhline(rule.rule.threshold, color=GREY, ls="--", lw=1)
    if positive:
        ax.axvline(0, color=GREY, lw=1)
    ax.set_title("runs that grok" if positive else "runs that cannot", fontsize=10)
    if positive:
        ax.set_ylabel(f"{outcome.winner}\nand its threshold (dashed)", fontsize=8)
    ax.set_xlabel("steps from grokking (test accuracy 0.95)" if positive else "step")


def _forest(rates: Axes, leads: Axes, outcome: Final) -> None:
    judged = list(outcome.judged.values())[::-1]
    for y, one in enumerate(judged):
        color, table, lead = _GROUPS[one.group], one.verdict.table, one.verdict.leads
        for rate, ends, marker, shift in (
            (table.sensitivity, table.sensitivity_interval, "o", 0.12),
            (table.false_alarm_rate, table.false_alarm_interval, "x", -0.12),
        ):
            rates.plot([rate], [y + shift], marker, color=color, ms=5)
            rates.plot(ends, [y + shift] * 2, "-", color=color, lw=1.2)
        if np.isfinite(lead.median):
            leads.plot([lead.median], [y], "o", color=color, ms=5)
            leads.plot([lead.low, lead.high], [y, y], "-", color=color, lw=1.2)
    rates.set_yticks(range(len(judged)), [one.name for one in judged], fontsize=8)
    rates.set_xlim(-0.03, 1.03)
    rates.axvline(0.05, color=GREY, ls=":", lw=1)
    for group, words in _GROUP_WORDS.items():
        rates.plot([], [], "-", color=_GROUPS[group], label=words)
    rates.legend(loc="center", fontsize=8, frameon=False)
    rates.set_xlabel("share of runs found in time (o), of false alarms (x); 95 %")
    leads.axvline(0, color=GREY, lw=1)
    leads.set_xlabel("median lead [steps]; 95 % over seeds")
