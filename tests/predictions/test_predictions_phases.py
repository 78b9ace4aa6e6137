"""T4: planted rise, plateau and collapse; a flat gap; noise."""

from __future__ import annotations

import numpy as np
from build import noise, recording_of

from spectraledge.predictions import verify

N = 160


def run(drift: np.ndarray, seed: int, loss: np.ndarray | None = None):
    """Rows of unit norm whose share along one direction follows ``drift``."""
    rows = noise(N, 300, seed)
    rows[:, 0] += drift
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return recording_of(rows, metrics={} if loss is None else {"test_loss": loss})


def planted(seed: int):
    rng = np.random.default_rng(seed)
    t = np.arange(N) / N
    level = np.interp(t, [0.0, 0.35, 0.7, 1.0], [-1.5, 1.2, 1.2, -1.5])
    return run(np.exp(level), seed, 2.0 - level + 0.1 * rng.standard_normal(N))


def test_supported_by_planted_phases_tied_to_the_loss():
    found = verify([planted(seed) for seed in range(5)], ids=["T4"], draws=19)[0]
    assert found.value >= 0.8
    assert found.outcome == "supported", found.reason
    assert found.author.outcome == "passes"


def test_contradicted_by_runs_with_a_steady_gap():
    found = verify([run(np.full(N, 1.0), seed) for seed in range(6)], ids=["T4"], draws=19)[0]
    assert found.value == 0.0
    assert found.outcome == "contradicted"
    assert found.author.outcome == "not applicable"  # no loss


def test_silent_on_drift_and_noise_where_the_published_rule_is_not():
    recordings = []
    for i in range(3):
        rows = noise(60, 300, 20 + i)
        rows[:, 0] += 0.3
        loss = 3.0 + np.exp(-(((np.arange(60) - 30 - 5 * i) / 25) ** 2))
        recordings.append(recording_of(rows, metrics={"test_loss": loss}))
    found = verify(recordings, ids=["T4"], draws=39)[0]
    assert found.outcome == "not identifiable"
    assert found.author.null_pass_rate > 0.2  # of surrogates pass |r| > 0.3


def test_needs_windows():
    assert verify([recording_of(noise(20))], ids=["T4"], draws=19)[0].outcome == "not tested"
