"""AR: losses whose changes follow A, losses of their own, and too short a run."""

from __future__ import annotations

import numpy as np
from build import grokking_curve, noise, recording_of
from scipy.ndimage import gaussian_filter1d

from spectraledge.dynamics.windows import grams_ending_at
from spectraledge.predictions import verify
from spectraledge.theory.adiabatic import adiabatic


def run(seed, n, follows):
    """A direction that turns at a rate that wanders; the loss falls at the rate of A, or at one of its own."""
    rng = np.random.default_rng(seed)
    x, other = (gaussian_filter1d(rng.standard_normal(n + 40), 25.0) * 6.0 for _ in range(2))
    rows = noise(n, 300, seed)
    angle = np.cumsum(0.1 * np.exp(x[:n]))
    rows[:, 0] += 2.0 * np.cos(angle)
    rows[:, 1] += 2.0 * np.sin(angle)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first = recording_of(rows)
    a = adiabatic(grams_ending_at(first.band(), 20, np.arange(19, n)), 10).relative["operator"]
    known = np.log(np.concatenate([np.full(19, a[0]), a]))
    rate = known - known.min() + 0.2 if follows else np.exp(other[:n])
    # The change over the ten rows to come is known from A now.
    loss = 100.0 - np.cumsum(np.concatenate([np.zeros(1), rate[:-1]]))
    return recording_of(rows, metrics={"test_loss": loss})


def judge(*recordings):
    return verify(list(recordings), ids=["AR"], draws=19)[0]


def test_follows_what_a_foretells():
    found = judge(*(run(i, 200, True) for i in range(4)))
    assert found.outcome == "supported", found.reason
    assert found.value > 0.1


def test_contradicted_or_silent_on_losses_of_their_own():
    found = judge(*(run(i, 200, False) for i in range(3)))
    assert found.outcome in ("contradicted", "not identifiable"), found.reason


def test_silent_on_one_short_run():
    assert judge(run(3, 130, False)).outcome in ("not identifiable", "contradicted")
    assert judge(recording_of(noise(40), metrics={"test_loss": np.linspace(3, 1, 40)})).outcome == "not tested"


def test_published_cuts_depend_on_the_unit_of_the_learning_rate():
    rows = noise(130, 200, 1)
    found = [
        judge(
            recording_of(
                rows,
                metrics={"test_accuracy": grokking_curve(130, 80, seed=1)},
                settings={"weight_decay": 1.0},
                lr=lr,
            )
        ).author.value
        for lr in (1.0, 0.001)
    ]
    assert np.isclose(found[1], 1000.0 * found[0])
