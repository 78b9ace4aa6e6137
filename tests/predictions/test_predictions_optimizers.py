"""C12: gaps behind the first and the second mode, and noise."""

from __future__ import annotations

import numpy as np
from build import noise, recording_of

from spectraledge.predictions import verify

N = 50


def run(seed, optimizer, modes, loss=(3.0, 1.0)):
    """One strong direction, two of equal energy, or none."""
    t = np.arange(N)
    rows = noise(N, 2000, seed)
    if modes == 1:
        rows[:, 0] += 0.7
    if modes == 2:
        rows[:, 0] += 0.7 * np.cos(2 * np.pi * t / 5)
        rows[:, 1] += 0.7 * np.sin(2 * np.pi * t / 5)
    settings = {"optimizer": optimizer, "weight_decay": 1.0, "seed": seed}
    return recording_of(rows, metrics={"val_loss": np.linspace(*loss, N)}, settings=settings, experiment="lm/small")


def judge(muon, adamw, n=3, **kinds):
    found = [run(i, "muon", muon) for i in range(n)] + [run(i, "adamw", adamw, **kinds) for i in range(n)]
    return verify(found, ids=["C12"], draws=19)[0]


def test_supported_where_the_gap_moves():
    found = judge(1, 2)
    assert found.value > 0.9
    assert found.outcome == "supported", found.reason
    assert found.author.outcome == "passes"
    assert found.author.null_pass_rate < 0.2


def test_contradicted_where_it_moves_the_other_way():
    found = judge(2, 1)
    assert found.outcome == "contradicted", found.reason
    assert found.author.outcome == "fails"


def test_silent_on_noise():
    assert judge(0, 0).outcome in ("not identifiable", "contradicted")


def test_runs_must_pass_through_the_same_losses_in_pairs():
    assert judge(1, 2, loss=(9.0, 8.0)).outcome == "not tested"
    assert judge(1, 2, n=1).outcome == "not tested"
    assert verify([run(0, "adamw", 1)], ids=["C12"])[0].command
