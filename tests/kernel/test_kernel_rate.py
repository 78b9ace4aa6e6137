from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_models import Quadratic, displace, mlp, normal

from spectraledge.errors import SettingError
from spectraledge.kernel import (
    OutputProbe,
    cross_entropy,
    differential_ntk,
    from_function,
    gradient_velocity,
    jacobian,
    kernel_matrix,
    kernel_rate,
    squared_error,
)


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(b)


def cases():
    x, y, labels = normal(4, 3), normal(4, 3, seed=5), torch.tensor([0, 2, 1, 2])
    inputs, targets = normal(9, 3, seed=6), normal(9, 3, seed=7)
    model = mlp(outputs=3)
    train = OutputProbe(model, lambda m: (m(inputs) - targets).square().sum() / 18)
    losses = {
        "none": None,
        "squared": squared_error(y),
        "entropy": cross_entropy(labels),
        "function": from_function(lambda f: torch.logsumexp(f, -1).mean() + f.square().sum() / 7),
    }
    return model, x, train, losses


@pytest.mark.parametrize("name", ["none", "squared", "entropy", "function"])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_rate_is_the_finite_difference(name, preconditioned):
    model, x, train, losses = cases()
    probe = OutputProbe(model, lambda m: m(x))
    p = {n: t.abs() + 0.3 for n, t in probe.parameters.items()} if preconditioned else None
    v = gradient_velocity(train, 0.5, preconditioner=p)
    found = kernel_rate(probe, v, preconditioner=p, loss=losses[name], chunk_size=5)

    def kernel(size):
        moved = OutputProbe(displace(model, v, size), lambda m: m(x))
        return kernel_matrix(moved, preconditioner=p, loss=losses[name])

    # Central differences: error about h^2 and eps / h; near 1e-9 of the kernel at h = 1e-4 (here ||v|| ~ 1).
    h = 1e-4
    assert relative(found.rate, (kernel(h) - kernel(-h)) / (2 * h)) < 1e-6
    assert relative(found.kernel, kernel(0.0)) < 1e-12
    assert (found.rate == found.rate.T).all()
    j = jacobian(probe).numpy()
    flat = torch.cat([v[n].flatten() for n in probe.parameters]).numpy()
    assert relative(found.outputs_rate, j @ flat) < 1e-12


def test_the_difference_halves_twice_when_the_step_halves():
    # The slope test: the forward difference errs by O(h), so halving h halves the error.
    model, x, train, losses = cases()
    probe, v = OutputProbe(model, lambda m: m(x)), gradient_velocity(train, 0.5)
    found = kernel_rate(probe, v, loss=losses["entropy"])
    errors = []
    for h in (2e-3, 1e-3):
        moved = kernel_matrix(OutputProbe(displace(model, v, h), lambda m: m(x)), loss=losses["entropy"])
        errors.append(np.linalg.norm((moved - found.kernel) / h - found.rate))
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)


def test_rate_of_a_quadratic_network_in_closed_form():
    model = Quadratic(3, 2, torch.Generator().manual_seed(8))
    x = normal(4, 2)
    v = {"w": normal(3, 2, seed=9), "a": normal(3, seed=10)}
    w, a = model.w.detach(), model.a.detach()
    h, dh = x @ w.T, x @ v["w"].T
    square = 2 * h * dh  # d(h^2)/dt
    first = square @ h.square().T
    second = (h * 2 * a * v["a"]) @ h.T + (dh * a.square()) @ h.T + (h * a.square()) @ dh.T
    expected = first + first.T + 4 * (x @ x.T) * second
    found = kernel_rate(OutputProbe(model, lambda m: m(x)), v)
    assert relative(found.rate, expected) < 1e-12


@pytest.mark.parametrize("preconditioned", [False, True])
def test_differential_ntk_sums_to_the_rate(preconditioned):
    model, x, _, _ = cases()
    inputs, targets = normal(5, 3, seed=11), normal(5, 3, seed=12)
    loss = squared_error(targets)
    probe, outputs = OutputProbe(model, lambda m: m(x)), OutputProbe(model, lambda m: m(inputs))
    p = {n: t.abs() + 0.3 for n, t in probe.parameters.items()} if preconditioned else None
    lr = 0.2
    v = gradient_velocity(OutputProbe(model, lambda m: loss.value(m(inputs))), lr, preconditioner=p)
    dh = differential_ntk(probe, outputs, preconditioner=p)
    assert dh.shape == (12, 12, 15)
    r = loss.gradient(model(inputs).detach()).numpy().reshape(-1)
    rate = -lr * ((dh + dh.transpose(1, 0, 2)) @ r)
    assert relative(rate, kernel_rate(probe, v, preconditioner=p).rate) < 1e-11
    own = differential_ntk(probe)
    # dH_abc = H_a contracted with J_b and J_c: symmetric in b, c where these are the same outputs.
    np.testing.assert_allclose(own, own.transpose(0, 2, 1), atol=1e-11 * np.abs(own).max())


def test_velocity_is_one_step_of_descent():
    model, _, train, _ = cases()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    v = gradient_velocity(train, 0.5)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with train.quiet():
        train(dict(model.named_parameters())).sum().backward()
    optimizer.step()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(v[name].numpy(), (p.detach() - before[name]).numpy(), atol=1e-14)
    with pytest.raises(SettingError, match="one output"):
        gradient_velocity(OutputProbe(model, lambda m: m(normal(2, 3))), 0.1)
    with pytest.raises(SettingError, match="velocity"):
        kernel_rate(train, {"other": torch.ones(1)})
    with pytest.raises(SettingError, match="shapes"):
        kernel_rate(train, {n: t[:1] for n, t in v.items()})
