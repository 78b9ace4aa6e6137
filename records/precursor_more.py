"""Further figures of docs/does-the-edge-predict-grokking.md, from the recordings.

python records/precursor_more.py records/DATE_NAME
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from spectraledge.detect.precursors.protocol import judge
from spectraledge.detect.precursors.rules import first_alarms
from spectraledge.detect.precursors.runs import load_runs
from spectraledge.detect.precursors.shipped import shipped_rules
from spectraledge.detect.precursors.statistics import STATISTICS

RULES = shipped_rules()
RULE = RULES.rules[RULES.winner]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def levels(runs: list) -> None:
    """Straightness of the head at the event, or over the last 1,000 steps, and at its lowest before."""
    for cell in sorted({run.cell for run in runs}):
        at, lowest, dimensions = [], [], []
        for run in (run for run in runs if run.cell == cell):
            s = STATISTICS["straightness, updates, head"].compute(run.history)
            last = len(s) - 1 if run.event is None else int(np.searchsorted(run.history.steps, run.event))
            at.append(np.nanmedian(s[-40:]) if run.event is None else s[last])
            lowest.append(np.nanmin(s[: last + 1]))
            effective = STATISTICS["log10 P_eff, head"].compute(run.history)
            dimensions.append(10 ** np.nanmedian(effective[RULES.judging.burn_in :]))
        grokked = any(run.event is not None for run in runs if run.cell == cell)
        where = "at the event" if grokked else "at the end"
        say(
            f"{cell}: straightness {where} {np.median(at):.2f} ({min(at):.2f} to {max(at):.2f}), lowest "
            f"{min(lowest):.2f} to {max(lowest):.2f}, P_eff {min(dimensions):.0f} to {max(dimensions):.0f}"
        )


def pairs(outcome: dict) -> None:
    """Leads of the rule and of the norm of parameters, run by run, without x2_y2."""
    events = {run["name"]: run["event"] for run in outcome["runs"]}
    sharp = [name for name, event in events.items() if event is not None and not name.startswith("x2_y2")]
    ours, norm = (
        np.array([events[name] - outcome["alarms"][rule][name] for name in sharp])
        for rule in (outcome["winner"], "norm of parameters (fall)")
    )
    say(
        f"without x2_y2: {len(sharp)} runs, median leads {np.median(ours):.0f} and {np.median(norm):.0f} steps, "
        f"the rule earlier in {np.sum(ours > norm)}"
    )
    alarms = outcome["alarms"][outcome["winner"]]
    leads = np.array([event - alarms[name] for name, event in events.items() if event is not None])
    share = leads / np.array([event for event in events.values() if event is not None])
    say(f"leads {leads.min():.0f} to {leads.max():.0f} steps, {share.min():.2f} to {share.max():.2f} of the way")
    false = {name: step for name, step in alarms.items() if events[name] is None and step is not None}
    say(f"false alarms: {false}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    record = parser.parse_args().record
    final, _ = load_runs(record / "final", horizon=RULES.judging.horizon)
    levels(final)
    elsewhere, _ = load_runs(record / "elsewhere", horizon=0.0)
    levels([run for run in elsewhere if run.cell.startswith("dyck")])
    pairs(json.loads((record / "outcome.json").read_text()))
    development, _ = load_runs(record / "development", horizon=RULES.judging.horizon)
    traces = RULE.traces(development, RULES.judging)
    for times in (1, 2, 3):
        found = judge(development, first_alarms(development, traces, times * RULE.rule.threshold))
        say(
            f"development, {times} x threshold: {found.table.hits} of {found.table.n_positive}, "
            f"{found.table.false_alarms} false, median lead {found.leads.median:.0f}"
        )


if __name__ == "__main__":
    main()
