"""What precedes grokking: derived products, causal rules, the protocol, frozen rules and their judgement."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from precursor_runs import DECAY, EVERY, LAGS, record, walk, write_grid
from typer.testing import CliRunner

from spectraledge.cli.app import app
from spectraledge.detect.precursors.criterion import choose, eligible, merit
from spectraledge.detect.precursors.final import accuracy_at, compare, judge_final
from spectraledge.detect.precursors.frozen import freeze, load_frozen
from spectraledge.detect.precursors.history import History, Part
from spectraledge.detect.precursors.products import all_products, gradient_part, turning
from spectraledge.detect.precursors.protocol import fit_threshold, judge
from spectraledge.detect.precursors.rules import FORMS, Judging, directed, is_moving, sustained
from spectraledge.detect.precursors.runs import load_runs, make_run
from spectraledge.detect.precursors.search import matched_area, search
from spectraledge.detect.precursors.statistics import BASELINES, CANDIDATES, STATISTICS
from spectraledge.errors import DataError, SettingError

JUDGING = Judging(horizon=120 * EVERY, burn_in=45)
NAMES = ["turning over 2W, head", "straightness, updates, head", *BASELINES]


@pytest.fixture(scope="module")
def trajectory():
    theta, gradient = walk(3, 60, drift_from=40)
    return theta, gradient, record(None, 3, 60, drift_from=40, event=None)


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grids")
    return write_grid(folder / "development", [1, 2, 3]), write_grid(folder / "final", [11, 12])


@pytest.fixture(scope="module")
def found(grids):
    runs, left_out = load_runs(grids[0], horizon=JUDGING.horizon)
    assert not left_out
    return search(runs, JUDGING, statistics=NAMES, combinations=False)


def make(seed: int, event: float | None, alarm_steps: int = 120):
    """A run with a given event, for counting."""
    run = make_run(
        f"cell-{seed}", record(None, seed, 24, drift_from=None, event=None), {"seed": seed}, "", 0.0, window=4
    )
    return dataclasses.replace(run, event=event, end=float(alarm_steps * EVERY))


def test_all_products_follow_from_what_is_recorded(trajectory):
    theta, _, recording = trajectory
    delta, later = np.diff(theta, axis=0), theta[1:]
    found = all_products(recording.products[:, 0], recording.theta_dot[:, 0], recording.theta_norm2[:, 0])
    scale = float(np.square(later).sum(axis=1).max())
    for t in (25, 40, 59):
        for lag in (0, 1, 7, LAGS):
            expected = {
                "forward": later[t] @ delta[t - lag],
                "backward": delta[t] @ later[t - lag],
                "parameters": later[t] @ later[t - lag],
            }
            for name, value in expected.items():
                # sums of up to 20 products, each right to 1e-16 of the squared norms
                assert getattr(found, name)[t, lag] == pytest.approx(value, abs=1e-12 * scale), (name, t, lag)


def test_the_gradient_part_is_exact_on_straight_lines(trajectory):
    _, gradient, recording = trajectory
    products = all_products(recording.products[:, 0], recording.theta_dot[:, 0], recording.theta_norm2[:, 0])
    found = gradient_part(products, np.full(60, DECAY), recording.n_steps)
    for t in (20, 41, 59):
        for lag in (0, 1, 12):
            assert found.band[t, lag] == pytest.approx(gradient[t] @ gradient[t - lag], rel=1e-10, abs=1e-11)


def test_turning_is_the_angle_of_the_parameters(trajectory):
    theta, _, recording = trajectory
    later = theta[1:]
    for lag in (1, 10, 20):
        found = turning(recording.products[:, 0], recording.theta_norm2[:, 0], lag)
        assert np.isnan(found[:lag]).all()
        cosine = later[50] @ later[50 - lag] / np.linalg.norm(later[50]) / np.linalg.norm(later[50 - lag])
        assert found[50] == pytest.approx(1 - cosine, abs=1e-12)
    with pytest.raises(SettingError, match="lag must lie"):
        turning(recording.products[:, 0], recording.theta_norm2[:, 0], 21)


@pytest.mark.parametrize("name", list(STATISTICS))
def test_statistics_do_not_look_ahead(trajectory, name):
    whole = trajectory[2]
    cut = 50
    part = dataclasses.replace(
        whole,
        **{
            key: getattr(whole, key)[:cut]
            for key in ("steps", "n_steps", "products", "theta_dot", "theta_norm2", "lr_sum", "segment", "flags")
        },
        metrics={k: (s[s <= cut * EVERY], v[s <= cut * EVERY]) for k, (s, v) in whole.metrics.items()},
    )
    a, b = STATISTICS[name].compute(History(part)), STATISTICS[name].compute(History(whole))
    assert a is not None
    assert b is not None
    assert a.shape == (cut,)
    assert np.isfinite(a[LAGS + 1 :]).any()
    np.testing.assert_allclose(a, b[:cut], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_forms_do_not_look_ahead(form):
    x = np.random.default_rng(0).normal(size=80)
    whole = directed(x, form, signed=True, start=20, memorised=30)
    np.testing.assert_array_equal(directed(x[:50], form, signed=True, start=20, memorised=30), whole[:50])


def test_a_crawl_is_not_remembered():
    movement = np.r_[np.full(30, 2.0), np.full(20, 0.1), np.full(10, 2.0)]
    moving = is_moving(movement, 5)
    np.testing.assert_array_equal(moving, (movement > 1) & (np.arange(60) >= 5))
    straight = np.r_[np.full(30, 0.1), np.full(20, 0.9), np.full(10, 0.3)]
    found = directed(straight, "moving rise", signed=False, start=5, moving=moving)
    assert np.isnan(found[30:50]).all()
    np.testing.assert_allclose(found[50:], np.log(3))
    assert directed(straight, "rise", signed=False, start=5)[40] == pytest.approx(np.log(9))


def test_an_unknown_form():
    with pytest.raises(SettingError, match="form must be one of"):
        directed(np.ones(3), "sideways", signed=True)  # type: ignore[arg-type]


def test_an_alarm_takes_all_of_its_snapshots():
    steps = np.arange(1, 8) * 25
    judging = Judging(sustain=2, burn_in=1, horizon=150)
    x = np.array([9.0, 9.0, 1.0, 3.0, np.nan, 5.0, 5.0])
    # the first is before the burn-in, the last beyond the horizon, a missing value breaks the row
    np.testing.assert_array_equal(
        sustained(x, steps, judging), [-np.inf, -np.inf, 1.0, 1.0, -np.inf, -np.inf, -np.inf]
    )


def test_a_part_that_is_not_there(trajectory):
    recording = dataclasses.replace(
        trajectory[2], blocks=["all", "a", "b", "c"], meta={**trajectory[2].meta, "block_info": {}}
    )  # nothing says what the blocks are
    history = History(recording)
    assert history.part("head") is None
    assert CANDIDATES["turning over 2W, head"].compute(history) is None
    assert isinstance(history.part("all"), Part)


class TestProtocol:
    def test_threshold_of_few_runs_lets_none_pass(self):
        runs = [make(i, 2000.0 if i < 2 else None) for i in range(8)]
        traces = np.array([[5.0], [6.0], [1.0], [2.0], [3.0], [0.0], [0.5], [0.7]])
        assert 3.0 < fit_threshold(runs, traces, JUDGING) < 3.0 + 1e-12

    def test_threshold_of_many_runs_keeps_the_rate_on_new_ones(self):
        one, none = make(0, 2000.0), make(1, None)
        rng = np.random.default_rng(0)
        rates = []
        for _ in range(300):
            scores = rng.normal(size=(60, 1))
            threshold = fit_threshold([one, *[none] * 59], scores, JUDGING)
            rates.append((rng.normal(size=200) >= threshold).mean())
        # (k + 1) / (n + 1) = 3/60 with n = 59, k = 2; the mean of 300 such rates is known to 0.002
        assert np.mean(rates) == pytest.approx(0.05, abs=0.006)

    def test_runs_of_one_kind(self):
        with pytest.raises(DataError, match="runs with the event and runs without"):
            fit_threshold([make(0, None)], np.zeros((1, 1)), JUDGING)

    def test_an_alarm_at_the_event_is_a_miss(self):
        runs = [make(0, 1000.0), make(1, 1000.0), make(2, 1000.0), make(3, None), make(4, None)]
        verdict = judge(runs, np.array([500.0, 1000.0, np.nan, 300.0, np.nan]))
        assert verdict.hits.tolist() == [True, False, False, True, False]
        assert (verdict.table.hits, verdict.table.false_alarms) == (1, 1)
        assert verdict.cells == {"cell": (2, 5)}

    def test_median_lead_counts_misses(self):
        runs = [make(i, 1000.0) for i in range(3)] + [make(9, None)]
        verdict = judge(runs, np.array([400.0, 700.0, np.nan, np.nan]))
        assert verdict.leads.median == 300.0
        assert verdict.leads.share == pytest.approx(0.3)

    def test_matched_area_ignores_length(self):
        runs = [make(0, 300.0), make(1, None)]
        steps = runs[0].history.steps
        clock = np.stack([steps, steps]).astype(float)
        assert matched_area(runs, clock, 0.0) == 0.5


def test_the_planted_drift_is_found_and_noise_is_not(found):
    entry = found.entries["straightness, updates, head (high)"]
    assert entry.held_out.table.hits == 6
    assert entry.held_out.table.false_alarms <= 1  # leaving a seed out, the largest of all is always above the others
    assert found.entries["fixed clock (high)"].held_out.table.hits == 0
    assert found.winner in found.entries
    assert found.entries[found.winner].group == "candidate"
    alarms = entry.held_out.alarms[np.array([run.event is not None for run in found.runs])]
    assert (alarms >= 60 * EVERY).all()  # not before it begins


def test_rules_that_are_not_eligible(found):
    entry = found.entries["straightness, updates, head (high)"]
    assert eligible(entry, JUDGING)
    at_once = dataclasses.replace(entry, at_start=entry.held_out.table.hits)
    assert not eligible(at_once, JUDGING)
    assert eligible(dataclasses.replace(at_once, group="baseline"), JUDGING)  # what is to be beaten keeps its hits
    assert not eligible(dataclasses.replace(entry, silent=1), JUDGING)
    # however much it finds, and however early
    assert choose([at_once, entry], JUDGING) == entry.rule.name
    assert merit(at_once, JUDGING)[1:] == merit(entry, JUDGING)[1:]


def test_hits_at_the_first_snapshot_are_counted(grids):
    runs, _ = load_runs(grids[0], horizon=JUDGING.horizon)
    late = dataclasses.replace(JUDGING, burn_in=70)  # the drift has long begun: rules alarm as soon as they may
    entry = search(runs, late, statistics=NAMES, combinations=False).entries["straightness, updates, head (high)"]
    assert entry.at_start == entry.held_out.table.hits == 6


def test_frozen_rules_come_back_and_judge_others(found, grids, tmp_path):
    frozen = freeze(found)
    frozen.save(tmp_path / "rules.json")
    again = load_frozen(tmp_path / "rules.json")
    assert again.rules.keys() == frozen.rules.keys()
    assert again.seeds == (1, 2, 3)
    assert len(again.development) == 12
    assert {entry.group for entry in again.rules.values()} == {"candidate", "baseline", "outcome"}
    runs, _ = load_runs(grids[1], horizon=JUDGING.horizon, refused=again.seeds)
    a, b = judge_final(frozen, runs, n_boot=200), judge_final(again, runs, n_boot=200)
    winner = b.judged[b.winner].verdict
    assert winner.table.hits == 4
    assert winner.leads.median > 0
    np.testing.assert_array_equal(winner.alarms, a.judged[a.winner].verdict.alarms)
    assert {c.baseline for c in b.comparisons} == {n for n, r in again.rules.items() if r.group != "candidate"}
    clock = next(c for c in b.comparisons if c.baseline.startswith("fixed clock"))
    assert (clock.only_winner, clock.only_baseline, clock.p) == (4, 0, 0.125)  # 2 / 2^4


def test_a_rule_compared_with_itself(found, grids):
    runs, _ = load_runs(grids[1], horizon=JUDGING.horizon)
    outcome = judge_final(freeze(found), runs, n_boot=0)
    same = compare(runs, outcome.judged[outcome.winner], outcome.judged[outcome.winner], n_boot=0)
    assert (same.only_winner, same.only_baseline, same.p, same.warning) == (0, 0, 1.0, 0.0)


def test_accuracy_at_an_alarm_is_the_last_one_logged(found):
    run = next(run for run in found.runs if run.event is not None)
    steps, values = run.history.recording.metrics["test_accuracy"]
    at = float(steps[3] + EVERY)  # logged every four updates
    np.testing.assert_array_equal(accuracy_at([run, run], np.array([at, np.nan])), [values[3], np.nan])
    assert accuracy_at([run], np.array([float(steps[4])]))[0] == values[4]


def test_development_seeds_are_never_judged(found, grids):
    with pytest.raises(DataError, match="other seeds"):
        load_runs(grids[0], horizon=JUDGING.horizon, refused=(2,))
    with pytest.raises(DataError, match="other seeds"):
        judge_final(freeze(found), found.runs)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "other"}', "[1]"])
def test_files_without_rules(tmp_path, text):
    (tmp_path / "rules.json").write_text(text)
    with pytest.raises(DataError, match="must hold frozen rules"):
        load_frozen(tmp_path / "rules.json")


def test_runs_that_cannot_be_judged(tmp_path):
    whole = record(tmp_path / "a-1", 1, 40, drift_from=None, event=None)
    settings = {"seed": 1}
    assert make_run("a-1", dataclasses.replace(whole, closed=False), settings, "", 0, 10) == "not over"
    assert "1000 of 5000 steps" in make_run("a-1", whole, settings, "", 5000, 10)
    assert "no test accuracy" in make_run("a-1", dataclasses.replace(whole, metrics={}), settings, "", 0, 10)
    with pytest.raises(DataError, match="must say its seed"):
        make_run("a-1", whole, {}, "", 0, 10)
    with pytest.raises(DataError, match="a run that is over"):
        load_runs(tmp_path, horizon=5000)
    shuffled = make_run(
        "b-1", record(None, 1, 40, drift_from=None, event=20), {"seed": 1, "labels": "shuffled"}, "", 0, 10
    )
    assert shuffled.event is None  # labels drawn at random cannot be learned, whatever the accuracy


def test_on_the_command_line(tmp_path, grids, monkeypatch):
    import spectraledge.detect.precursors.rules as rules
    import spectraledge.detect.precursors.search as searching

    monkeypatch.setattr(searching, "STATISTICS", {name: STATISTICS[name] for name in NAMES})
    monkeypatch.setattr(searching, "COMBINATIONS", {})
    monkeypatch.setattr(rules.Judging.__init__, "__defaults__", (10, 3, 20, 45, 120.0 * EVERY, 0.05))
    runner = CliRunner()
    rules_file = tmp_path / "rules.json"
    made = runner.invoke(app, ["precursors", str(grids[0]), "--freeze", str(rules_file), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["runs"] == 12
    figure = tmp_path / "figure.png"
    judged = runner.invoke(
        app,
        ["precursors", "--final", str(grids[1]), "--rules", str(rules_file), "--plot", str(figure), "--draws", "50"],
    )
    assert judged.exit_code == 0, judged.output
    assert "runs that no rule was made on" in judged.output
    assert figure.stat().st_size > 10_000
    neither = runner.invoke(app, ["precursors"])
    assert isinstance(neither.exception, SettingError)
