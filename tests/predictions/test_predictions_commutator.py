"""C10 and C11: onsets that announce, onsets that come everywhere, and leads that are a subtraction."""

from __future__ import annotations

import numpy as np
from build import grokking_curve, noise, recording_of

from spectraledge.predictions import verify

N, AT, RISE = 40, 30, 12


def run(seed, rises, groks, **settings):
    """A defect of 0.3 that rises at evaluation 12 beyond its onset, or stays; accuracy at 30."""
    rng = np.random.default_rng(seed)
    level = np.where(np.arange(N) >= RISE, 60.0 if rises else 0.5, 0.3)
    metrics = {
        "commutator_defect": level * np.exp(0.1 * rng.standard_normal(N)),
        "test_accuracy": grokking_curve(N, AT, seed=seed) if groks else np.full(N, 0.05),
    }
    return recording_of(
        noise(N, 50, seed), 100, metrics=metrics, settings={"labels": "true", "weight_decay": 1.0, **settings}
    )


def judge(key, recordings):
    return verify(list(recordings), ids=[key], draws=19)[0]


def test_c10_supported_where_the_defect_rises_before_grokking_alone():
    found = judge("C10", (run(i, i < 6, i < 6) for i in range(12)))
    assert found.value == 1.0
    assert found.outcome == "supported", found.reason
    assert (found.author.outcome, found.author.null_pass_rate) == ("passes", 0.0)
    assert found.raw[0]["onset"] == 1400.0  # the median of three is there one evaluation later


def test_c10_contradicted_where_it_rises_in_the_others():
    assert judge("C10", (run(i, i >= 6, i < 6) for i in range(12))).outcome == "contradicted"


def test_c10_silent_where_it_rises_in_all_and_the_published_rule_passes():
    found = judge("C10", (run(i, True, i < 6) for i in range(12)))
    assert found.outcome == "not identifiable", found.reason
    assert (found.author.outcome, found.author.null_pass_rate) == ("passes", 1.0)


def test_c10_does_not_credit_the_defect_with_weight_decay():
    found = judge("C10", (run(i, i < 6, i < 6, weight_decay=float(i < 6)) for i in range(12)))
    assert found.value == 1.0
    assert found.outcome == "compatible", found.reason


def test_c10_a_placebo_is_a_negative_whatever_it_learns():
    found = judge("C10", (run(i, i < 6, True, labels="true" if i < 6 else "shuffled") for i in range(12)))
    assert found.n == {"grokking runs": 6, "other runs": 6, "left out": 0}


def test_c10_needs_both_kinds_and_the_metric():
    for groks, words in ((True, "never grok"), (False, "must grok")):
        found = judge("C10", (run(i, True, groks) for i in range(3)))
        assert found.outcome == "not tested"
        assert words in found.reason
    assert "commutator_defect" in judge("C10", [recording_of(noise(20))]).reason


# C11

STEPS = np.arange(20, 5001, 20)


def pair(seed, onset, grok):
    metrics = {
        "commutator_defect": (STEPS, np.where(onset <= STEPS, 100.0, 0.3)),
        "test_accuracy": (STEPS, np.where(grok <= STEPS, 1.0, 0.05)),
    }
    return recording_of(noise(20, 50, seed), 250, metrics=metrics, settings={"labels": "true", "weight_decay": 1.0})


GROK = np.geomspace(1000, 4000, 8)


def test_c11_supported_where_late_runs_start_early():
    found = judge("C11", (pair(i, 600 * (g / 1000) ** -1.0, g) for i, g in enumerate(GROK)))
    assert found.outcome == "supported", found.reason


def test_c11_uninformative_where_all_start_at_once():
    rng = np.random.default_rng(3)
    found = judge("C11", (pair(i, 600 + 20 * rng.standard_normal(), g) for i, g in enumerate(GROK)))
    assert found.value > 1.0
    assert found.outcome == "uninformative", found.reason
    assert (found.author.outcome, found.author.null_pass_rate > 0.9) == ("passes", True)


def test_c11_contradicted_where_the_lead_grows_with_the_root():
    found = judge("C11", (pair(i, g - 20 * np.sqrt(g), g) for i, g in enumerate(GROK)))
    assert abs(found.value - 0.5) < 0.1
    assert found.outcome == "contradicted", found.reason


def test_c11_needs_a_range_of_grok_steps():
    assert judge("C11", (pair(i, 600, 2000) for i in range(6))).outcome == "not tested"
    assert judge("C11", (pair(i, 600, g) for i, g in enumerate(GROK[:3]))).outcome == "not tested"
