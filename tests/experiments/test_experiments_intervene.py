"""Interventions: what is changed and by how much, forks that differ by nothing else, and what is read off them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spectraledge as se
from spectraledge.errors import DataError, SettingError
from spectraledge.experiments import intervene_study as study_module
from spectraledge.experiments.intervene import Intervention, Mixer, parameters_like, window_directions
from spectraledge.experiments.intervene_effects import intervention_effects
from spectraledge.experiments.intervene_study import intervention_study, read_study
from spectraledge.experiments.momentum import Momentum
from spectraledge.experiments.tickets import (
    hold_masks,
    mask_overlap,
    matched_random_masks,
    random_masks,
    ticket_masks,
)
from spectraledge.experiments.vectors import combination, dot, norm, random_vector

# Directions are combinations of float32 updates, made unit: products of them are off by some 1e-6.
ROUGH = 1e-5

Optimizers = list[torch.optim.Optimizer]


def trained(kind: str = "adamw", steps: int = 12) -> tuple[nn.Module, Optimizers, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizers: Optimizers = (
        [torch.optim.AdamW(model.parameters(), lr=0.01)]
        if kind == "adamw"
        else [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)]
    )
    monitor = se.attach(model, optimizers, window=5, every=1, blocks="all", on_error="raise")
    train(model, optimizers, steps)
    return model, optimizers, monitor


def train(model: nn.Module, optimizers: Optimizers, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(torch.randn(16, 6, generator=generator)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def mixer(kind: str = "adamw", metric: Any = "update") -> tuple[Mixer, list[Any], Any, Any]:
    model, optimizers, monitor = trained(kind)
    _, directions, last = window_directions(monitor, 5)
    parameters = parameters_like(model, last)
    return Mixer(parameters, optimizers, directions, last, metric=metric), directions, parameters, optimizers


def copy(vector: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in vector.items()}


def test_directions_are_orthonormal_and_make_the_window() -> None:
    _, optimizers, monitor = trained()
    sigma, directions, last = window_directions(monitor, 5)
    gram = np.array([[dot(a, b) for b in directions] for a in directions])
    np.testing.assert_allclose(gram, np.eye(5), atol=ROUGH)
    assert np.all(np.diff(sigma) <= 0)
    # The last update lies in the span.
    assert sum(dot(v, last) ** 2 for v in directions) == pytest.approx(dot(last, last), rel=10 * ROUGH)
    assert [optimizer.state for optimizer in optimizers]


@pytest.mark.parametrize("position", [1, 2, 4, "span", "space"])
def test_a_step_has_the_norm_asked_for_whatever_the_position(position: Any) -> None:
    mix, directions, parameters, _ = mixer()
    before = copy(parameters)
    done = mix.apply("step", position, 0.5, np.random.default_rng(0))
    moved = combination([1.0, -1.0], [copy(parameters), before])
    last = mix._last_update
    # Parameters are float32 numbers near 0.3 and move by 0.005: relative rounding of some 1e-5.
    assert norm(moved) == pytest.approx(0.5 * norm(last), rel=1e-4)
    assert done.relative == pytest.approx(0.5, rel=1e-6)
    outside = dot(moved, moved) - sum(dot(v, moved) ** 2 for v in directions)
    assert (outside / dot(moved, moved) < 1e-3) == (position != "space")
    if isinstance(position, int):
        a, b = (dot(v, last) for v in directions[position - 1 : position + 1])
        c, d = (dot(v, moved) / norm(moved) for v in directions[position - 1 : position + 1])
        # Content goes from v_j to v_{j+1}, at right angles to what was there.
        assert c * a <= 0 <= d * b
        assert abs(a * c + b * d) < 1e-3 * math.hypot(a, b)


def test_a_step_does_not_depend_on_the_signs_of_directions() -> None:
    moved = []
    for signs in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        mix, directions, parameters, _ = mixer()
        for j, sign in zip((1, 2), signs, strict=True):
            directions[j] = combination([sign], [directions[j]])
        mix.apply("step", 2, 1.0, np.random.default_rng(0))
        moved.append(copy(parameters))
    for other in moved[1:]:
        assert all(torch.equal(moved[0][name], other[name]) for name in other)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("position", [1, 3, "span", "space"])
def test_a_rotation_of_momentum_keeps_its_norm(kind: str, position: Any) -> None:
    mix, directions, parameters, optimizers = mixer(kind)
    before = Momentum(parameters, optimizers).read()
    theta = copy(parameters)
    amount = 0.5 * mix.largest_norm("momentum", position)
    done = mix.apply("momentum", position, amount, np.random.default_rng(0))
    after = Momentum(parameters, optimizers).read()
    assert norm(after) == pytest.approx(norm(before), rel=ROUGH)
    assert norm(combination([1.0, -1.0], [after, before])) == pytest.approx(amount * norm(before), rel=1e-4)
    assert done.relative == pytest.approx(amount, rel=1e-4)
    assert all(torch.equal(theta[name], parameters[name]) for name in theta)
    if isinstance(position, int):
        for i, v in enumerate(directions):
            if i not in (position - 1, position):
                assert dot(v, after) == pytest.approx(dot(v, before), abs=ROUGH * norm(before))


def test_a_quarter_turn_exchanges_the_contents() -> None:
    mix, directions, parameters, optimizers = mixer()
    before = [abs(dot(v, Momentum(parameters, optimizers).read())) for v in directions]
    done = mix.apply("momentum", 2, 99.0, np.random.default_rng(0))
    after = [abs(dot(v, Momentum(parameters, optimizers).read())) for v in directions]
    assert done.angle == pytest.approx(math.pi / 2, rel=1e-4)
    scale = max(before)
    np.testing.assert_allclose(after[1:3], before[2:0:-1], atol=1e-4 * scale)


@pytest.mark.parametrize("position", [1, 2, 3, 4])
def test_closing_a_gap_makes_the_energies_equal(position: int) -> None:
    mix, directions, parameters, optimizers = mixer("sgd")
    before = [abs(dot(v, Momentum(parameters, optimizers).read())) for v in directions[position - 1 : position + 1]]
    half = mix.largest_norm("close_gap", position) / 2
    mix.apply("close_gap", position, half, np.random.default_rng(0))
    part = [abs(dot(v, Momentum(parameters, optimizers).read())) for v in directions[position - 1 : position + 1]]
    assert abs(part[0] - part[1]) < abs(before[0] - before[1])
    mix.apply("close_gap", position, 99.0, np.random.default_rng(0))
    a, b = (abs(dot(v, Momentum(parameters, optimizers).read())) for v in directions[position - 1 : position + 1])
    assert a == pytest.approx(b, rel=1e-3)


def test_adam_is_rotated_where_it_moves() -> None:
    for metric, where in (("update", 0), ("buffer", 1)):
        mix, _, parameters, optimizers = mixer(metric=metric)
        before = [norm(Momentum(parameters, optimizers, metric=m).read()) for m in ("update", "buffer")]
        mix.apply("momentum", 1, 99.0, np.random.default_rng(0))
        after = [norm(Momentum(parameters, optimizers, metric=m).read()) for m in ("update", "buffer")]
        kept = [abs(x / y - 1) < 1e-4 for x, y in zip(after, before, strict=True)]
        assert kept[where]
        assert not kept[1 - where]  # the preconditioner is no multiple of the identity


def test_momentum_as_displacement_is_what_adam_adds() -> None:
    model, optimizers, _ = trained()
    names = dict(model.named_parameters())
    before = copy(names)
    u = None

    def read(*_: object) -> None:
        nonlocal u
        u = Momentum(names, optimizers).read()

    handle = optimizers[0].register_step_post_hook(read)
    train(model, optimizers, 1)
    handle.remove()
    assert u is not None
    for name in names:  # decoupled decay 0.01 shrinks first
        expected = before[name] * (1 - 0.01 * 0.01) - u[name]
        torch.testing.assert_close(names[name].detach(), expected, rtol=1e-5, atol=1e-7)


def test_an_intervention_on_a_run_is_made_once_and_at_its_step() -> None:
    model, optimizers, monitor = trained()
    change = Intervention(
        monitor,
        model,
        optimizers,
        kind="step",
        position="gap",
        amount=1.0,
        steps=[14],
        rng=np.random.default_rng(0),
    )
    with change:
        train(model, optimizers, 4)
    train(model, optimizers, 2)
    ((step, done),) = change.applied
    assert step == 14
    assert done.position in (1, 2)  # guarded: at most W // 2
    assert done.relative == pytest.approx(1.0, rel=1e-5)


def test_what_cannot_be_done_is_refused() -> None:
    mix, _, parameters, _ = mixer()
    rng = np.random.default_rng(0)
    for kind, position, amount in (("push", 1, 1.0), ("step", 5, 1.0), ("step", "gap", 1.0), ("step", 1, -1.0)):
        with pytest.raises(SettingError):
            mix.apply(kind, position, amount, rng)  # type: ignore[arg-type]
    assert mix.apply("step", "none", 0.0, rng).norm == 0.0
    plain = torch.optim.SGD(parameters.values(), lr=0.1)
    with pytest.raises(SettingError, match="keeps momentum"):
        Momentum(parameters, [plain])
    with pytest.raises(SettingError, match="metric"):
        Momentum(parameters, [plain], metric="other")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="same tensors"):
        dot({"a": torch.ones(1)}, {"b": torch.ones(1)})


def test_random_vectors_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    like = {"a": torch.zeros(3, 2), "b": torch.zeros(4, dtype=torch.float64)}
    first, second = (random_vector(like, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first["a"], second["a"])
    assert norm(first) == pytest.approx(1.0, abs=1e-6)


# the study

TINY = {
    "p": 5,
    "d_model": 8,
    "layers": 1,
    "heads": 2,
    "d_hidden": 8,
    "batch_size": 4,
    "steps": 60,
}
DESIGN: dict[str, Any] = {
    "settings": TINY,
    "kinds": ("step", "momentum"),
    "positions": (1, 2, "space"),
    "norms": (0.5,),
    "times": (12, 16),
    "horizon": 12,
    "window": 3,
    "every": 4,
    "evaluate_every": 6,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    intervention_study("modular/add", out=out, seeds=(1, 2), **DESIGN)
    return out


def test_every_cell_is_there_with_equal_norms(study: Path) -> None:
    rows = read_study(study)
    assert len(rows) == 2 * 2 * (1 + 2 * 3)
    for kind in ("step", "momentum"):
        for seed, time in ((1, 12), (2, 16)):
            cells = [r for r in rows if (r["seed"], r["time"], r["kind"]) == (seed, time, kind) and r["amount"]]
            assert {r["position"] for r in cells} == {1, 2, "space"}
            assert np.ptp([r["relative"] for r in cells]) < 1e-4
            assert all(r["steps"] == [time, time + 6, time + 12] for r in cells)
            assert all(len(r["test_loss"]) == 3 and len(r["sigma_after"]) == 3 for r in cells)
    moved = [r["test_loss"][0] for r in rows if r["kind"] == "step" and r["seed"] == 1 and r["time"] == 12]
    assert len(set(moved)) == len(moved)  # a step shows at once,
    still = [r["test_loss"][0] for r in rows if r["kind"] == "momentum" and r["seed"] == 1 and r["time"] == 12]
    assert len(set(still)) == 1  # momentum only later
    ends = [r["test_loss"][-1] for r in rows if r["kind"] == "momentum" and r["seed"] == 1 and r["time"] == 12]
    assert len(set(ends)) == len(ends)


def test_an_untouched_fork_is_the_run_itself(study: Path) -> None:
    recording = se.run("modular/add", seed=1, settings={**TINY, "eval_every": 4}, window=3, every=4)
    steps, losses = recording.metrics["test_loss"]
    expected = dict(zip(steps.tolist(), losses.tolist(), strict=True))
    (cell,) = (r for r in read_study(study) if r["seed"] == 1 and r["time"] == 12 and r["position"] == "none")
    assert cell["test_loss"][0] == expected[12]
    assert cell["test_loss"][-1] == expected[24]


def test_a_killed_study_goes_on_and_ends_alike(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (study / "seed-1.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "study.json").write_text((study / "study.json").read_text())
    (tmp_path / "seed-1.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    (tmp_path / "seed-2.jsonl").write_text((study / "seed-2.jsonl").read_text())
    ran = []
    original = study_module.run_seed
    monkeypatch.setattr(study_module, "run_seed", lambda *a: (ran.append(a[1]), original(*a))[1])
    rows = intervention_study("modular/add", out=tmp_path, seeds=(1, 2), **DESIGN)
    assert ran == [1]
    assert rows == read_study(study)
    assert rows == read_study(tmp_path)


def test_another_design_is_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="horizon"):
        intervention_study("modular/add", out=study, seeds=(1,), **{**DESIGN, "horizon": 6})
    for key, value in {
        "kinds": ("push",),
        "positions": (3,),
        "norms": (0.0,),
        "times": (10,),
        "horizon": 7,
        "metric": "other",
        "settings": {"seed": 3},
    }.items():
        with pytest.raises(SettingError):
            intervention_study("modular/add", out=tmp_path, seeds=(1,), **{**DESIGN, key: value})
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="hold a study"):
        read_study(tmp_path)


def test_processes_give_what_one_gives(study: Path, tmp_path: Path) -> None:
    rows = intervention_study("modular/add", out=tmp_path, seeds=(1, 2), jobs=2, **DESIGN)
    assert rows == read_study(study)


# the analysis


def made_up(effect: float, rng: np.random.Generator, seeds: int = 8) -> list[dict[str, Any]]:
    rows = []
    for seed in range(seeds):
        for time in (100, 200, 300):
            k = int(rng.integers(1, 4))
            common: dict[str, Any] = {"seed": seed, "time": time, "k_star": k, "sigma": [1.0] * 8, "steps": [0, 50]}
            base = float(rng.normal())
            for position in (1, 2, 3, 4, 7, "span", "space", "none"):
                extra = effect if position == k else 50.0 if position == 7 else 0.0
                end = base + (0.0 if position == "none" else extra + 0.1 * float(rng.normal()))
                amount = 0.0 if position == "none" else 1.0
                cell = {"kind": "step", "position": position, "amount": amount, "relative": amount}
                rows.append({**common, **cell, "test_loss": [base, end]})
    return rows


def test_a_planted_effect_at_the_gap_is_found() -> None:
    found = {
        c.comparison: c
        for c in intervention_effects(made_up(0.5, np.random.default_rng(0)), rng=np.random.default_rng(1))
    }
    contrast = found["k* - others"]
    # Errors of a fork sqrt(.01 + .01 / 3) = 0.115, over 24 forks 0.024. Cut 7 is beyond W // 2 and not counted.
    assert contrast.mean == pytest.approx(0.5, abs=3 * 0.024)
    assert contrast.low < 0.5 < contrast.high
    assert contrast.p_value == pytest.approx(2 / 256)
    assert contrast.p_position < 0.01
    assert (contrast.n_seeds, contrast.n_forks) == (8, 24)
    assert contrast.norm_spread == 0.0
    assert found["k* - none"].mean == pytest.approx(0.5, abs=3 * 0.1 / math.sqrt(24))
    assert abs(found["others - none"].mean) < 3 * 0.1 / math.sqrt(72)
    every = intervention_effects(made_up(0.5, np.random.default_rng(0)), cuts="all", rng=np.random.default_rng(1))
    assert every[0].mean < -5  # the large effect at cut 7 counts now


def test_area_and_magnitude() -> None:
    rng = np.random.default_rng(2)
    rows = made_up(0.5, rng)
    area = intervention_effects(rows, reading="area", rng=rng)[0]
    assert area.mean == pytest.approx(0.25, abs=3 * 0.012)  # half of the end value, by the trapezoid
    downward = [{**r, "test_loss": [r["test_loss"][0], 2 * r["test_loss"][0] - r["test_loss"][1]]} for r in rows]
    plain, size = (intervention_effects(downward, magnitude=m, rng=rng)[0].mean for m in (False, True))
    assert plain < -0.4
    assert size > 0.3


def test_no_effect_is_found_at_its_level() -> None:
    rng = np.random.default_rng(3)
    contrasts = [intervention_effects(made_up(0.0, rng), n_boot=99, rng=rng)[0] for _ in range(60)]
    # 10 % of 60 are 6, sd 2.3.
    assert sum(c.p_value <= 0.1 for c in contrasts) <= 13
    assert sum(c.p_position <= 0.1 for c in contrasts) <= 13
    assert sum(c.low <= 0.0 <= c.high for c in contrasts) >= 57 - 3 * 2  # 95 %: 57, sd 1.7


def test_analysis_refuses_what_it_cannot_use() -> None:
    rng = np.random.default_rng(4)
    rows = made_up(0.0, rng)
    with pytest.raises(SettingError, match="reading"):
        intervention_effects(rows, reading="end", rng=rng)
    with pytest.raises(SettingError, match="outcome"):
        intervention_effects(rows, outcome="loss", rng=rng)
    with pytest.raises(DataError, match="untouched"):
        intervention_effects([r for r in rows if r["position"] != "none"], rng=rng)
    assert json.dumps(rows)


# lottery tickets


def test_tickets_keep_exactly_their_share() -> None:
    torch.manual_seed(0)
    scores = {"a": torch.randn(10, 10), "b": torch.zeros(50)}
    masks = ticket_masks(scores, 0.2)
    assert sum(int(m.sum()) for m in masks.values()) == 30
    assert masks["b"].sum() == 0
    assert scores["a"].abs()[masks["a"]].min() >= scores["a"].abs()[~masks["a"]].max()
    assert sum(int(m.sum()) for m in ticket_masks({"b": torch.zeros(50)}, 0.5).values()) == 25
    rng = np.random.default_rng(0)
    assert sum(int(m.sum()) for m in random_masks(scores, 0.2, rng).values()) == 30
    matched = matched_random_masks(masks, rng)
    assert [int(m.sum()) for m in matched.values()] == [30, 0]
    assert mask_overlap(masks, masks) == 1.0
    assert 0.1 < mask_overlap(masks, matched) < 0.6  # 0.3 by chance, sd sqrt(.3 * .7 / 30 * .7) = .07
    with pytest.raises(SettingError, match="fraction"):
        ticket_masks(scores, 0.0)


def test_held_masks_stay_zero_until_released() -> None:
    model, optimizers, _ = trained()
    parameters = dict(model.named_parameters())
    masks = random_masks(parameters, 0.3, np.random.default_rng(0))
    handles = hold_masks(parameters, masks, optimizers)
    train(model, optimizers, 3)
    assert all(not parameters[name].detach()[~mask].any() for name, mask in masks.items())
    assert parameters["0.weight"].detach()[masks["0.weight"]].any()
    for handle in handles:
        handle.remove()
    train(model, optimizers, 1)
    assert any(parameters[name].detach()[~mask].any() for name, mask in masks.items())
    with pytest.raises(SettingError, match="shaped"):
        hold_masks(parameters, {"nothing": torch.ones(1, dtype=torch.bool)}, optimizers)
