"""Modular arithmetic: counts, targets by brute force, the placebo, and the network."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from spectraledge.experiments.models.modular import ModularTransformer
from spectraledge.experiments.muon import FullPrecisionMuon, orthogonalise
from spectraledge.experiments.optimizers import build_optimizers, hidden_matrices, lr_factor, set_lr
from spectraledge.experiments.settings import ModularSettings
from spectraledge.experiments.tasks.modular import ModularTask, modular_data

FORMULAS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "x2_y2": lambda a, b: a * a + b * b,
    "x2_xy_y2": lambda a, b: a * a + a * b + b * b,
    "x3_xy": lambda a, b: a * a * a + a * b,
}


@pytest.mark.parametrize("operation", sorted(FORMULAS))
def test_counts_split_order_and_targets_against_brute_force(operation: str) -> None:
    settings = ModularSettings(operation=operation, seed=5)  # type: ignore[arg-type]
    data = modular_data(settings)
    first = 1 if operation == "mul" else 0
    pairs = [(a, b) for a in range(first, 97) for b in range(first, 97)]
    random.Random(5).shuffle(pairs)
    n = 4608 if operation == "mul" else 4704
    assert (len(data.train_targets), len(data.test_targets)) == (n, 4608 if operation == "mul" else 4705)
    assert data.train_tokens.tolist() == [list(pair) for pair in pairs[:n]]
    assert data.test_tokens.tolist() == [list(pair) for pair in pairs[n:]]
    wanted = [FORMULAS[operation](a, b) % 97 for a, b in pairs]
    assert data.train_targets.tolist() + data.test_targets.tolist() == wanted


def test_placebo_keeps_pairs_split_and_frequencies_and_nothing_else() -> None:
    true = modular_data(ModularSettings())
    placebo = modular_data(ModularSettings(labels="shuffled"))
    np.testing.assert_array_equal(true.train_tokens, placebo.train_tokens)
    np.testing.assert_array_equal(true.test_tokens, placebo.test_tokens)
    pooled = [np.concatenate([d.train_targets, d.test_targets]) for d in (true, placebo)]
    np.testing.assert_array_equal(np.bincount(pooled[0]), np.bincount(pooled[1]))
    # Under a random permutation each of the 4,705 test labels is right with probability 1/97: mean 48.5, and
    # 5 standard deviations of a binomial are 5 * sqrt(4705 / 97 * 96 / 97) = 34.6.
    agreeing = int((true.test_targets == placebo.test_targets).sum())
    assert abs(agreeing - 4705 / 97) < 34.6
    again = modular_data(ModularSettings(labels="shuffled"))
    np.testing.assert_array_equal(placebo.train_targets, again.train_targets)
    other = modular_data(ModularSettings(labels="shuffled", seed=43))
    assert not np.array_equal(
        placebo.train_targets[np.lexsort(placebo.train_tokens.T)][:50],
        other.train_targets[np.lexsort(other.train_tokens.T)][:50],
    )


def test_batches_are_those_of_a_generator_seeded_alone() -> None:
    task, rng = ModularTask(ModularSettings(p=7, batch_size=9, seed=11)), np.random.RandomState(11)
    data = modular_data(ModularSettings(p=7, batch_size=9, seed=11))
    for _ in range(3):
        tokens, targets = task.draw()
        chosen = rng.randint(0, 24, size=9)
        np.testing.assert_array_equal(tokens.numpy(), data.train_tokens[chosen])
        np.testing.assert_array_equal(targets.numpy(), data.train_targets[chosen])


def test_task_state_goes_on_exactly() -> None:
    settings = ModularSettings(p=7, batch_size=9)
    task = ModularTask(settings)
    task.draw()
    other = ModularTask(settings)
    other.load_state(task.state())
    for _ in range(200):  # past the generator's next block of 624 words
        assert torch.equal(task.draw()[0], other.draw()[0])


def test_parameter_count_of_the_published_network() -> None:
    sizes = {name: p.numel() for name, p in ModularTransformer().named_parameters()}
    assert sum(sizes.values()) == 290_401
    assert sizes["embedding.weight"] == 12_416
    assert sizes["position"] == 256
    layer = [n for name, n in sizes.items() if name.startswith("encoder.layers.0.")]
    assert sum(layer) == 132_480
    assert sizes["norm.weight"] + sizes["norm.bias"] == 256
    assert sizes["head.weight"] + sizes["head.bias"] == 12_513


def test_layers_start_identical_and_with_the_stated_spread() -> None:
    model = ModularTransformer()
    first, second = (dict(layer.named_parameters()) for layer in model.encoder.layers)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(first[name] is not second[name] for name in first)
    # U(-a, a) with a = sqrt(6 / (128 + 384)): no entry beyond a, and the largest of 49,152 within 1 % of it.
    a = (6 / 512) ** 0.5
    largest = float(first["self_attn.in_proj_weight"].detach().abs().max())
    assert 0.99 * a < largest <= a
    assert not first["self_attn.in_proj_bias"].detach().any()
    assert not first["self_attn.out_proj.bias"].detach().any()
    # Standard deviations of N(0, 1) from n values are within 5 / sqrt(2 n) of 1.
    assert abs(float(model.embedding.weight.detach().std()) - 1) < 5 / (2 * 12_416) ** 0.5
    assert abs(float(model.position.detach().std()) * 128**0.5 - 1) < 5 / (2 * 256) ** 0.5


def test_the_head_sees_both_tokens() -> None:
    model = ModularTransformer(p=7, d_model=8, layers=1, heads=2, d_hidden=8)
    logits = model(torch.tensor([[1, 2], [1, 3], [2, 1]]))
    assert logits.shape == (3, 7)
    assert not torch.allclose(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    model = ModularTransformer()
    settings = ModularSettings(optimizer="muon")
    names = hidden_matrices(model, model.outer)
    kinds = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    assert names == [f"encoder.layers.{i}.{kind}" for i in (0, 1) for kind in kinds]
    muon, adamw = build_optimizers(model, settings, model.outer)
    held = [[id(p) for group in o.param_groups for p in group["params"]] for o in (muon, adamw)]
    parameters = dict(model.named_parameters())
    assert held[0] == [id(parameters[name]) for name in names]
    assert sorted(held[0] + held[1]) == sorted(id(p) for p in parameters.values())
    assert (muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"]) == (0.02, 1e-3)
    assert muon.param_groups[0]["momentum"] == 0.95


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
def test_muon_acts_on_singular_values_by_its_polynomial(shape: tuple[int, int]) -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
    a, b, c = 3.4445, -4.7750, 2.0315
    u, s, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    # float64: five steps, each amplifying earlier rounding at most by the slope 3.4, leave below 1e-12.
    np.testing.assert_allclose(orthogonalise(matrix, (a, b, c), 5).numpy(), u * s @ vt, atol=1e-12)


def test_muon_is_that_of_torch_up_to_bfloat16() -> None:
    start = torch.from_numpy(np.random.default_rng(1).standard_normal((24, 8))).float()
    moved = []
    for kind in (FullPrecisionMuon, torch.optim.Muon):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = kind([parameter], lr=0.02, momentum=0.95, weight_decay=0.5)
        for i in range(3):
            parameter.grad = torch.from_numpy(np.random.default_rng(i).standard_normal((24, 8))).float()
            optimizer.step()
        moved.append((parameter - start).detach())
        assert optimizer.state[parameter]["momentum_buffer"].shape == (24, 8)
    # bfloat16 keeps 8 bits, and the iteration's slope of up to 3.4 a step turns 2^-9 into a few percent.
    assert float((moved[0] - moved[1]).norm() / moved[1].norm()) < 0.05


def test_adamw_decays_everything() -> None:
    model = ModularTransformer(p=7, d_model=8, layers=1, heads=2, d_hidden=8)
    (adamw,) = build_optimizers(model, ModularSettings(), model.outer)
    (group,) = adamw.param_groups
    assert len(group["params"]) == len(list(model.parameters()))
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.9, 0.98), 1e-8, 1)


def test_schedule_warms_up_and_falls_to_a_tenth() -> None:
    settings = ModularSettings(schedule="cosine", warmup=10, steps=110)
    factors = [lr_factor(step, settings) for step in range(1, 111)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert factors[-1] == pytest.approx(0.1)
    assert np.all(np.diff(factors[9:]) < 0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    for _ in range(2):  # relative to the rate it was built with, not to the last one set
        set_lr([optimizer], 0.5)
        assert optimizer.param_groups[0]["lr"] == 0.2
