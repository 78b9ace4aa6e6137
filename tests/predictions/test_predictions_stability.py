"""T5: the order of stability, where it is more than nulls have, where it is reversed, and in noise."""

from __future__ import annotations

import numpy as np
from build import noise, recording_of

from spectraledge.predictions import verify


def judge(rows: np.ndarray):
    return verify([recording_of(rows)], ids=["T5"], draws=39)[0]


def test_supported_by_lasting_modes_of_unlike_time_courses():
    # Period 10 is the window: the three courses are orthogonal in every window, their directions never turn.
    t = np.arange(240)
    rows = noise(240, 300, 6)
    rows[:, 0] += 6.0 * np.cos(2 * np.pi * t / 10)
    rows[:, 1] += 4.0 * np.sin(2 * np.pi * t / 10)
    rows[:, 2] += 2.0
    found = judge(rows)
    assert found.raw[0]["k_star"] == 3
    assert found.outcome == "supported", found.reason
    assert found.value > 0.1


def test_contradicted_where_the_strongest_modes_are_the_least_stable():
    rng = np.random.default_rng(7)
    rows = 0.3 * noise(260, 300, 7)
    rows[:, 0] += 1.2  # the weakest mode is the only one that lasts
    directions = rng.standard_normal((52, 300)) / np.sqrt(300)
    rows += 6.0 * directions[np.arange(260) // 5] * np.where(np.arange(260) % 2, -1.0, 1.0)[:, None]
    found = judge(rows)
    assert found.outcome == "contradicted", found.reason
    assert found.value < 0.0


def test_silent_on_noise_and_on_a_constant_drift():
    drift = noise(200, 300, 9)
    drift[:, 0] += 0.8
    for rows in (noise(200, 300, 8), drift):
        found = judge(rows)
        assert found.outcome != "supported"
        assert found.p > 0.05
        assert found.author.null_pass_rate > 0.2  # the published order appears in nulls


def test_lags_that_do_not_reach_are_said():
    found = verify([recording_of(noise(80), lags=12)], ids=["T5"], draws=19)[0]
    assert found.outcome == "not tested"
    assert "lags" in found.reason
