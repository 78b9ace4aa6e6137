"""T2 is a definition; that there is a gap beyond drift and noise is not."""

from __future__ import annotations

import numpy as np
from build import noise, recording_of

from spectraledge.predictions import verify

# The published spectrum of TinyStories at step 2000 (F1).
PUBLISHED = np.array([198.58, 169.08, 122.47, 110.73, 106.22, 92.66, 78.30, 61.27, 44.58, 22.79])


def judge(*recordings, draws=39):
    return verify(list(recordings), ids=["T2"], draws=draws)[0]


def test_published_spectrum_has_its_largest_ratio_at_9():
    # Rows that repeat every ten: each window holds each once, in whatever order, hence the published spectrum.
    rows = np.zeros((40, 50))
    rows[np.arange(40), np.arange(40) % 10] = PUBLISHED[np.arange(40) % 10]
    found = judge(recording_of(rows))
    assert (found.raw[0]["k_plain"], found.raw[0]["k_guarded"], found.raw[0]["k_weighted"]) == (9, 2, 2)
    assert found.author.value == 9
    assert found.author.outcome == "passes"  # whatever it is
    assert found.author.null_pass_rate == 1.0


def test_replacement_is_supported_by_a_gap_that_comes_and_goes():
    rows = noise(160, 400, 2)
    rows[::, 0] += 12.0 * (np.arange(160) // 40 % 2)  # a stationary drift with the same mean cosine has a smaller gap
    found = judge(recording_of(rows))
    assert found.outcome == "uninformative"
    assert found.raw[0]["replacement"] in ("supported", "compatible")
    assert found.value > 0.1
    assert found.p <= 0.05


def test_replacement_is_contradicted_where_rows_avoid_each_other():
    rng = np.random.default_rng(3)
    rows = np.zeros((260, 60))
    for t in range(260):
        x = rng.standard_normal(60)
        past = rows[max(0, t - 9) : t]
        if len(past):
            x -= past.T @ (past @ x)  # the nine rows before are orthonormal
        rows[t] = x / np.linalg.norm(x)
    found = judge(recording_of(rows))
    assert found.raw[0]["replacement"] == "contradicted"
    assert found.raw[0]["log_ratio"] < 1e-6


def test_noise_is_not_taken_for_a_gap():
    found = judge(recording_of(noise(120, 300, 4)))
    assert found.raw[0]["replacement"] not in ("supported", "compatible")
    assert found.p > 0.05
