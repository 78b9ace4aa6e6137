"""T7: gaps that open with grokking, that open without it, and runs alike but for their accuracy."""

from __future__ import annotations

import numpy as np
from build import grokking_curve, noise, recording_of

from spectraledge.predictions import verify

N, AT = 90, 60


def run(seed: int, opens: bool, groks: bool, **settings):
    rows = noise(N, 300, seed)
    rows[:, 0] += np.where(np.arange(N) >= AT - 8, 2.0, 0.0) if opens else 0.0
    rows *= (1.0 + 0.02 * np.random.default_rng(seed).standard_normal(N))[:, None] / np.linalg.norm(
        rows, axis=1, keepdims=True
    )
    accuracy = grokking_curve(N, AT, seed=seed) if groks else np.full(N, 0.05)
    return recording_of(
        rows, metrics={"test_accuracy": accuracy}, settings={"labels": "true", "weight_decay": 1.0, **settings}
    )


def judge(*recordings):
    return verify(list(recordings), ids=["T7"], draws=19)[0]


def test_supported_where_the_gap_opens_with_grokking_alone():
    found = judge(*(run(i, i < 6, i < 6) for i in range(12)))
    assert found.value == 1.0
    assert found.outcome == "supported", found.reason


def test_contradicted_where_it_opens_in_the_others():
    found = judge(*(run(i, i >= 6, i < 6) for i in range(12)))
    assert found.value < 0.5
    assert found.outcome == "contradicted"


def test_silent_on_noise_where_the_published_rule_fires():
    found = judge(*(run(40 + i, False, i < 6) for i in range(12)))
    assert found.outcome in ("not identifiable", "contradicted")
    assert found.author.outcome == "passes"  # a decline of 1.5 between the peak and any later window
    assert found.author.null_pass_rate > 0.5


def test_a_placebo_is_a_negative_even_where_its_labels_are_learnt():
    found = judge(*(run(i, i < 6, True, labels="true" if i < 6 else "shuffled") for i in range(12)))
    assert found.n == {"grokking runs": 6, "other runs": 6, "left out": 0}
    assert found.outcome == "supported"


def test_three_against_three_cannot_reach_the_level():
    found = judge(*(run(i, i < 3, i < 3) for i in range(6)))
    assert found.outcome != "supported"
    assert "cannot reach 0.05" in found.reason


def test_one_kind_of_runs_is_not_enough():
    for groks, words in ((True, "never grok"), (False, "must grok")):
        found = judge(*(run(i, True, groks) for i in range(3)))
        assert found.outcome == "not tested"
        assert words in found.reason
