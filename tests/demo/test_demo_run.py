"""The demo end to end on a tiny network, and its measurements on histories with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import spectraledge as se
from spectraledge.demo import Progress, demo
from spectraledge.demo.compare import measure, summary
from spectraledge.errors import SettingError
from spectraledge.recording import Recording, RecordingWriter

TINY = {"p": 7, "d_model": 16, "layers": 1, "heads": 2, "d_hidden": 16, "batch_size": 16, "steps": 700}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, int]], list[str]]:
    folder = tmp_path_factory.mktemp("demo")
    seen: list[dict[str, int]] = []

    def show(state: dict[str, Progress]) -> None:
        seen.append({name: arm.step for name, arm in state.items()})

    return folder, seen, demo(folder, settings=TINY, show=show).summary


def test_it_leaves_two_runs_a_page_and_ten_lines(tiny: tuple[Path, list[dict[str, int]], list[str]]) -> None:
    folder, seen, lines = tiny
    assert len(lines) == 10
    assert (folder / "summary.txt").read_text().splitlines() == lines
    page = (folder / "report.html").read_text()
    assert "What these runs share" in page
    assert len(list((folder / "figures").glob("*.png"))) >= 8
    grok, placebo = se.load(folder / "grokking"), se.load(folder / "placebo")
    assert grok.steps[0] == placebo.steps[0] == 25
    assert grok.decay_products is not None
    assert max(arm["placebo"] for arm in seen) == placebo.metrics["test_accuracy"][0][-1]
    # the arms differ in their labels alone: the same start
    assert grok.theta_norm2[0, 0] == pytest.approx(placebo.theta_norm2[0, 0], rel=0.05)


def test_a_finished_demo_is_taken_up(tiny: tuple[Path, list[dict[str, int]], list[str]]) -> None:
    folder, _, lines = tiny
    before = (folder / "grokking" / "recording.jsonl").read_bytes()
    assert demo(folder, settings=TINY).summary == lines
    assert (folder / "grokking" / "recording.jsonl").read_bytes() == before


def test_other_settings_are_refused(tiny: tuple[Path, list[dict[str, int]], list[str]]) -> None:
    with pytest.raises(SettingError, match="seed"):
        demo(tiny[0], seed=7, settings=TINY)
    with pytest.raises(SettingError, match="train_fraction"):
        demo(tiny[0], settings={**TINY, "train_fraction": 2.0})


def history(seed: int, emerges: int | None, accuracy_from: int | None) -> Recording:
    """Drift that dies by step 1000, then noise; from ``emerges`` on, a constant direction again."""
    rng = np.random.default_rng(seed)
    n, p, lags = 160, 4000, 19
    e = np.zeros(p)
    e[0] = 1.0
    rows = rng.standard_normal((n, p)) / np.sqrt(p)
    for t in range(n):
        if t < 40:
            rows[t] += 3.0 * e
        elif emerges is not None and t >= emerges:
            rows[t] += 1.5 * e
    theta = np.cumsum(rows, axis=0) - 200.0 * e
    writer = RecordingWriter(None)
    writer.write(
        "segment", segment=0, step=0, reason="start", blocks=["all"], block_info=[], lags=lags, momentum=0.0,
        update_dtype="float64", every=25, n_parameters=p, groups=[],
    )  # fmt: skip
    for t in range(n):
        products = np.full((1, lags + 1), np.nan)
        for lag in range(min(t, lags) + 1):
            products[0, lag] = rows[t] @ rows[t - lag]
        writer.write(
            "row", t=t, segment=0, step=25 * (t + 1), n_steps=25, lr_sum=[0.025], products=products,
            theta_dot=[theta[t] @ rows[t]], theta_norm2=[theta[t] @ theta[t]], unchanged=[0], nonfinite=[0],
            flags=[], seconds=0.0,
        )  # fmt: skip
        step = 25 * (t + 1)
        if step % 100 == 0:
            test = 1.0 if accuracy_from is not None and step >= accuracy_from else 0.01
            writer.write("metrics", step=step, values={"train_accuracy": float(step >= 500), "test_accuracy": test})
    return Recording.from_log(writer.log())


def test_measurements_find_what_was_planted() -> None:
    grok, placebo = history(0, emerges=100, accuracy_from=2700), history(1, None, None)
    a, b = measure(grok, 2700, 2700), measure(placebo, 2700, 2700)
    assert a.memorised == b.memorised == 500
    assert (a.half, a.grokked, b.half, b.grokked) == (2700, 2900, None, None)
    # the drift ends with update 40; the last window that holds a row of it ends 9 updates later
    assert a.silent is not None
    assert 1000 < a.silent <= 25 * (40 + 9 + 3)
    # three windows in a row once the direction is back: within half a window of its return
    assert a.emerged is not None
    assert 2500 < a.emerged <= 25 * (100 + 5 + 3)
    assert b.emerged is None
    # disjoint windows agree by the signal's share of the energy, W m^2 / (W m^2 + 1): 0.957 at m = 1.5
    assert a.lag_overlap == pytest.approx(0.957, abs=0.03)
    assert b.lag_overlap < 0.1
    assert a.decay_cosine > 0.9
    lines = summary(grok, placebo)
    assert len(lines) == 10
    assert any(line.startswith("Only the grokking run: the gap") for line in lines)


def test_summary_says_when_nothing_emerged() -> None:
    lines = summary(history(2, None, None), history(3, None, None))
    assert any(line.startswith("Not seen here") for line in lines)
    assert any("never" in line for line in lines)
