"""Baselines of a run against their definitions, and that measuring them leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spectraledge as se
from spectraledge.errors import SettingError
from spectraledge.experiments.baselines import commutator
from spectraledge.experiments.config import configure
from spectraledge.experiments.loop import clip
from spectraledge.experiments.nesterov import DecoupledNesterov
from spectraledge.experiments.optimizers import build_optimizers
from spectraledge.experiments.run import run
from spectraledge.experiments.session import build_experiment, own_torch
from spectraledge.experiments.tasks.base import Experiment, Task
from spectraledge.stream.weights import weight_spectra

TINY = {"p": 7, "d_model": 8, "layers": 1, "heads": 2, "d_hidden": 16, "batch_size": 16}


def built(**settings: object) -> tuple[Experiment, object]:
    chosen, _ = configure("modular/add", **{**TINY, **settings})
    with own_torch(chosen):
        return build_experiment("modular/add", chosen), chosen


def published_defect(model: torch.nn.Module, one: Task, two: Task, eta: float) -> float:
    """||theta_AB - theta_BA|| / (||eta g_A|| ||eta g_B||), step by step."""
    a, b = one.draw(), two.draw()
    parameters = list(model.parameters())
    start = [p.detach().clone() for p in parameters]

    def step(batch: object) -> list[torch.Tensor]:
        grads = torch.autograd.grad(one.loss(model, batch), parameters)
        with torch.no_grad():
            for p, g in zip(parameters, grads):
                p -= eta * g
        return list(grads)

    def rewind() -> list[torch.Tensor]:
        end = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, value in zip(parameters, start):
                p.copy_(value)
        return end

    g_a, _, ab = step(a), step(b), rewind()
    g_b, _, ba = step(b), step(a), rewind()

    def norm(x: list[torch.Tensor]) -> float:
        return float(torch.cat([part.ravel() for part in x]).norm())

    return norm([x - y for x, y in zip(ab, ba)]) / (eta**2 * norm(g_a) * norm(g_b))


def test_commutator_is_the_limit_of_the_published_quotient() -> None:
    experiment, _ = built(dtype="float64")
    model, task = experiment.model, experiment.task
    found = commutator(model, dict(model.named_parameters()), task.replica(1), task.replica(2))
    # The quotient differs from its limit by terms of order eta, its rounding is eps / eta^2 = 2e-6.
    assert found.defect == pytest.approx(published_defect(model, task.replica(1), task.replica(2), 1e-5), rel=1e-4)
    assert found.unit != pytest.approx(found.defect, rel=0.01)


def test_in_float32_the_published_quotient_is_rounding_and_ours_is_not() -> None:
    single, _ = built()
    double, _ = built(dtype="float64")
    exact, ours = (
        commutator(e.model, dict(e.model.named_parameters()), e.task.replica(1), e.task.replica(2)).defect
        for e in (double, single)
    )
    assert ours == pytest.approx(exact, rel=1e-4)
    literal = published_defect(single.model, single.task.replica(1), single.task.replica(2), 1e-4)
    assert literal > 3 * exact


def test_a_run_records_baselines_and_weights() -> None:
    recording = run("modular/add", steps=20, eval_every=5, every=5, window=2, sharpness_every=10, **TINY)
    assert recording.metrics["commutator_defect"][0].tolist() == [1, 5, 10, 15, 20]
    assert recording.metrics["hessian_top"][0].tolist() == [1, 10, 20]
    assert np.all(recording.metrics["hessian_top"][1] > 0)
    assert recording.weights.steps.tolist() == [1, 5, 10, 15, 20]
    assert recording.weights.singular_values.shape == (5, 6, 4)
    assert np.all(np.diff(recording.weights.singular_values, axis=2) <= 0)
    without = run("modular/add", steps=20, eval_every=5, every=5, window=2, defect_every=0, weight_spectra=0, **TINY)
    assert np.array_equal(without.products, recording.products, equal_nan=True)
    assert "commutator_defect" not in without.metrics
    assert len(without.weights.steps) == 0


def test_sharpness_is_the_largest_eigenvalue() -> None:
    experiment, _ = built(dtype="float64", p=5, d_model=4, heads=1, d_hidden=4)
    model, task = experiment.model, experiment.task
    parameters = dict(model.named_parameters())
    from spectraledge.experiments.baselines import Baselines

    chosen, _ = configure("modular/add", **{**TINY, "sharpness_every": 1})
    found = Baselines(experiment, chosen).measure(1)["hessian_top"]
    loss = task.probe_losses()[0]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        grads = torch.autograd.grad(loss(model), list(parameters.values()), create_graph=True)
        flat = torch.cat([g.ravel() for g in grads])
        rows = [
            torch.cat([h.ravel() for h in torch.autograd.grad(x, list(parameters.values()), retain_graph=True)])
            for x in flat
        ]
    assert found == pytest.approx(float(torch.linalg.eigvalsh(torch.stack(rows))[-1]), rel=2e-2)


def test_weight_spectra_are_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = {
        "layers.0.attn.in_proj_weight": torch.randn(12, 4, generator=generator),
        "layers.0.mlp.weight": torch.randn(40, 4, generator=generator),
        "layers.0.mlp.bias": torch.randn(40, generator=generator),
    }
    found = weight_spectra(matrices, k=3)
    assert list(found) == [*(f"layers.0.attn.in_proj.{part}" for part in "qkv"), "layers.0.mlp"]
    q = np.linalg.svd(matrices["layers.0.attn.in_proj_weight"][:4].double().numpy(), compute_uv=False)
    tall = np.linalg.svd(matrices["layers.0.mlp.weight"].double().numpy(), compute_uv=False)
    assert found["layers.0.attn.in_proj.q"] == pytest.approx(q[:3], rel=1e-5)
    assert found["layers.0.mlp"] == pytest.approx(tall[:3], rel=1e-5)


def test_weights_survive_files_rewinds_and_merging(tmp_path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = se.attach(model, optimizer, window=2, every=1, out=tmp_path / "run", on_error="raise")
    saved = None
    for step in range(1, 6):
        model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.ones(2)
        optimizer.step()
        monitor.log_weights({"weight": [3.0 + step, 1.0]})
        if step == 3:
            saved = monitor.state_dict()
    monitor.load_state_dict(saved)
    model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.ones(2)
    optimizer.step()
    monitor.log_weights({"weight": [9.0], "other": [2.0, 1.0]})
    with pytest.raises(SettingError, match="singular values must be numbers"):
        monitor.log_weights({"weight": ["a"]})
    monitor.detach()
    found = se.load(tmp_path / "run")
    assert found.weights.steps.tolist() == [1, 2, 3, 4]
    assert found.weights.names == ["weight", "other"]
    assert found.weights.of("weight")[-1].tolist() == pytest.approx([9.0, np.nan], nan_ok=True)
    found.merged().save(tmp_path / "copy")
    copy = se.load(tmp_path / "copy")
    assert np.array_equal(copy.weights.singular_values, found.weights.singular_values, equal_nan=True)


def test_nesterov_is_torch_without_decay_and_decouples_it() -> None:
    def trained(make, **kwargs) -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.arange(1.0, 5.0, dtype=torch.float64))
        optimizer = make([parameter], lr=0.1, momentum=0.9, **kwargs)
        for _ in range(5):
            parameter.grad = parameter.detach() ** 2 / 10
            optimizer.step()
        return parameter.detach()

    assert torch.allclose(trained(DecoupledNesterov), trained(torch.optim.SGD, nesterov=True), rtol=1e-14, atol=0)
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = DecoupledNesterov([parameter], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        parameter.grad = torch.zeros(2, dtype=torch.float64)
        optimizer.step()
    assert parameter.tolist() == pytest.approx([0.95**3] * 2, rel=1e-14)
    recording = run("modular/add", steps=8, every=2, window=2, optimizer="nesterov", decay_products=True, **TINY)
    assert recording.decay_norm2 is not None
    assert np.all(recording.decay_norm2[:, 0] > 0)


def test_norms_need_not_decay() -> None:
    experiment, chosen = built(decay_norms=False)
    (optimizer,) = build_optimizers(experiment.model, chosen, experiment.outer)
    decays, rest = optimizer.param_groups
    assert decays["weight_decay"] == 1.0
    assert rest["weight_decay"] == 0.0
    assert {p.ndim for p in rest["params"]} == {1}


def test_accumulated_batches_are_one_large_batch() -> None:
    experiment, _ = built(dtype="float64")
    from spectraledge.experiments.loop import _differentiate

    model, task = experiment.model, experiment.task
    batches = [task.replica(1).draw()]
    twin = task.replica(1)
    batches = [twin.draw(), twin.draw()]
    loss = _differentiate(Experiment(model, task.replica(1)), 2)
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    whole = task.loss(model, tuple(torch.cat(parts) for parts in zip(*batches)))
    whole.backward()
    assert float(loss) == pytest.approx(float(whole.detach()), rel=1e-12)
    for p, g in zip(model.parameters(), grads):
        assert torch.allclose(p.grad, g, rtol=1e-9, atol=1e-12)
    assert clip(list(model.parameters()), None) > 0
