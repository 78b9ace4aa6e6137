from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from kernel_models import displace, mlp, normal

from spectraledge.kernel import OutputProbe, from_function, gradient_velocity, kernel_matrix, measure_adiabatic
from spectraledge.theory.adiabatic import adiabatic_parameter, kernel_adiabatic
from spectraledge.theory.kernel_spectrum import kernel_gap, kernel_spectrum


def unit_loss(y, unit):
    return from_function(lambda f: unit * (f - y).square().sum() / (2 * len(y)))


def run(x, y, *, unit, lr, p, steps=20):
    """A_ker between two snapshots, the loss in a unit of ours, and the updates on the way."""
    model = mlp(width=5)
    loss = unit_loss(y, unit)
    train = OutputProbe(model, lambda m: loss.value(m(x)))
    kernels, rows = [], []
    for step in range(steps + 1):
        v = gradient_velocity(OutputProbe(model, train._call._function[0]), lr, preconditioner=p)
        if step in (0, steps):
            kernels.append(kernel_matrix(OutputProbe(model, lambda m: m(x)), loss=loss, preconditioner=p))
        rows.append(torch.cat([t.flatten() for t in v.values()]).numpy())
        model = displace(model, v, 1.0)
    spectrum = kernel_spectrum(kernels[0])
    gap = kernel_gap(spectrum.eigenvalues, floor=spectrum.floor)
    a = kernel_adiabatic(kernels[1] - kernels[0], gap.width, lr, steps)
    rows = np.array(rows)
    return float(a), int(gap.position), rows @ rows.T


@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_ker_has_no_unit_and_a_abs_has(preconditioned):
    x, y = normal(6, 3), normal(6, 2, seed=2)
    p = {n: 0.5 + t.detach().abs() for n, t in mlp(width=5).named_parameters()} if preconditioned else None
    lr, c = 0.05, 1e3
    plain, position, gram = run(x, y, unit=1.0, lr=lr, p=p)
    # The same path in another unit of the loss: lr falls as the loss grows.
    rescaled, other, gram_c = run(x, y, unit=c, lr=lr / c, p=p)
    assert other == position
    assert rescaled == pytest.approx(plain, rel=1e-8)
    np.testing.assert_allclose(gram_c, gram, rtol=1e-8)
    block, block_c = gram[:11, :11], gram_c[:11, :11]
    absolute = adiabatic_parameter(block, 10, mode="author", lr=lr)
    assert adiabatic_parameter(block_c, 10, mode="author", lr=lr / c) / absolute == pytest.approx(c, rel=1e-6)
    assert adiabatic_parameter(block_c, 10) == pytest.approx(adiabatic_parameter(block, 10), rel=1e-6)
    # Every input twice: the same mean loss, the same path, more outputs.
    repeated, other, _ = run(x.repeat(2, 1), y.repeat(2, 1), unit=1.0, lr=lr, p=p)
    assert other == position
    assert repeated == pytest.approx(plain, rel=1e-8)
    if p:
        # An adaptive optimizer's P has the loss's unit: then lr stays, and so does A.
        adaptive, _, _ = run(x, y, unit=c, lr=lr, p={n: c * t for n, t in p.items()})
        assert adaptive == pytest.approx(plain, rel=1e-8)


def test_the_unweighted_kernel_has_units():
    # K = J J^T instead of K_l: A_ker grows with the unit of the loss, and with n when data repeat.
    x, y = normal(6, 3), normal(6, 2, seed=2)
    found = []
    for unit, inputs, targets in ((1.0, x, y), (10.0, x, y), (1.0, x.repeat(2, 1), y.repeat(2, 1))):
        model, loss = mlp(width=5), unit_loss(targets, unit)
        v = gradient_velocity(OutputProbe(model, lambda m, i=inputs, fn=loss: fn.value(m(i))), 0.05 / unit)
        k = kernel_matrix(OutputProbe(model, lambda m, i=inputs: m(i)))
        after = kernel_matrix(OutputProbe(displace(model, v, 1.0), lambda m, i=inputs: m(i)))
        spectrum = kernel_spectrum(k)
        width = kernel_gap(spectrum.eigenvalues, floor=spectrum.floor, position=1).width
        found.append(float(kernel_adiabatic(after - k, width, 0.05 / unit)))
    assert found[1] / found[0] == pytest.approx(10.0, rel=1e-8)
    # ||dK|| doubles, g^2 quadruples.
    assert found[2] / found[0] == pytest.approx(0.5, rel=1e-8)


def test_the_rate_gives_the_limit_of_small_steps_and_lr_cancels():
    x, y = normal(6, 3), normal(6, 2, seed=2)
    model, loss = mlp(width=5), unit_loss(y, 1.0)
    probe, train = OutputProbe(model, lambda m: m(x)), OutputProbe(model, lambda m: loss.value(m(x)))
    before = copy.deepcopy(model.state_dict())
    states = [measure_adiabatic(probe, gradient_velocity(train, lr), lr, loss=loss) for lr in (0.1, 1e-4)]
    assert states[0].value == pytest.approx(states[1].value, rel=1e-10)
    moved = OutputProbe(displace(model, gradient_velocity(train, 1e-6), 1.0), lambda m: m(x))
    change = kernel_matrix(moved, loss=loss) - kernel_matrix(probe, loss=loss)
    # First order in lr = 1e-6: an error of about 1e-6 of the value, and rounding 1e-16 / 1e-6.
    assert kernel_adiabatic(change, states[0].gap.width, 1e-6) == pytest.approx(states[0].value, rel=1e-4)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    imposed = measure_adiabatic(probe, gradient_velocity(train, 0.1), 0.1, loss=loss, position=3)
    assert int(imposed.gap.position) == 3
