"""``spectraledge evaluate`` on a few small runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from spectraledge.cli.evaluate import evaluate, subjects_of
from spectraledge.errors import SettingError
from spectraledge.predictions.runs import find_runs
from spectraledge.recording import RecordingWriter

app = typer.Typer()
app.command()(evaluate)

T, LAGS, EVERY = 40, 7, 10
WINDOW = ["--window", "4", "--draws", "50"]


def record(folder, seed, *, event=None, close=True, accuracy=True, **settings):
    """A run of noise whose test accuracy is 1 from row ``event`` on."""
    rng = np.random.default_rng(seed + 1000 * len(folder.name))
    x = rng.normal(size=(T, 40)) * 0.1 + 0.05
    folder.mkdir(parents=True)
    table = {
        "experiment": "modular/add",
        "settings": {"seed": seed, "weight_decay": 1.0, "labels": "true"} | settings,
    }
    (folder / "config.json").write_text(json.dumps(table))
    writer = RecordingWriter(folder, header_meta={})
    writer.write(
        "segment", segment=0, step=0, reason="start", blocks=["a"], block_info=[{"name": "a", "n_parameters": 40}],
        lags=LAGS, momentum=None, every=EVERY, n_parameters=40, update_dtype="float64",
    )  # fmt: skip
    for t in range(T):
        products = np.full((1, LAGS + 1), np.nan)
        for lag in range(min(t, LAGS) + 1):
            products[0, lag] = x[t] @ x[t - lag]
        writer.write(
            "row", t=t, segment=0, step=EVERY * (t + 1), n_steps=EVERY, lr_sum=np.array([0.1]), products=products,
            theta_dot=np.zeros(1), theta_norm2=np.ones(1), unchanged=np.zeros(1), nonfinite=np.zeros(1), flags=[],
            seconds=0.0,
        )  # fmt: skip
        if accuracy:
            reached = event is not None and t >= event
            writer.write("metrics", step=EVERY * (t + 1), values={"test_accuracy": 1.0 if reached else 0.0})
    if close:
        writer.write("close", step=EVERY * T)
    writer.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    top = tmp_path_factory.mktemp("grid")
    for seed in (42, 7):
        record(top / f"grok-{seed}", seed, event=30)
        record(top / f"placebo-{seed}", seed, labels="shuffled")
        record(top / f"never-{seed}", seed)
        record(top / f"no-decay-{seed}", seed, weight_decay=0.0)
    record(top / "going-on", 7, close=False)
    record(top / "mute", 7, accuracy=False)
    return top


def test_runs_become_subjects(runs):
    subjects, left_out = subjects_of(find_runs(runs))
    groups = {s.name: (s.group, s.event_step, s.seed) for s in subjects}
    assert groups["grok-42"] == ("modular/add", EVERY * 31, 42)
    assert groups["placebo-7"] == ("placebo", None, 7)
    assert groups["never-7"][0] == "never grokking"
    assert groups["no-decay-42"][0] == "no decay"
    assert left_out == {
        "going-on": "not over, and without the event so far",
        "mute": "no test accuracy was logged",
    }


def test_tables_name_signals_and_findings(runs):
    shown = CliRunner().invoke(app, [str(runs), *WINDOW])
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "Learned on seed 42, judged on seed 7." in text
    assert "mode2-emergence" in text
    assert "fixed clock" in text
    assert "not available: commutator onset (recorded in none of the runs)" in text
    assert "left out: going-on" in text


def test_json_is_json_and_nothing_else(runs):
    shown = CliRunner().invoke(app, [str(runs), *WINDOW, "--train-seeds", "each", "--event", "half", "--json"])
    assert shown.exit_code == 0, shown.output
    table = json.loads(shown.stdout)
    assert table["event"] == "half"
    assert table["split"]["kind"] == "leave one seed out"
    clock = next(s for s in table["signals"] if s["name"] == "fixed clock")
    assert clock["auc"]["value"] == 0.5
    assert set(clock["auc_by_group"]) == {"placebo", "no decay", "never grokking"}


def test_a_seed_that_is_none(runs):
    shown = CliRunner().invoke(app, [str(runs), "--train-seeds", "all"])
    assert isinstance(shown.exception, SettingError)
    assert "--train-seeds must be seeds such as 42" in str(shown.exception)
