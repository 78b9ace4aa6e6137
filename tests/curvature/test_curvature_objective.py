"""Gradients and Hessian products against a dense Hessian, and that nothing is left behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.func import functional_call

from spectraledge.curvature import Objective, inverse_preconditioner, lanczos, step_direction, undisturbed
from spectraledge.errors import SettingError


def small(dtype: torch.dtype = torch.float64) -> tuple[torch.nn.Module, Objective, torch.Tensor]:
    """A network, its objective, and the dense Hessian by torch.func."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(dtype)
    x, y = torch.randn(20, 4, dtype=dtype), torch.randint(3, (20,))
    parameters = dict(model.named_parameters())
    sizes = [p.numel() for p in parameters.values()]

    def flat_loss(flat: torch.Tensor) -> torch.Tensor:
        pieces = zip(parameters.items(), flat.split(sizes), strict=True)
        return torch.nn.functional.cross_entropy(
            functional_call(model, {name: piece.view_as(p) for (name, p), piece in pieces}, (x,)), y
        )

    theta = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
    objective = Objective(model, parameters, lambda m: torch.nn.functional.cross_entropy(m(x), y))
    return model, objective, torch.autograd.functional.hessian(flat_loss, theta)


def flat(vector: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([v.reshape(-1) for v in vector.values()])


def direction(objective: Objective, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator).to(p.dtype) for n, p in objective.parameters.items()}


@pytest.mark.parametrize(("method", "tolerance"), [("exact", 1e-12), ("difference", 1e-8)])
def test_products_equal_the_dense_hessian(method: str, tolerance: float) -> None:
    # Central differences in float64: step 0.03 eps^(1/3) |theta| = 4e-7, error (4e-7)^2 from the third
    # derivative and 1e-16 / 4e-7 = 3e-10 from rounding.
    _, objective, dense = small()
    for seed in range(3):
        v = direction(objective, seed)
        expected = dense @ flat(v)
        found = flat(objective.hessian_product(v, method=method))
        assert float((found - expected).norm() / expected.norm()) < tolerance


def test_largest_eigenvalues_equal_the_dense_ones() -> None:
    _, objective, dense = small()
    sizes = [p.numel() for p in objective.parameters.values()]

    def product(x: torch.Tensor) -> torch.Tensor:
        pieces = zip(objective.parameters.items(), x.split(sizes), strict=True)
        return flat(objective.hessian_product({n: piece.view_as(p) for (n, p), piece in pieces}))

    found = lanczos(product, torch.ones(len(dense), dtype=torch.float64), 4, tolerance=1e-10, vectors=True)
    exact = torch.linalg.eigvalsh(dense).flip(0)[:4].numpy()
    np.testing.assert_allclose(found.values, exact, rtol=1e-8)
    assert found.vectors is not None
    residual = dense @ found.vectors.T - found.vectors.T * torch.from_numpy(found.values)
    assert float(residual.norm()) < 1e-6


def test_lanczos_finds_no_ghosts_and_bounds_its_errors() -> None:
    # A strongly separated eigenvalue is what brings copies without reorthogonalisation.
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    exact = np.concatenate([[1e4, 50.0, 20.0], rng.uniform(-1, 1, 197)])
    a = torch.from_numpy(q @ np.diag(exact) @ q.T)
    for dtype in (torch.float64, torch.float32):
        typed = a.to(dtype)
        found = lanczos(
            lambda x, typed=typed: typed @ x, torch.ones(200, dtype=dtype), 3, max_products=60, tolerance=0
        )
        rounding = 1e4 * 200 * torch.finfo(dtype).eps
        assert np.all(np.abs(found.values - exact[:3]) <= found.errors + rounding)


def test_lanczos_stops_in_a_small_invariant_space() -> None:
    a = torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0], dtype=torch.float64))
    found = lanczos(lambda x: a @ x, torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64), 2)
    np.testing.assert_allclose(found.values, [3, 2])
    assert found.n_products == 2
    with pytest.raises(SettingError, match=r"must lie in 1\.\.4; got 5"):
        lanczos(lambda x: a @ x, torch.ones(4, dtype=torch.float64), 5)


