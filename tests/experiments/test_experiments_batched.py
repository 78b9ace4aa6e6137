"""Many models as one computation: the same step, the same folders, the same decisions as one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectraledge.errors import OutputError, SettingError
from spectraledge.experiments.batched import choose_batch_size, run_batched, step_seconds
from spectraledge.experiments.batched.adamw import BroadcastAdamW
from spectraledge.experiments.batched.evaluation import BatchedEvaluation
from spectraledge.experiments.batched.gradients import stack_batches
from spectraledge.experiments.batched.member import Member
from spectraledge.experiments.batched.stack import ParameterStack
from spectraledge.experiments.batched.step import BatchedStep
from spectraledge.experiments.config import configure
from spectraledge.experiments.loop import clip
from spectraledge.experiments.run import run
from spectraledge.recording import load

TINY: dict[str, Any] = {
    "p": 7,
    "d_model": 8,
    "layers": 1,
    "heads": 2,
    "d_hidden": 8,
    "batch_size": 8,
    "steps": 20,
    "eval_every": 5,
}
MONITOR: dict[str, Any] = {"window": 3, "every": 2}


def members(name: str, settings: list[dict[str, Any]]) -> list[Member]:
    built = []
    for values in settings:
        chosen, config = configure(name, settings=values)
        built.append(Member(name, chosen, config, None))
    return built


def batched_step(built: list[Member]) -> BatchedStep:
    return BatchedStep([m.experiment for m in built], [m.settings for m in built], [m.optimizers for m in built])


def own_step(member: Member) -> dict[str, torch.Tensor]:
    """One step as the training loop makes it; the gradient before clipping."""
    model, task = member.experiment.model, member.experiment.task
    model.zero_grad()
    task.loss(model, task.draw()).backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    clip(list(model.parameters()), member.settings.clip)
    for optimizer in member.optimizers:
        optimizer.step()
    return before


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).norm() / y.norm())


def without_key_bias(name: str, x: torch.Tensor) -> torch.Tensor:
    """The bias of the fused projection without its third of the keys.

    Softmax does not see a shift of all scores of a query: the exact gradient of the key bias is zero, and what Adam
    makes of it is the sign of a rounding error, batched or not.
    """
    if not name.endswith("in_proj_bias"):
        return x
    third = len(x) // 3
    return torch.cat([x[:third], x[2 * third :]])


SIZES = {
    "tiny": TINY,
    "full": {},
    "coupled": TINY | {"optimizer": "sgd"},
    "muon": TINY | {"optimizer": "muon"},
    "accumulated": TINY | {"accumulate": 2, "clip": None, "decay_norms": False},
}


@pytest.mark.parametrize("size", ["tiny", "full", "muon", "coupled"])
def test_one_step_from_equal_state_agrees(size: str) -> None:
    settings = [{**SIZES[size], "seed": seed} for seed in (1, 2)]
    alone, together = members("modular/add", settings), members("modular/add", settings)
    for one, other in zip(alone, together):
        # Biases start at zero: their relative difference after a step would be that of Adam's first update alone,
        # which divides by gradients near its epsilon.
        generator = torch.Generator().manual_seed(one.settings.seed)
        for p, q in zip(one.experiment.model.parameters(), other.experiment.model.parameters()):
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
            q.data.copy_(p.data)
    step = batched_step(together)
    losses, norms = step.step(1)
    for index, (one, other) in enumerate(zip(alone, together)):
        gradients = own_step(one)
        norm = float(torch.stack([g.norm() for g in gradients.values()]).norm())
        assert float(norms[index]) == pytest.approx(norm, rel=1e-5)
        assert np.isfinite(losses[index].item())
        scale = min(1.0, 1.0 / norm)
        mine = dict(other.experiment.model.named_parameters())
        for name, parameter in one.experiment.model.named_parameters():
            # Sums of 512 terms in float32 in another order: 1e-6 and less; 1e-5 is what is asked for.
            assert relative(mine[name].grad / scale, gradients[name]) < 1e-5, name  # type: ignore[operator]
            x, y = (without_key_bias(name, p.detach()) for p in (mine[name], parameter))
            assert relative(x, y) < 1e-5, name


def test_in_float64_all_parameters_agree_the_key_bias_among_them() -> None:
    # Rounding errors of 1e-17 are far below Adam's epsilon of 1e-8, which then makes updates of 1e-12 of them.
    settings = [{**TINY, "seed": seed, "dtype": "float64"} for seed in (1, 2, 3)]
    alone, together = members("modular/mul", settings), members("modular/mul", settings)
    step = batched_step(together)
    for number in (1, 2, 3):
        step.step(number)
    for one, other in zip(alone, together):
        for _ in range(3):
            own_step(one)
        for x, y in zip(other.experiment.model.parameters(), one.experiment.model.parameters()):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_accumulated_batches_give_the_mean_gradient() -> None:
    settings = [{**SIZES["accumulated"], "seed": seed, "dtype": "float64"} for seed in (1, 2)]
    alone, together = members("modular/add", settings), members("modular/add", settings)
    batched_step(together).step(1)
    for one, other in zip(alone, together):
        model, task = one.experiment.model, one.experiment.task
        for _ in range(2):
            (task.loss(model, task.draw()) / 2).backward()
        one.optimizers[0].step()
        for x, y in zip(other.experiment.model.parameters(), model.parameters()):
            torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_broadcast_adamw_is_torchs_adamw_in_every_slice() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, 5, generator=generator)
    numbers = {"lr": [1e-3, 1e-2, 3e-4], "weight_decay": [1.0, 0.0, 0.1], "eps": [1e-8] * 3}
    betas = [(0.9, 0.98), (0.5, 0.9), (0.0, 0.999)]
    stacked = start.clone()
    mine = BroadcastAdamW([{"params": [stacked], **numbers, "betas": list(zip(*betas))}])
    alone = [start[i].clone() for i in range(3)]
    theirs = [
        torch.optim.AdamW([x], **{key: values[i] for key, values in numbers.items()}, betas=betas[i])
        for i, x in enumerate(alone)
    ]
    for _ in range(20):
        stacked.grad = torch.randn(3, 4, 5, generator=generator)
        mine.step()
        for i, x in enumerate(alone):
            x.grad = stacked.grad[i]
            theirs[i].step()
    # A few roundings of float32 a step, 20 steps.
    torch.testing.assert_close(stacked, torch.stack(alone), rtol=1e-5, atol=1e-6)


def test_recordings_are_those_of_single_runs(tmp_path: Path) -> None:
    own = [
        {"seed": 1},
        {"seed": 2, "weight_decay": 0.0, "steps": 14},
        {"seed": 3, "lr": 3e-3, "warmup": 3, "clip": None, "eval_every": 4, "labels": "shuffled"},
    ]
    names = ["modular/add", "modular/mul", "modular/sub"]
    cells = [(name, {**TINY, **values}, tmp_path / f"{i}") for i, (name, values) in enumerate(zip(names, own))]
    seen: list[tuple[int, int, int]] = []
    together = run_batched(
        cells,
        size=3,
        decay_products=True,
        progress=lambda i, step, steps, _: seen.append((i, step, steps)),
        **MONITOR,
    )
    assert {(0, 20, 20), (1, 10, 14), (2, 16, 20)} <= set(seen)
    for (name, settings, out), recording in zip(cells, together):
        alone = run(name, settings=settings, decay_products=True, out=tmp_path / f"alone_{out.name}", **MONITOR)
        assert recording == load(out)
        read = [json.loads((folder / "config.json").read_text()) for folder in (out, tmp_path / f"alone_{out.name}")]
        assert read[0] == read[1]
        finished = json.loads((out / "finished.json").read_text())
        assert (finished["step"], finished["reason"], finished["batched"]) == (settings["steps"], "steps", 3)
        assert (out / "environment.json").exists()
        np.testing.assert_array_equal(recording.steps, alone.steps)
        assert recording.blocks == alone.blocks
        assert sorted(recording.metrics) == sorted(alone.metrics)
        # The key bias random-walks by the learning rate a step on rounding errors, which the layer's products see:
        # 8 of its 700 parameters.
        np.testing.assert_allclose(recording.products, alone.products, rtol=0.05, atol=1e-5)
        for metric in alone.metrics:
            (steps, one), (found, other) = alone.metrics[metric], recording.metrics[metric]
            np.testing.assert_array_equal(steps, found)
            np.testing.assert_allclose(other, one, rtol=2e-2, atol=2e-3, err_msg=metric)
        np.testing.assert_allclose(recording.weights.singular_values, alone.weights.singular_values, rtol=1e-3)
    again = run_batched(cells, size=3, resume=True, decay_products=True, **MONITOR)
    assert again == together
    with pytest.raises(OutputError, match="must not hold a recording"):
        run_batched(cells, size=3, decay_products=True, **MONITOR)


def test_in_float64_recordings_agree_to_rounding() -> None:
    cells = [("modular/add", {**TINY, "dtype": "float64", "seed": seed}, None) for seed in (4, 5)]
    for (name, settings, _), recording in zip(cells, run_batched(cells, size=2, probe_every=6, **MONITOR)):
        alone = run(name, settings=settings, probe_every=6, **MONITOR)
        np.testing.assert_allclose(recording.products, alone.products, rtol=1e-6, atol=1e-12)
        for metric in alone.metrics:
            found, wanted = recording.metrics[metric][1], alone.metrics[metric][1]
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9, err_msg=metric)


def test_an_unfinished_run_starts_again_and_size_one_is_run(tmp_path: Path) -> None:
    cells = [("modular/add", {**TINY, "seed": seed}, tmp_path / str(seed)) for seed in (1, 2)]
    run_batched(cells, size=2, **MONITOR)
    whole = load(tmp_path / "2")
    (tmp_path / "2" / "finished.json").unlink()
    again = run_batched(cells, size=2, resume=True, **MONITOR)
    np.testing.assert_allclose(again[1].products, whole.products, rtol=0.05, atol=1e-5)
    assert (tmp_path / "2" / "finished.json").exists()
    one = run_batched(cells[:1], size=1, overwrite=True, **MONITOR)[0]
    np.testing.assert_array_equal(one.products, run("modular/add", settings=cells[0][1], **MONITOR).products)


def test_a_batch_that_breaks_leaves_no_run_that_looks_finished(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("stop here")

    cells = [("modular/add", {**TINY, "seed": seed}, tmp_path / str(seed)) for seed in (1, 2)]
    with pytest.raises(RuntimeError, match="stop here"):
        run_batched(cells, size=2, progress=fail, **MONITOR)
    assert not list(tmp_path.glob("*/finished.json"))
    assert len(run_batched(cells, size=2, resume=True, **MONITOR)) == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"d_hidden": 16}, "must have equal parameters; got encoder.layers.0.linear1.weight"),
        ({"batch_size": 9}, "must draw batches of one shape"),
        ({"heads": 4}, "must be of one kind; the loss of model 2"),
        ({"dtype": "float64"}, "must share dtype; got float32 and float64"),
        ({"optimizer": "sgd"}, "must share optimizer; got adamw and sgd"),
    ],
)
def test_models_that_are_no_one_computation_are_refused(second: dict[str, Any], message: str) -> None:
    cells = [("modular/add", TINY, None), ("modular/add", {**TINY, **second}, None)]
    with pytest.raises(SettingError, match=message):
        run_batched(cells, size=2)


def test_an_experiment_that_cannot_be_batched_is_run_one_by_one() -> None:
    # Its batches are no tensors.
    settings = {"eigenvalues": "1,0.5", "steps": 8, "eval_every": 4}
    assert choose_batch_size("quadratic", settings, 2) == 1
    found = run_batched([("quadratic", {**settings, "seed": seed}, None) for seed in (1, 2)], **MONITOR)
    assert [recording.n_updates for recording in found] == [4, 4]


def test_two_runs_of_one_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="a folder of its own"):
        run_batched([("modular/add", TINY, tmp_path / "a")] * 2, size=2)


def test_a_batch_of_no_tensors_is_refused() -> None:
    with pytest.raises(SettingError, match="got int"):
        stack_batches([1, 2])


def test_a_model_that_leaves_is_whole_by_itself() -> None:
    built = members("modular/add", [{**TINY, "seed": seed} for seed in (1, 2, 3)])
    step = batched_step(built)
    step.step(1)
    gone, stays = built[1], built[2]
    parameter = next(iter(gone.experiment.model.parameters()))
    before, moments = parameter.detach().clone(), gone.optimizers[0].state[parameter]["exp_avg"].clone()
    step.keep([0, 2])
    identity = id(next(iter(stays.experiment.model.parameters())))
    step.step(2)
    assert torch.equal(parameter, before)
    assert torch.equal(gone.optimizers[0].state[parameter]["exp_avg"], moments)
    first = next(iter(stays.experiment.model.parameters()))
    assert id(first) == identity
    assert first.data_ptr() == step.stack.values[step.stack.names[0]][1].data_ptr()
    assert float(stays.optimizers[0].state[first]["step"]) == 2
    assert float(gone.optimizers[0].state[parameter]["step"]) == 1


def test_metrics_from_one_forward_are_those_of_each_task() -> None:
    # mul has fewer pairs than add: two shapes, two computations.
    built = [members(name, [{**TINY, "seed": 3}])[0] for name in ("modular/add", "modular/mul", "modular/sub")]
    stack = ParameterStack([member.experiment.model for member in built])
    evaluation = BatchedEvaluation(stack, [member.experiment.task for member in built])
    assert all(asked is not None for asked in evaluation._asked)
    found = evaluation.evaluate([0, 1, 2])
    for member, metrics in zip(built, found):
        own = member.experiment.task.evaluate(member.experiment.model)
        assert metrics == pytest.approx(own, rel=1e-5)
    assert evaluation.evaluate([2])[0] == pytest.approx(found[2], rel=1e-5)


def test_speed_is_measured_and_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = step_seconds("modular/add", TINY, (1, 3), steps=1, rounds=1)
    assert set(seconds) == {1, 3}
    assert all(0 < value < 60 for value in seconds.values())
    for found, size in (({1: 2.0, 4: 1.0}, 4), ({1: 1.0, 4: 1.0}, 1)):
        monkeypatch.setattr("spectraledge.experiments.batched.choice.step_seconds", lambda *_, f=found, **__: f)
        assert choose_batch_size("modular/add", TINY, 4) == size
    monkeypatch.setattr("spectraledge.experiments.batched.choice.step_seconds", lambda *_, **__: {1: 2.0, 4: 1.5})
    assert choose_batch_size("modular/add", TINY, 4) == 4
    assert choose_batch_size("modular/add", TINY, 4, processes=2) == 1
    with pytest.raises(SettingError, match="at least 1"):
        step_seconds("modular/add", TINY, (0,))
