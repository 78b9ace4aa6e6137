"""T1 is a tautology, and its replacement is not."""

from __future__ import annotations

import dataclasses

import numpy as np
from build import noise, probe_of, recording_of

from spectraledge.predictions import verify
from spectraledge.theory.surrogates import sample_gram


def with_replicates(rows: np.ndarray, energy: float):
    """A recording that says how much of each update is noise."""
    bare = recording_of(rows)
    half = np.array([[[energy, 0.0], [0.0, energy]]])  # two independent continuations: half the difference is energy
    probes = [
        dataclasses.replace(
            probe_of(bare, t), replicate_gram=half, replicate_products=np.full((2, 1, bare.lags + 1), np.nan)
        )
        for t in range(10, len(rows), 20)
    ]
    return recording_of(rows, probes=probes)


def test_white_noise_scores_65_times_the_threshold():
    # F2: 65.24 for 163,150,848 parameters; the bound is 65.2509, and P_eff of 1.6e8 leaves no other digit.
    gram = sample_gram(np.ones(40), 163_150_848.0, rng=np.random.default_rng(0))[0]
    found = verify([recording_of(gram, n_parameters=163_150_848)], ids=["T1"], draws=19)[0]
    assert found.outcome == "uninformative"
    assert found.author.outcome == "passes"
    assert abs(found.author.value - 65.24) < 0.02
    assert found.author.null_pass_rate == 1.0
    assert abs(found.baselines["largest possible ratio"] - 65.2509) < 1e-3


def test_the_published_ratio_of_few_parameters_cannot_pass():
    found = verify([recording_of(noise(60))], ids=["T1"], draws=19)[0]  # (300 / 9)^(1/4) = 2.4
    assert found.author.outcome == "fails"
    assert found.author.null_pass_rate == 0.0


def test_replacement_is_supported_where_updates_are_nearly_free_of_noise():
    rng = np.random.default_rng(1)
    rows = noise(140, 300, 1)
    rows[:, :12] += 20.0 * rng.standard_normal((140, 12))
    found = verify([with_replicates(rows, 1.0)], ids=["T1"], draws=19)[0]
    assert found.raw[0]["of"] == 10
    assert found.raw[0]["replacement"] == "supported"
    assert found.value > 0.9
    assert found.outcome == "uninformative"


def test_replacement_is_contradicted_by_noise():
    for recording in (recording_of(noise(140)), with_replicates(noise(140), 1.0)):
        found = verify([recording], ids=["T1"], draws=19)[0]
        assert found.value == 0.0
        assert found.raw[0]["replacement"] == "contradicted"


def test_needs_a_whole_window():
    found = verify([recording_of(noise(6))], ids=["T1"], draws=19)[0]
    assert found.outcome == "not tested"
    assert found.command
