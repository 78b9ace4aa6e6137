"""The rules that come with the package: made of the recordings of ``records/``, as good as is said."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import spectraledge as se
from spectraledge.detect.events import find_events
from spectraledge.detect.precursors.final import judge_final
from spectraledge.detect.precursors.rules import first_alarms
from spectraledge.detect.precursors.runs import load_runs
from spectraledge.detect.precursors.shipped import grokking, shipped_rules

RECORD = Path(__file__).parents[2] / "records/2026-11-24_what-precedes-grokking"
RULES = shipped_rules()


@pytest.fixture(scope="module")
def final():
    runs, left_out = load_runs(RECORD / "final", horizon=RULES.judging.horizon, refused=RULES.seeds)
    assert not left_out
    return judge_final(RULES, runs, n_boot=400)


def test_they_were_made_of_these_recordings():
    found = {
        file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (RECORD / "development").glob("*/recording.jsonl")
    }
    assert found == RULES.development
    assert len(found) == 66


def test_seeds_are_disjoint_and_six_a_cell(final):
    cells: dict[str, set[int]] = {}
    for run in final.runs:
        cells.setdefault(run.cell, set()).add(run.seed)
    assert len(cells) == 11
    assert all(len(seeds) == 6 and not seeds & set(RULES.seeds) for seeds in cells.values())


def test_the_docstring_says_what_the_final_runs_say(final):
    text = " ".join((grokking.__doc__ or "").split())
    table, leads = final.judged[final.winner].verdict.table, final.judged[final.winner].verdict.leads
    said = re.search(
        r"found in (\d+) of (\d+) runs .*?(\d+) false alarms in (\d+) runs .*?median lead (\d+) steps", text
    )
    assert said is not None
    expected = (table.hits, table.n_positive, table.false_alarms, table.n_negative, leads.median)
    assert tuple(float(x) for x in said.groups()) == expected


@pytest.mark.parametrize("name", ["add-decay-101", "x2_y2-decay-103", "add-no-decay-104", "x3_xy-decay-106"])
def test_events_are_the_alarms_of_the_protocol(final, name):
    run = next(run for run in final.runs if run.name == name)
    rule = RULES.rules[RULES.winner]
    alarm = first_alarms([run], rule.traces([run], RULES.judging), rule.rule.threshold)[0]
    events = find_events(se.load(RECORD / "final" / name), detectors=["grokking"])
    assert [event.step for event in events] == ([] if np.isnan(alarm) else [alarm])
