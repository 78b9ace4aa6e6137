"""A frozen kernel predicts the updates and the loss of a model linear in its parameters exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_models import mlp, normal

from spectraledge.kernel import OutputProbe, kernel_matrix, residual, squared_error
from spectraledge.theory.kernel_spectrum import kernel_spectrum
from spectraledge.theory.lazy import compare_grams, loss_curve, loss_curve_error, predicted_gram


def descend(model, value, lr, steps, stride, preconditioner=None):
    """Gradient descent; updates (steps / stride, P) and the loss before every step."""
    names, params = zip(*model.named_parameters())
    rows, losses = [], []
    last = torch.cat([p.detach().flatten() for p in params])
    for step in range(steps):
        loss = value()
        losses.append(float(loss.detach()))
        grads = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for name, p, g in zip(names, params, grads):
                p.sub_(lr * (g if preconditioner is None else g / preconditioner[name]))
        if (step + 1) % stride == 0:
            now = torch.cat([p.detach().flatten() for p in params])
            rows.append((now - last).numpy())
            last = now
    return np.array(rows), np.array(losses)


@pytest.mark.parametrize("stride", [1, 7])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_linear_model_exactly(stride, preconditioned):
    window = 6
    x, y = normal(12, 4), normal(12, 2, seed=2)
    model = torch.nn.Linear(4, 2).double()
    with torch.no_grad():
        model.weight.copy_(normal(2, 4, seed=3))
        model.bias.zero_()
    probe, loss = OutputProbe(model, lambda m: m(x)), squared_error(y)
    p = {n: 0.5 + normal(*t.shape, seed=4).abs() for n, t in probe.parameters.items()} if preconditioned else None
    squared = {n: t.square() for n, t in p.items()} if p else None
    spectrum = kernel_spectrum(kernel_matrix(probe, loss=loss, preconditioner=p))
    metric = kernel_matrix(probe, loss=loss, preconditioner=squared) if p else None
    z = residual(probe, loss)
    lr = 0.7 / spectrum.eigenvalues[0]
    found = predicted_gram(spectrum.eigenvalues, spectrum.eigenvectors, z, lr, stride, window, metric=metric)
    rows, losses = descend(model, lambda: loss.value(model(x)), lr, stride * window, stride, p)
    # Sums of at most 1e3 rounded terms, of a Gram whose rows are differences: 1e-12 of the whole.
    assert compare_grams(found.gram, rows @ rows.T).relative_error < 1e-11
    curve = loss_curve(spectrum.eigenvalues, spectrum.coefficients(z), lr, np.arange(len(losses)))
    np.testing.assert_allclose(curve, losses, rtol=1e-11)
    assert loss_curve_error(curve, losses) < 1e-11
    # In the metric P the profiles alone give the Gram.
    if p:
        weight = torch.cat([t.flatten() for t in p.values()]).numpy()
        plain = predicted_gram(spectrum.eigenvalues, spectrum.eigenvectors, z, lr, stride, window)
        assert compare_grams(plain.gram, (rows * weight) @ rows.T).relative_error < 1e-11
    # The printed curve lacks the half and the discreteness.
    author = loss_curve(spectrum.eigenvalues, spectrum.coefficients(z), lr, [0], mode="author")
    np.testing.assert_allclose(author, 2 * losses[:1], rtol=1e-12)


def test_wide_network_gets_closer_to_the_prediction_as_it_becomes_lazy():
    # Scaling outputs up by a and the loss down makes a network lazy: the kernel moves by O(1/a) over a window.
    errors = []
    x, y = normal(6, 3), normal(6, 2, seed=2)
    for scale in (1.0, 10.0, 100.0):
        model = mlp(width=20)
        start = model(x).detach()

        def f(m, scale=scale, start=start):
            return scale * (m(x) - start)

        probe, loss = OutputProbe(model, f), squared_error(y)
        spectrum = kernel_spectrum(kernel_matrix(probe, loss=loss))
        lr = 0.5 / spectrum.eigenvalues[0]
        z = residual(probe, loss)
        found = predicted_gram(spectrum.eigenvalues, spectrum.eigenvectors, z, lr, 2, 5)
        rows, _ = descend(model, lambda f=f, m=model, loss=loss: loss.value(f(m)), lr, 10, 2)
        errors.append(float(compare_grams(found.gram, rows @ rows.T).relative_error))
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 0.02
