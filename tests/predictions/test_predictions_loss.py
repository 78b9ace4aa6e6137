"""T8: changes of the loss that follow the weighted sum, the plain one, and neither."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from build import noise, probe_of, recording_of

from spectraledge.dynamics.loss_decomposition import loss_decomposition
from spectraledge.predictions import verify

N, P, LAGS = 260, 60, 20
GROUP = {"optimizer": 0, "class": "SGD", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def probed_run(measured: np.ndarray | None, seed: int = 1):
    """Two lasting modes in noise, and gradients of either loss drawn at every fifth update."""
    rng = np.random.default_rng(seed)
    rows = noise(N, P, seed)
    rows[:, 0] += 2.5
    rows[:, 1] += 2.5 * np.cos(2 * np.pi * np.arange(N) / 10)
    bare = recording_of(rows, lags=LAGS, group=GROUP)
    probes = []
    for i, t in enumerate(range(24, N - 1, 3)):
        vectors = rng.standard_normal((2, P)) + 0.3
        on = np.full((2, 1, LAGS + 1), np.nan)
        on[:, 0, : min(t, LAGS) + 1] = vectors @ rows[t - min(t, LAGS) : t + 1][::-1].T
        held = np.concatenate([vectors, np.ones((1, P))])
        probes.append(
            dataclasses.replace(
                probe_of(bare, t),
                vectors=("train", "val"),
                gradient_products=on,
                gradient_gram=(held @ held.T)[:, :, None],
                val_loss=1.0,
                next_step=int(bare.steps[t + 1]),
                next_products=(vectors @ rows[t + 1])[:, None],
                next_gradient_products=np.full((2, 1), np.nan),
                next_train_loss=1.0,
                next_val_loss=1.0 + (0.0 if measured is None else float(measured[i])),
            )
        )
    return recording_of(rows, lags=LAGS, group=GROUP, probes=probes)


@pytest.fixture(scope="module")
def forecasts():
    found = loss_decomposition(probed_run(None), n_boot=20)
    plain, alpha = found.forecasts.plain, found.forecasts.alpha["overlap2_lagW"]
    return np.nansum(plain, axis=1), np.nansum(plain * alpha, axis=1)


def judge(measured):
    return verify([probed_run(measured)], ids=["T8"], draws=39)[0]


def test_supported_where_changes_follow_the_weighted_sum(forecasts):
    _, weighted = forecasts
    found = judge(weighted + 0.1 * weighted.std() * np.random.default_rng(0).standard_normal(len(weighted)))
    assert found.outcome == "supported", found.reason
    assert found.author.outcome == "not applicable"


def test_contradicted_where_they_follow_the_plain_sum(forecasts):
    plain, _ = forecasts
    found = judge(plain)
    assert found.baselines["alpha = 1"] == pytest.approx(1.0)
    assert found.outcome == "contradicted", found.reason


def test_silent_where_they_follow_neither(forecasts):
    plain, _ = forecasts
    found = judge(plain.std() * np.random.default_rng(3).standard_normal(len(plain)))
    assert found.outcome == "not identifiable"


def test_not_tested_without_probes():
    found = verify([recording_of(noise(60))], ids=["T8"], draws=19)[0]
    assert found.outcome == "not tested"
    assert "--probe-every" in found.command
