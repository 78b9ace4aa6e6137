"""C13 to C16: orders, compressions, and paths that are straight, a walk, or bound to a place."""

from __future__ import annotations

import numpy as np
import pytest
from build import grokking_curve, noise, recording_of

from spectraledge.predictions import verify

N = 40


def judge(key, recordings, draws=19):
    return verify(list(recordings), ids=[key], draws=draws)[0]


# C13


def multitask(seed, mul, sq, add, **settings):
    steps = np.arange(10) * 100 + 100
    metrics = {
        f"test_accuracy_{name}": (steps, np.where(np.arange(10) >= at, 1.0, 0.1))
        for name, at in (("mul", mul), ("x2_y2", sq), ("add", add))
    }
    metrics |= {f"train_accuracy_{name}": (steps, np.ones(10)) for name in ("mul", "x2_y2", "add")}
    return recording_of(noise(20, 50, seed), 50, metrics=metrics, settings={"weight_decay": 1.0, **settings})


def test_c13_supported_by_one_order():
    found = judge("C13", (multitask(i, 2, 4, 6 + i) for i in range(4)))  # the last never gets there: it is last
    assert found.outcome == "supported", found.reason
    assert found.p == pytest.approx(6.0**-4)
    assert found.author.null_pass_rate == pytest.approx(1 / 6)


def test_c13_contradicted_by_another():
    assert judge("C13", (multitask(i, 6, 4, 2) for i in range(6))).outcome == "contradicted"


def test_c13_silent_on_both_and_on_ties():
    found = judge("C13", (multitask(i, 2, 4, 6 if i < 3 else 4) for i in range(6)))
    assert (found.value, found.outcome) == (0.5, "not identifiable")


def test_c13_needs_tasks_that_grok():
    assert judge("C13", [multitask(0, 2, 99, 99)]).outcome == "not tested"
    assert judge("C13", [recording_of(noise(20))]).outcome == "not tested"


# C14


def compressed(seed, after, control):
    last = {
        f"{kind}_{what}": ([400], [value])
        for kind in ("truncate", "prune", "scale")
        for what, value in (("accuracy", after), ("control", control))
    }
    metrics = {"test_accuracy": grokking_curve(N, 20, seed=seed), **last}
    return recording_of(noise(N, 50, seed), metrics=metrics, settings={"weight_decay": 1.0})


def test_c14_follows_compressions_against_moves_as_long():
    rng = np.random.default_rng(0)
    jitter = 0.02 * rng.standard_normal(8)
    fragile = judge("C14", (compressed(i, 0.1 + x, 0.95) for i, x in enumerate(jitter)))
    assert (fragile.outcome, fragile.author.outcome) == ("supported", "passes")
    firm = judge("C14", (compressed(i, 0.95 + x, 0.3) for i, x in enumerate(jitter)))
    assert (firm.outcome, firm.author.outcome) == ("contradicted", "fails")
    # A move as long destroys as much: the published check passes on it.
    as_any = judge("C14", (compressed(i, 0.1 + x, 0.1) for i, x in enumerate(jitter)))
    assert (as_any.outcome, as_any.author.null_pass_rate) == ("not identifiable", 1.0)


def test_c14_says_what_is_missing():
    found = judge("C14", [recording_of(noise(N))])
    assert found.outcome == "not tested"
    assert "truncate_accuracy" in found.reason
    assert "compressibility" in found.command


# C15 and C16


def path(seed, kind, lags=N - 1):
    rows = noise(N + 1, 200, seed)
    if kind == "straight":
        rows[:, 0] += 1.0
    if kind == "bound":  # positions are noise around a place
        rows = np.diff(rows, axis=0)
    theta = 100.0 * noise(1, 200, 99) + np.concatenate([np.zeros((1, 200)), np.cumsum(rows[-N:], axis=0)])
    return recording_of(rows[-N:], lags=lags, theta=theta, settings={"weight_decay": 1.0})


@pytest.mark.parametrize("key", ["C15", "C16"])
def test_paths_follow_their_walks(key):
    for kind, word in (("straight", "supported"), ("bound", "contradicted"), ("walk", "not identifiable")):
        found = judge(key, (path(i, kind) for i in range(3)))
        assert found.outcome == word, (kind, found.reason)
        if kind == "walk":
            # 0.61 and 0.73 are what long walks have; the published rules are met by walks of their own norms.
            assert abs(found.baselines["share in random walks"] - (0.61 if key == "C15" else 0.73)) < 0.06
            assert found.author.null_pass_rate > 0.9 or key == "C15"


def test_short_lags_give_no_more_than_a_hint():
    found = judge("C15", (path(i, "straight", lags=9) for i in range(3)))
    assert found.outcome == "compatible"
    assert "stretches of 10 rows" in found.reason
    assert judge("C15", (path(i, "bound", lags=9) for i in range(3))).outcome == "not identifiable"


def test_decay_alone_is_no_manifold():
    """A path along the parameters themselves is supported by nothing but their shrinking."""

    def shrinking(seed):
        rng = np.random.default_rng(seed)
        theta = [rng.standard_normal(200) * 10]
        for _ in range(N):
            theta.append(theta[-1] * 0.99 + 0.05 * rng.standard_normal(200))
        theta = np.array(theta)
        return recording_of(np.diff(theta, axis=0), lags=N - 1, theta=theta, settings={"weight_decay": 1.0})

    found = judge("C15", (shrinking(i) for i in range(3)))
    assert found.outcome == "compatible", found.reason


def test_anyones_runs_get_a_word():
    rows = noise(60, 100, 7)
    for recording in (recording_of(rows), recording_of(rows, lost=(30, 31)), recording_of(rows[:9])):
        for key in ("C10", "C11", "C12", "C13", "C14", "C15", "C16", "GM", "AR"):
            found = judge(key, [recording], draws=19)
            assert found.outcome in ("not identifiable", "not tested", "contradicted", "uninformative"), (key, found)
            assert found.reason
            found.as_dict()
