"""GM: studies that say that k* alone matters, or that it does not, and collapses that were only seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from build import noise, recording_of

from spectraledge.predictions import verify
from spectraledge.predictions.maximality import _word
from spectraledge.theory.event_study import EventStudy


def lines(seed, k, cost, others):
    rng = np.random.default_rng(seed)
    for position in ("none", 1, 2, 3, 4):
        change = {"none": 0.0, k: cost}.get(position, others)
        loss = [2.0, 2.0, 1.0 + change + 0.02 * rng.standard_normal() * (position != "none")]
        yield {
            "seed": seed,
            "time": 500,
            "kind": "close_gap",
            "position": position,
            "amount": 1.0,
            "k_star": k,
            "steps": [500, 600, 700],
            "test_loss": loss,
        }


def judge(folder, cost, others, positions=(1, 2)):
    study = folder / "study"
    study.mkdir()
    (study / "study.json").write_text(json.dumps({"study": "intervention", "positions": [1, 2, 3, 4]}))
    for seed in range(8):
        rows = lines(seed, positions[seed % len(positions)], cost, others)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (study / f"seed-{seed}.jsonl").write_text(text + '{"cut short')
    run = folder / "run"
    run.mkdir()
    recording_of(noise(30, 50)).save(run / "recording.jsonl")
    return verify([str(run)], ids=["GM"], draws=19)[0]


def test_supported_where_a_change_costs_at_k_star_alone(tmp_path):
    found = judge(tmp_path, 1.0, 0.0)
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert found.outcome == "supported", found.reason


def test_no_more_than_compatible_where_k_star_is_always_the_first(tmp_path):
    assert judge(tmp_path, 1.0, 0.0, positions=(1,)).outcome == "compatible"


def test_contradicted_where_it_costs_as_much_elsewhere(tmp_path):
    found = judge(tmp_path, 1.0, 1.0)
    assert found.outcome == "contradicted", found.reason


def test_silent_where_it_costs_nothing(tmp_path):
    assert judge(tmp_path, 0.0, 0.0).outcome == "not identifiable"


def test_collapses_that_were_only_seen():
    def study(effect, low, high, p, n=8):
        return EventStudy(effect, low, high, p, n, 0, 40, 3, np.zeros(2), np.zeros(n))

    assert _word(study(0.5, 0.2, 0.8, 0.01), 0.002, True) == "supported"
    assert _word(study(0.5, 0.2, 0.8, 0.01), 0.002, False) == "compatible"  # matches that are not alike
    assert _word(study(-0.5, -0.8, -0.2, 0.01), 0.002, True) == "contradicted"
    assert _word(study(0.5, 0.2, 0.8, 0.01, n=3), 0.002, True) == "not identifiable"
    assert _word(study(0.5, 0.2, 0.8, 0.01), 0.11, True) == "not identifiable"


def test_noise_is_not_identifiable():
    recordings = [recording_of(noise(120, 200, i), metrics={"test_loss": np.linspace(3, 1, 120)}) for i in range(2)]
    found = verify(recordings, ids=["GM"], draws=19)[0]
    assert found.outcome in ("not identifiable", "not tested"), found.reason
    assert found.author.outcome == "not applicable"
