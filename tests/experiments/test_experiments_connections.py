"""Two connection studies: lottery tickets from |v_1|, and a width sweep with and without mu-P."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import spectraledge as se
from spectraledge.cli.app import app
from spectraledge.errors import DataError, SettingError
from spectraledge.experiments.models.modular import ModularTransformer
from spectraledge.experiments.mup import mup_groups, mup_initialise, mup_optimizers
from spectraledge.experiments.optimizers import build_optimizers
from spectraledge.experiments.paired import paired, read_curve
from spectraledge.experiments.settings import ModularSettings
from spectraledge.experiments.ticket_effects import ticket_effects
from spectraledge.experiments.ticket_study import read_tickets, ticket_study
from spectraledge.experiments.width_effects import width_effects
from spectraledge.experiments.width_medians import window_medians
from spectraledge.experiments.width_study import read_widths, width_study

TINY: dict[str, Any] = {"p": 7, "d_model": 16, "layers": 1, "heads": 2, "d_hidden": 16, "batch_size": 8}
TICKETS: dict[str, Any] = {
    "settings": TINY,
    "at_step": 20,
    "fraction": (0.2, 0.5),
    "kinds": ("v1", "magnitude", "random", "random_magnitude", "magnitude_as_v1"),
    "steps": 20,
    "window": 4,
    "every": 4,
    "evaluate_every": 10,
}
WIDTHS: dict[str, Any] = {
    "settings": TINY,
    "widths": (8, 16, 32),
    "steps": 60,
    "step_range": (40, 60),
    "window": 4,
    "every": 4,
    "evaluate_every": 20,
}


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tickets")
    ticket_study("modular/add", out=out, seeds=(1, 2), **TICKETS)
    return out


@pytest.fixture(scope="module")
def widths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("widths")
    width_study("modular/add", out=out, seeds=(1, 2), **WIDTHS)
    return out


# tickets


def test_every_ticket_is_there_and_keeps_its_share(tickets: Path) -> None:
    rows = read_tickets(tickets)
    assert len(rows) == 2 * (1 + 2 * 5)
    (dense,) = (r for r in rows if r["seed"] == 1 and r["kind"] == "dense")
    for row in rows:
        assert row["steps"] == [0, 1, 10, 20]
        assert row["kept"] == round(row["fraction"] * dense["kept"])
        assert len(row["test_loss"]) == 4
        # LayerNorm gains and biases stay whole: cut off, nothing behind them could be learned.
        assert not any("norm" in name or "bias" in name for name in row["kept_by_tensor"])
    by_kind = {r["kind"]: r for r in rows if r["seed"] == 1 and r["fraction"] == 0.2}
    assert by_kind["v1"]["overlap"] == 1.0
    assert by_kind["random"]["kept_by_tensor"] == by_kind["v1"]["kept_by_tensor"]
    assert by_kind["magnitude_as_v1"]["kept_by_tensor"] == by_kind["v1"]["kept_by_tensor"]
    assert by_kind["random_magnitude"]["kept_by_tensor"] == by_kind["magnitude"]["kept_by_tensor"]
    ends = [r["test_loss"][-1] for r in by_kind.values()]
    assert len(set(ends)) == len(ends)


def test_a_dense_ticket_is_the_run_itself(tickets: Path) -> None:
    recording = se.run("modular/add", seed=1, settings={**TINY, "steps": 20, "eval_every": 10}, window=4, every=4)
    (dense,) = (r for r in read_tickets(tickets) if r["seed"] == 1 and r["kind"] == "dense")
    steps, losses = recording.metrics["test_loss"]
    assert dense["steps"][1:] == steps.tolist()
    assert dense["test_loss"][1:] == losses.tolist()


def test_tickets_start_from_the_masked_initialisation(tickets: Path) -> None:
    row = next(r for r in read_tickets(tickets) if r["kind"] == "v1" and r["fraction"] == 0.5)
    # Half of the entries gone: another network than the dense one before any step, and far from a trained one.
    dense = next(r for r in read_tickets(tickets) if r["kind"] == "dense")
    assert row["test_loss"][0] != dense["test_loss"][0]
    assert row["sigma"] == sorted(row["sigma"], reverse=True)
    recording = se.run("modular/add", seed=1, settings={**TINY, "steps": 20}, window=4, every=4, blocks="all")
    # The Gram of the recording and the ring's are sums of the same float32 updates.
    np.testing.assert_allclose(row["sigma"], recording.spectra(4).singular_values[-1][: len(row["sigma"])], rtol=1e-6)


def test_a_killed_ticket_study_goes_on_and_ends_alike(tickets: Path, tmp_path: Path) -> None:
    lines = (tickets / "seed-1.jsonl").read_text().splitlines(keepends=True)
    for name in ("study.json", "seed-2.jsonl"):
        (tmp_path / name).write_text((tickets / name).read_text())
    (tmp_path / "seed-1.jsonl").write_text("".join(lines[:7]) + lines[7][:50])
    told: list[tuple[int, int]] = []
    again = ticket_study(
        "modular/add", out=tmp_path, seeds=(1, 2), progress=lambda *done: told.append(done), **TICKETS
    )
    assert told == [(2, 2)]
    assert again == read_tickets(tickets)


def test_ticket_contrasts_of_a_study(tickets: Path) -> None:
    rng = np.random.default_rng(0)
    found = {(c.fraction, c.comparison): c for c in ticket_effects(read_tickets(tickets), rng=rng)}
    assert len(found) == 2 * 7
    rows = {(r["seed"], r["kind"], r["fraction"]): r["test_loss"][-1] for r in read_tickets(tickets)}
    expected = np.mean([rows[s, "v1", 0.2] - rows[s, "magnitude", 0.2] for s in (1, 2)])
    contrast = found[0.2, "v1 - magnitude"]
    assert contrast.mean == pytest.approx(expected, rel=1e-12)
    assert contrast.n_seeds == 2
    assert contrast.p_value >= 0.5  # two seeds: at least 2 of 4 sign patterns
    assert math.isnan(found[0.5, "v1 - dense"].overlap)


def test_a_planted_advantage_of_tickets_is_found() -> None:
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for seed in range(8):
        base = float(rng.normal())
        for kind, gain in (("dense", 1.0), ("v1", 0.4), ("magnitude", 0.1), ("random", 0.0)):
            end = base - gain + 0.05 * float(rng.normal())
            fraction = 1.0 if kind == "dense" else 0.1
            row = {"seed": seed, "kind": kind, "fraction": fraction, "overlap": None if kind == "dense" else 0.2}
            rows.append({**row, "steps": [0, 50], "test_loss": [base, end]})
    found = {c.comparison: c for c in ticket_effects(rows, rng=rng)}
    # Each difference has an error of .05 sqrt(2 / 8) = .025.
    assert found["v1 - magnitude"].mean == pytest.approx(-0.3, abs=3 * 0.025)
    assert found["v1 - random"].mean == pytest.approx(-0.4, abs=3 * 0.025)
    assert found["v1 - random"].high < 0.0
    assert found["v1 - random"].p_value == pytest.approx(2 / 256)
    assert found["v1 - magnitude"].overlap == pytest.approx(0.2)
    area = {c.comparison: c for c in ticket_effects(rows, reading="area", rng=rng)}
    assert area["v1 - random"].mean == pytest.approx(found["v1 - random"].mean / 2, rel=1e-9)


def test_ticket_studies_that_cannot_be_are_refused(tickets: Path, tmp_path: Path) -> None:
    for key, value in {
        "at_step": 22,
        "fraction": (0.0,),
        "kinds": ("largest",),
        "masked": "some",
        "steps": 25,
        "settings": {"seed": 3},
        "jobs": 0,
    }.items():
        with pytest.raises(SettingError):
            ticket_study("modular/add", out=tmp_path, seeds=(1,), **{**TICKETS, key: value})
    with pytest.raises(SettingError, match="at_step"):
        ticket_study("modular/add", out=tmp_path, seeds=(1,), **{**TICKETS, "at_step": 12})
    with pytest.raises(SettingError, match="fractions"):
        ticket_study("modular/add", out=tickets, seeds=(1,), **{**TICKETS, "fraction": 0.2})
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError):
        read_tickets(tmp_path)
    with pytest.raises(DataError, match="widths"):
        read_widths(tickets)
    rows = read_tickets(tickets)
    rng = np.random.default_rng(0)
    with pytest.raises(SettingError, match="outcome"):
        ticket_effects(rows, outcome="loss", rng=rng)
    with pytest.raises(SettingError, match="reading"):
        ticket_effects(rows, reading="rise", rng=rng)
    with pytest.raises(DataError, match="two kinds"):
        ticket_effects([r for r in rows if r["kind"] == "v1"], rng=rng)


# mu-P


def transformer(width: int, layers: int = 2) -> ModularTransformer:
    torch.manual_seed(0)
    return ModularTransformer(p=11, d_model=width, layers=layers, heads=width // 8, d_hidden=2 * width)


def test_groups_hold_every_parameter_once_and_shrink_alike() -> None:
    model = transformer(64)
    settings = ModularSettings(lr=1e-3, weight_decay=0.5)
    reading, others = mup_groups(model, settings, model.outer, 4.0)
    ids = [id(p) for group in (reading, others) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".")[-2] for p in reading["params"]} == {
        "self_attn",
        "out_proj",
        "linear1",
        "linear2",
        "head",
    }
    assert all(p.ndim == 2 for p in reading["params"])
    assert reading["lr"] == pytest.approx(2.5e-4)
    assert reading["lr"] * reading["weight_decay"] == pytest.approx(others["lr"] * others["weight_decay"])
    (optimizer,) = mup_optimizers(model, settings, model.outer, 4.0)
    assert [group["betas"] for group in optimizer.param_groups] == [settings.betas] * 2


def test_the_initialisation_is_scaled_as_said_and_nothing_else() -> None:
    plain, scaled = transformer(64), transformer(64)
    mup_initialise(scaled, 4.0)
    for (name, before), after in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        linear_bias = name.endswith("bias") and name.split(".")[-2] in ("linear1", "linear2", "head", "out_proj")
        factor = 0.5 if name == "head.weight" else 2.0 if name == "position" or linear_bias else 1.0
        torch.testing.assert_close(after, before * factor, rtol=0.0, atol=0.0)  # powers of two are exact


def test_at_the_base_width_nothing_differs() -> None:
    states = []
    for mup in (False, True):
        model = transformer(16)
        settings = ModularSettings(lr=1e-2)
        if mup:
            mup_initialise(model, 1.0)
            optimizers = mup_optimizers(model, settings, model.outer, 1.0)
        else:
            optimizers = build_optimizers(model, settings, model.outer)
        step(model, optimizers, 3)
        states.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def step(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], steps: int) -> None:
    tokens = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    for _ in range(steps):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens), tokens.sum(1) % 11).backward()
        for optimizer in optimizers:
            optimizer.step()


def test_logits_move_alike_at_all_widths_under_mup_and_grow_without() -> None:
    """The coordinate check: change of the logits by two steps, mean size, at widths 32 and 512."""
    tokens = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    moved: dict[bool, list[float]] = {False: [], True: []}
    settings = ModularSettings(lr=3e-3, weight_decay=0.0)
    for mup in (False, True):
        for width in (32, 512):
            model, ratio = transformer(width, layers=1), width / 32
            if mup:
                mup_initialise(model, ratio)
                optimizers = mup_optimizers(model, settings, model.outer, ratio)
            else:
                optimizers = build_optimizers(model, settings, model.outer)
            with torch.no_grad():
                before = model(tokens)
            step(model, optimizers, 2)
            with torch.no_grad():
                moved[mup].append(float((model(tokens) - before).abs().mean()))
    # Theory at 16 times the width: 16-fold without mu-P at first (less once the loss bends), 1-fold with it.
    assert moved[False][1] / moved[False][0] > 4.0
    assert 0.5 < moved[True][1] / moved[True][0] < 2.0


def test_mup_refuses_what_it_cannot_scale() -> None:
    model = transformer(16)
    with pytest.raises(SettingError, match="ratio"):
        mup_initialise(model, 0.0)
    with pytest.raises(SettingError, match="adamw"):
        mup_groups(model, ModularSettings(optimizer="sgd"), (), 2.0)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"head\.weight"):
        mup_initialise(torch.nn.Linear(2, 2), 2.0)


# widths


def test_every_width_is_there_and_the_base_is_one_run(widths: Path) -> None:
    rows = read_widths(widths)
    assert [(r["width"], r["parametrisation"]) for r in rows] == [
        (w, arm) for w in (8, 16, 32) for arm in ("standard", "mup")
    ] * 2
    at = {(r["width"], r["parametrisation"]): r for r in rows if r["seed"] == 1}
    assert at[16, "standard"] == {**at[16, "mup"], "parametrisation": "standard"}
    assert at[32, "standard"]["test_loss"] != at[32, "mup"]["test_loss"]
    assert at[8, "mup"]["width_ratio"] == 0.5
    for row in rows:
        assert row["steps"] == [1, 20, 40, 60]
        assert row["n_windows"] == 6  # windows end at 40, 44, .. 60
        assert row["ratio"] >= 1.0
        assert 1 <= row["k_star"] <= 2
        assert row["a_rel"] > 0.0


def test_the_base_run_is_the_catalogued_one(widths: Path) -> None:
    settings = {**TINY, "steps": 60, "eval_every": 20, "stop_after_grok": None}
    recording = se.run("modular/add", seed=2, settings=settings, window=4, every=4, blocks="all")
    (row,) = (r for r in read_widths(widths) if (r["seed"], r["width"], r["parametrisation"]) == (2, 16, "standard"))
    assert row["test_loss"] == recording.metrics["test_loss"][1].tolist()
    expected = window_medians(recording, 4, 40, 60)
    assert {key: row[key] for key in expected} == expected
    gap = recording.spectra(4).gap("guarded")
    assert row["ratio"] == np.median(gap.ratio[(gap.steps >= 40) & (gap.steps <= 60)])
    with pytest.raises(DataError, match="must end in steps"):
        window_medians(recording, 4, 1, 3)


def test_a_killed_width_study_goes_on_and_ends_alike(widths: Path, tmp_path: Path) -> None:
    lines = (widths / "seed-1.jsonl").read_text().splitlines(keepends=True)
    for name in ("study.json", "seed-2.jsonl"):
        (tmp_path / name).write_text((widths / name).read_text())
    (tmp_path / "seed-1.jsonl").write_text("".join(lines[:3]) + lines[3][:40])
    assert width_study("modular/add", out=tmp_path, seeds=(1, 2), **WIDTHS) == read_widths(widths)


def test_planted_slopes_are_found() -> None:
    rng = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for seed in range(6):
        own = float(rng.normal(0.0, 0.3))
        for width in (64, 128, 256):
            for arm, exponent in (("standard", 0.5), ("mup", 0.0)):
                r = math.exp(1.0 + own + exponent * math.log(width / 64) + 0.02 * float(rng.normal()))
                rows.append(
                    {"seed": seed, "width": width, "parametrisation": arm, "ratio": r}
                    | {"k_star": 2.0, "a_rel": 0.1, "p_eff": None}
                )
    found = {(c.quantity, c.parametrisation): c for c in width_effects(rows, rng=rng)}
    # A seed's slope has an error of .02 / (sqrt(2) ln 2) = .02; over 6 seeds .008, of the difference .012.
    difference = found["log R", "standard - mup"]
    assert difference.slope == pytest.approx(0.5, abs=3 * 0.012)
    assert difference.low > 0.0
    assert difference.p_value == pytest.approx(2 / 64)
    assert found["log R", "standard"].slope == pytest.approx(0.5, abs=3 * 0.008)
    assert found["log R", "mup"].low < 0.0 < found["log R", "mup"].high
    assert found["k*", "mup"].slope == 0.0
    assert found["log A_rel", "standard"].slope == pytest.approx(0.0, abs=1e-12)
    assert not any(quantity == "log P_eff" for quantity, _ in found)
    with pytest.raises(DataError, match="3 runs"):
        width_effects(rows[:2], rng=rng)


def test_width_studies_that_cannot_be_are_refused(widths: Path, tmp_path: Path) -> None:
    for key, value in {
        "widths": (16,),
        "parametrisation": ("other",),
        "step_range": (20, 60),
        "settings": {**TINY, "optimizer": "sgd"},
    }.items():
        with pytest.raises(SettingError):
            width_study("modular/add", out=tmp_path, seeds=(1,), **{**WIDTHS, key: value})
    with pytest.raises(SettingError, match="width of a head"):
        width_study("modular/add", out=tmp_path, seeds=(1,), **{**WIDTHS, "widths": (8, 12)})
    with pytest.raises(SettingError, match="equal lengths"):
        width_study("modular/add", out=tmp_path, seeds=(1,), **{**WIDTHS, "settings": {**TINY, "steps": 60}})
    with pytest.raises(SettingError, match="modular"):
        width_study("quadratic", out=tmp_path, seeds=(1,), **{**WIDTHS, "settings": {}})
    with pytest.raises(SettingError, match="last"):
        width_study("modular/add", out=widths, seeds=(1,), **{**WIDTHS, "step_range": (40, 56)})
    assert not list(tmp_path.iterdir())


# what both share, and the commands


def test_pairs_without_a_seed_or_with_one() -> None:
    rng = np.random.default_rng(0)
    assert paired([], rng=rng).n_seeds == 0
    alone = paired([2.0], rng=rng)
    assert (alone.mean, alone.p_value) == (2.0, 1.0)
    assert math.isnan(alone.low)
    assert math.isnan(read_curve({"steps": [0, 1], "test_loss": [1.0, None]}, "test_loss", "horizon"))


def test_commands_show_finished_studies(tickets: Path, widths: Path) -> None:
    shared = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    shared += ["--seeds", "1-2", "--window", "4", "--every", "4"]
    words = ["tickets", "modular/add", "--out", str(tickets), *shared, "--at-step", "20", "--steps", "20"]
    words += ["--evaluate-every", "10", "--fraction", "0.2", "--fraction", "0.5"]
    words += [word for kind in TICKETS["kinds"] for word in ("--kind", kind)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "v1 - magnitude" in shown.output
    content = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert content["tickets"] == 22
    assert len(content["contrasts"]) == 2 * 14
    words = ["widths", "modular/add", "--out", str(widths), *shared, "--steps", "60", "--first", "40"]
    words += ["--evaluate-every", "20", "--width", "8", "--width", "16", "--width", "32"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "standard - mup" in shown.output
    assert len(json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["runs"]) == 12
