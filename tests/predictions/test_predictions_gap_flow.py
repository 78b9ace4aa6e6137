"""T6: a run whose gap follows the flow, one whose gap does not, and what the published statistic is in noise."""

from __future__ import annotations

import numpy as np
from build import noise, recording_of

import spectraledge as se
from spectraledge.predictions import verify
from spectraledge.predictions.gap_flow import centred_correlation

PROBE = {"modes": 4, "span": 0, "random": 0, "next_gradients": False}


def quadratic(seed: int, every: int, window: int, probe_every: int, **settings):
    return se.run(
        "quadratic", seed=seed, settings=settings, every=every, window=window, probe_every=probe_every, probe=PROBE
    )


def judge(recording, window: int):
    return verify([recording], ids=["T6"], window=window, draws=19)[0]


def test_supported_on_descent_along_three_curvatures():
    recording = quadratic(
        1, 5, 5, 10, optimizer="gd", eigenvalues="0.1,0.4,1.5", lr=0.02, weight_decay=0.2, steps=400, optimum=0.0
    )
    found = judge(recording, 5)
    assert found.outcome in ("supported", "compatible"), found.reason
    assert found.baselines["skill of the flow"] > 0.5


def test_contradicted_where_the_gap_reverts_without_curvature():
    recording = quadratic(2, 1, 10, 5, optimizer="sgd", eigenvalues="0", repeat=40, noise=1.0, lr=0.02, steps=400)
    found = judge(recording, 10)
    assert found.outcome == "contradicted", found.reason
    assert found.value < 0.0


def test_not_tested_without_probes_and_says_what_the_published_rule_is_worth():
    found = judge(recording_of(noise(80)), 10)
    assert found.outcome == "not tested"
    assert "null histories" in found.reason


def test_published_correlation_has_expectation_zero():
    # F6: stationary and reversible series, the position fixed at 1.
    rng = np.random.default_rng(0)
    x = np.zeros((200, 450))
    for t in range(1, 450):
        x[:, t] = 0.8 * x[:, t - 1] + rng.standard_normal(200)
    sigma = np.stack([10.0 + 0.1 * x, np.ones_like(x)], axis=-1)[:, 50:]  # stationary by then
    r = centred_correlation(sigma)
    # Only the ends of a record enter: the sd of one is O(1/n), that of the mean of 200 far less.
    assert abs(r.mean()) < 0.001
    assert np.abs(r).max() < 0.05