class Restless(torch.nn.Module):
    """Dropout, running statistics and a buffer that counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop = torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
        self.b = torch.nn.Linear(8, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        random.random()
        np.random.rand()  # noqa: NPY002
        return self.b(self.drop(self.norm(self.a(x))))


@pytest.mark.parametrize("train", [False, True])
def test_nothing_is_left_behind(train: bool) -> None:
    torch.manual_seed(3)
    model = Restless()
    model.drop.eval()  # a mixture of modes, which must come back as it was
    x = torch.randn(32, 6)
    model(x).mean().backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    pointers = [p.data_ptr() for p in model.parameters()]
    versions = [p._version for p in model.parameters()]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
    with torch.no_grad(), undisturbed(model, train=train):
        objective = Objective(model, dict(model.named_parameters()), lambda m: m(x).square().mean())
        v = direction(objective, 0)
        exact = objective.hessian_product(v)
        difference = objective.hessian_product(v, method="difference")
        value, gradient = objective.gradient()
        assert value == objective.value()  # the same dropout mask each time
        # float32; the same mask on both sides of the difference, else this would be off by its size
        assert float((flat(exact) - flat(difference)).norm() / flat(exact).norm()) < 1e-2
        objective.release()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, model.parameters(), strict=True))
    assert pointers == [p.data_ptr() for p in model.parameters()]
    assert versions == [p._version for p in model.parameters()]
    assert [m.training for m in (model, model.drop, model.norm)] == [True, False, True]
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    assert gradient.keys() == dict(model.named_parameters()).keys()


def test_parameters_come_back_when_the_loss_fails() -> None:
    model = torch.nn.Linear(3, 1)
    before, calls = model.weight.detach().clone(), []

    def loss(m: torch.nn.Module) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return m(torch.ones(2, 3)).mean()

    objective = Objective(model, dict(model.named_parameters()), loss)
    with pytest.raises(RuntimeError, match="out of memory"):
        objective.hessian_product(direction(objective, 0), method="difference")
    assert torch.equal(model.weight, before)


def test_bad_losses_are_named() -> None:
    model = torch.nn.Linear(3, 2)
    parameters = dict(model.named_parameters())
    with pytest.raises(SettingError, match=r"must be a scalar tensor; got \(2, 2\)"):
        Objective(model, parameters, lambda m: m(torch.ones(2, 3))).gradient()
    with pytest.raises(SettingError, match="must depend on the parameters"):
        Objective(model, parameters, lambda m: torch.ones((), requires_grad=True) * 2).gradient()
    half = torch.nn.Linear(3, 2).bfloat16()
    coarse = Objective(half, dict(half.named_parameters()), lambda m: m(torch.ones(2, 3).bfloat16()).mean())
    with pytest.raises(SettingError, match=r"needs parameters in float32 or float64; got torch.bfloat16"):
        coarse.hessian_product(direction(coarse, 0), method="difference")
    with pytest.raises(SettingError, match='must be "exact" or "difference"'):
        coarse.hessian_product(direction(coarse, 0), method="finite")  # type: ignore[arg-type]


def test_a_parameter_that_the_loss_ignores_and_a_linear_loss() -> None:
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(3, 1), "idle": torch.nn.Linear(3, 1)})
    objective = Objective(model, dict(model.named_parameters()), lambda m: m["used"](torch.ones(1, 3)).mean())
    assert objective.gradient()[1].keys() == {"used.weight", "used.bias"}
    assert objective.hessian_product(direction(objective, 0)) == {}


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.9), weight_decay=0.0),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_metric_is_the_one_the_optimizer_uses(name: str) -> None:
    """The last step of a real optimizer is -lr times the direction read off its state."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).double()
    optimizer = OPTIMIZERS[name](model.parameters())
    parameters = dict(model.named_parameters())
    for _ in range(5):
        before = {n: p.detach().clone() for n, p in parameters.items()}
        optimizer.zero_grad()
        model(torch.randn(16, 4).double()).square().mean().backward()
        optimizer.step()
    inverse = inverse_preconditioner([optimizer], parameters)
    assert inverse is not None
    steps = {n: (parameters[n].detach() - before[n]) / -1e-2 for n in parameters}
    found = step_direction([optimizer], parameters, inverse)
    if name in ("rmsprop", "adagrad"):  # no first moment: the direction is P^-1 times the batch's gradient
        assert found is None
        found = {n: inverse[n] * p.grad for n, p in parameters.items() if p.grad is not None}
    assert found is not None
    for n in parameters:
        torch.testing.assert_close(found[n], steps[n], rtol=1e-9, atol=1e-12)


def test_no_metric_where_there_is_none() -> None:
    model = torch.nn.Linear(4, 3)
    parameters = dict(model.named_parameters())
    assert inverse_preconditioner([torch.optim.AdamW(model.parameters())], parameters) is None  # before step 1
    assert inverse_preconditioner([torch.optim.LBFGS(model.parameters())], parameters) is None
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    ones = inverse_preconditioner([plain], parameters)
    assert ones is not None
    assert all(bool((v == 1).all()) for v in ones.values())
    assert step_direction([plain], parameters, ones) is None
    half = torch.optim.SGD([model.weight], lr=0.1)  # not all parameters are anybody's
    assert inverse_preconditioner([half], parameters) is None
