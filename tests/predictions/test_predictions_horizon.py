"""T3: the published rule counts no curvature; ours can fail."""

from __future__ import annotations

import dataclasses

import numpy as np
from build import noise, probe_of, recording_of

from spectraledge.predictions import verify


def run(cycle: np.ndarray, active: np.ndarray):
    """Updates that take turns among ``cycle[t]`` directions, and ``active[t]`` curvatures above 1 / (eta s W)."""
    n = len(cycle)
    rows = 0.05 * noise(n, 200, 5)
    rows[np.arange(n), np.arange(n) % cycle] += 5.0
    bare = recording_of(rows, group={"optimizer": 0, "class": "SGD", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0})
    probes = []
    for t in range(19, n, 10):
        h = np.full(8, 0.01)
        h[: active[t]] = 3.0
        probes.append(dataclasses.replace(probe_of(bare, t), eigenvalues=h, eigenvalue_errors=np.zeros(8)))
    return recording_of(
        rows, probes=probes, group={"optimizer": 0, "class": "SGD", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    )


HALF = np.arange(320) >= 160


def judge(recording):
    return verify([recording], ids=["T3"], draws=19)[0]


def test_supported_where_the_count_follows_the_gap():
    found = judge(run(np.where(HALF, 3, 1), np.where(HALF, 2, 0)))
    assert found.value == 0.0
    assert found.outcome == "supported", found.reason
    assert found.null_pass_rate <= 0.2


def test_contradicted_where_the_gap_lies_beyond_the_count():
    found = judge(run(np.full(320, 3), np.zeros(320, dtype=int)))
    assert found.value == 1.0
    assert found.outcome == "contradicted"


def test_uninformative_where_any_count_would_do():
    found = judge(run(np.full(320, 1), np.full(320, 2)))
    assert found.outcome == "uninformative"
    assert found.null_pass_rate == 1.0


def test_not_tested_without_probes_or_where_the_bound_cannot_fail():
    assert judge(recording_of(noise(60))).outcome == "not tested"
    found = judge(run(np.full(120, 1), np.full(120, 6)))
    assert found.outcome == "not tested"
    assert "must be able to fail" in found.reason


def test_published_rule_is_a_number():
    # k* = 3 is at most 4, whatever the curvature.
    assert judge(run(np.full(320, 3), np.zeros(320, dtype=int))).author.outcome == "passes"
