"""C7 to C9: planted forecasts, planted declines, and runs that say nothing."""

from __future__ import annotations

import numpy as np
from build import grokking_curve, noise, recording_of
from scipy.ndimage import gaussian_filter1d

from spectraledge.predictions import PREDICTIONS, verify

N, AT = 90, 60


def judge(key, *recordings, draws=39):
    return verify(list(recordings), ids=[key], draws=draws)[0]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# C7


def forecast(seed, n, leads):
    """Rows whose common strength wanders; the log loss follows it 10 rows later, or something of its own."""
    rng = np.random.default_rng(seed)
    x, other = (gaussian_filter1d(rng.standard_normal(n + 20), 4.0) * 2.5 for _ in range(2))
    rows = noise(n, 300, seed)
    rows[:, 0] += 1.2 * np.exp(0.6 * x[20:])
    cause = x if leads else other
    # The middle of a window is 5 rows before its end, and what leads must do so by the whole of it.
    loss = 0.5 * cause[5 : n + 5] + 0.05 * rng.standard_normal(n)
    return recording_of(unit(rows), metrics={"test_loss": np.exp(gaussian_filter1d(loss, 1.0))})


def test_c7_supported_by_a_gap_that_leads_by_a_window():
    found = judge("C7", *(forecast(seed, 300, True) for seed in range(4)))
    assert found.outcome == "supported", found.reason


def test_c7_contradicted_by_losses_of_their_own():
    found = judge("C7", *(forecast(seed, 400, False) for seed in range(6)))
    assert found.outcome == "contradicted", found.reason


def test_c7_silent_on_one_short_run():
    # Of 40 such runs 4 are called a forecast at 120 windows, 1 at 200, 2 at 400.
    assert judge("C7", forecast(4, 120, False)).outcome == "not identifiable"
    assert judge("C7", recording_of(noise(120))).outcome == "not tested"


# C8 and C9


def run(seed, declines, groks, **settings):
    """Two strong modes; the second fades before step 600 where g_23 is to decline."""
    t = np.arange(N)
    rows = 0.1 * noise(N, 300, seed)
    second = np.where(t < AT - 20, 1.0, 0.3) if declines else np.ones(N)
    rows[:, 0] += 1.5
    rows[:, 1] += second * np.sqrt(2.0) * np.cos(2 * np.pi * t / 5)  # the same energy in every ten rows
    accuracy = grokking_curve(N, AT, seed=seed) if groks else np.full(N, 0.05)
    return recording_of(
        unit(rows), metrics={"test_accuracy": accuracy}, settings={"labels": "true", "weight_decay": 1.0, **settings}
    )


def test_c8_supported_where_g23_declines_before_grokking_alone():
    found = judge("C8", *(run(i, i < 6, i < 6) for i in range(12)))
    assert found.value == 1.0
    assert found.outcome == "supported", found.reason


def test_c8_contradicted_where_it_declines_in_the_others():
    assert judge("C8", *(run(i, i >= 6, i < 6) for i in range(12))).outcome == "contradicted"


def test_c8_does_not_credit_g23_with_norms_that_shrink():
    def shrinking(seed, groks):
        norms = np.exp(-0.03 * np.arange(N)) if groks else np.ones(N)
        rows = unit(noise(N, 300, seed)) * norms[:, None]
        accuracy = grokking_curve(N, AT, seed=seed) if groks else np.full(N, 0.05)
        return recording_of(rows, metrics={"test_accuracy": accuracy}, settings={"weight_decay": 1.0})

    found = judge("C8", *(shrinking(i, i < 6) for i in range(12)))
    assert found.value == 1.0
    assert found.outcome == "uninformative", found.reason  # noise of the same norms declines as much


def test_c8_silent_on_noise_where_the_published_rule_fires():
    def plain(seed, groks):
        accuracy = grokking_curve(N, AT, seed=seed) if groks else np.full(N, 0.05)
        return recording_of(noise(N, 300, seed), metrics={"test_accuracy": accuracy}, settings={"weight_decay": 1.0})

    found = judge("C8", *(plain(40 + i, i < 6) for i in range(12)))
    assert found.outcome == "not identifiable", found.reason
    assert found.author.outcome == "passes"
    assert found.author.null_pass_rate > 0.5
    assert judge("C8", *(plain(i, True) for i in range(3))).outcome == "not tested"


def pairs(n, declines_without, groks_without=False):
    with_decay = [run(i, True, True) for i in range(n)]
    return [*with_decay, *(run(20 + i, declines_without, groks_without, weight_decay=0.0) for i in range(n))]


def test_c9_supported_where_nothing_declines_or_groks_without_decay():
    found = judge("C9", *pairs(6, False))
    assert (found.value, found.n) == (0.0, {"runs without decay": 6, "grokking runs with decay": 6})
    assert found.outcome == "supported", found.reason
    assert found.author.outcome == "passes"


def test_c9_contradicted_where_it_declines_though_the_published_count_says_none():
    found = judge("C9", *pairs(6, True))
    assert found.value == 1.0
    assert found.outcome == "contradicted"
    assert (found.author.outcome, found.author.null_pass_rate) == ("passes", 1.0)


def test_c9_no_more_than_compatible_where_runs_without_decay_grok():
    # One that never groks must be there for others to be matched with.
    found = judge("C9", *pairs(6, False, groks_without=True), run(50, False, False))
    assert found.outcome == "compatible", found.reason


def test_c9_silent_on_two_and_two():
    assert judge("C9", *pairs(2, False)).outcome == "not identifiable"
    assert judge("C9", *(run(i, True, True) for i in range(3))).outcome == "not tested"


def test_anyones_runs_get_a_word():
    rows = noise(130, 200, 8)  # noise: 1 of 40 seeds is called wider than noise by C1
    metrics = {"loss": np.linspace(3.0, 1.0, 130)}
    for recording in (recording_of(rows, metrics=metrics), recording_of(rows, lost=(60, 61)), recording_of(rows[:9])):
        for key in (f"C{i}" for i in range(1, 10)):
            found = judge(key, recording, draws=19)
            assert found.outcome in ("not identifiable", "not tested", "contradicted", "uninformative"), (key, found)
            assert found.reason
            assert PREDICTIONS[key].command
            found.as_dict()
