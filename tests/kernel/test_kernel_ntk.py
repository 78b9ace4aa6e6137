from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_models import Linear2, Quadratic, mlp, normal

from spectraledge.errors import DataError, SettingError
from spectraledge.kernel import (
    OutputProbe,
    adam_preconditioner,
    cross_entropy,
    from_function,
    jacobian,
    kernel_direction,
    kernel_matrix,
    residual,
    squared_error,
    top_spectrum,
)
from spectraledge.theory.kernel_spectrum import kernel_spectrum

# Closed forms and products in float64 over at most 100 terms: 1e-12 leaves four digits of room.
EXACT = 1e-12


def close(a, b, tolerance=EXACT):
    a, b = np.asarray(a), np.asarray(b)
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("method", ["jacobian", "products"])
@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_kernel_of_networks_with_a_closed_form(method, chunk_size):
    x = normal(5, 3)
    for model in (Quadratic(4, 3, generator()), Linear2(3, 4, 2, generator())):
        found = kernel_matrix(OutputProbe(model, lambda m: m(x)), method=method, chunk_size=chunk_size)
        close(found, model.kernel(x))
        assert (found == found.T).all()


def test_jacobian_is_that_of_torch():
    model, x = mlp(), normal(4, 3)
    probe = OutputProbe(model, lambda m: m(x))
    full = torch.func.jacrev(lambda theta: torch.func.functional_call(model, theta, (x,)).reshape(-1))(
        probe.parameters
    )
    close(jacobian(probe, chunk_size=3), torch.cat([full[name].flatten(1) for name in probe.parameters], dim=1))
    assert probe.shape == (4, 2)
    assert (probe.values() == model(x).detach().numpy().reshape(-1)).all()


def test_preconditioner_of_adam():
    model, x, y = mlp(), normal(6, 3), normal(6, 2, seed=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    probe = OutputProbe(model, lambda m: m(x))
    with pytest.raises(SettingError, match="Adam's second moment"):
        adam_preconditioner(probe, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    p = adam_preconditioner(probe, optimizer)
    state = optimizer.state[model[0].weight]
    close(p["0.weight"], (state["exp_avg_sq"] / (1 - 0.999**3)).sqrt() + 1e-8)
    j = jacobian(probe)
    diagonal = torch.cat([p[name].flatten() for name in probe.parameters])
    for method in ("jacobian", "products"):
        close(kernel_matrix(probe, preconditioner=p, method=method), (j / diagonal) @ j.T)
    with pytest.raises(SettingError, match="positive"):
        kernel_matrix(probe, preconditioner={**p, "0.weight": torch.zeros(6, 3)})
    with pytest.raises(SettingError, match="only one of the two"):
        kernel_matrix(probe, preconditioner={"0.weight": p["0.weight"]})


def test_loss_weighted_kernel_is_the_gauss_newton_matrix_seen_from_the_outputs():
    model, x = mlp(outputs=3), normal(5, 3)
    y, labels = normal(5, 3, seed=4), torch.tensor([0, 1, 2, 1, 0])
    probe = OutputProbe(model, lambda m: m(x))
    j = jacobian(probe).numpy()
    f = model(x).detach()
    p = torch.softmax(f, dim=-1)
    blocks = {
        "squared": (squared_error(y), [np.eye(3) / 5] * 5),
        "entropy": (cross_entropy(labels), [(np.diag(r) - np.outer(r, r)) / 5 for r in p.numpy()]),
    }
    for loss, b in blocks.values():
        # Nonzero spectrum of B^(1/2) J J^T B^(1/2) is that of J^T B J.
        dense = np.zeros((15, 15))
        for i in range(5):
            dense[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = b[i]
        gauss_newton = np.linalg.eigvalsh(j.T @ dense @ j)[::-1][:15]
        kernel = kernel_matrix(probe, loss=loss)
        close(np.linalg.eigvalsh(kernel)[::-1], gauss_newton)
        generic = from_function(loss.value)
        close(kernel_matrix(probe, loss=generic), kernel)
        # z lives in the range of B^(1/2), and B^(1/2) z is the gradient.
        z = residual(probe, loss)
        values, vectors = np.linalg.eigh(dense)
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        # Roots of null eigenvalues (1e-17) are 1e-9 of the largest: they bound what the comparison can show.
        close(root @ z, loss.gradient(f).numpy().reshape(-1), 1e-8)
    close(residual(probe, squared_error(y)), (f - y).numpy().reshape(-1) / np.sqrt(5))


def test_a_loss_that_is_not_convex_is_refused():
    probe = OutputProbe(mlp(), lambda m: m(normal(3, 3)))
    with pytest.raises(SettingError, match="convex"):
        kernel_matrix(probe, loss=from_function(lambda f: -f.square().sum()))
    with pytest.raises(SettingError, match="targets must have"):
        residual(probe, squared_error(normal(4, 2)))
    with pytest.raises(SettingError, match="targets must have"):
        residual(probe, cross_entropy(torch.tensor([0])))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_lanczos_agrees_with_the_whole_spectrum(dtype):
    model = mlp(width=30, outputs=4, dtype=dtype)
    x, labels = normal(15, 3).to(dtype), torch.arange(15) % 4
    probe, loss = OutputProbe(model, lambda m: m(x)), cross_entropy(labels)
    whole = kernel_spectrum(kernel_matrix(probe, loss=loss))
    top = top_spectrum(probe, 6, loss=loss, rng=np.random.default_rng(0))
    # Products are rounded in the dtype: some eps of the largest eigenvalue each.
    tolerance = 100 * torch.finfo(dtype).eps * whole.eigenvalues[0]
    np.testing.assert_allclose(top.eigenvalues, whole.eigenvalues[:6], atol=tolerance, rtol=0)
    overlaps = np.abs(np.sum(top.eigenvectors[:, :3] * whole.eigenvectors[:, :3], axis=0))
    # A vector turns by tolerance / gap; the first three gaps exceed 2 % of the largest eigenvalue here.
    np.testing.assert_allclose(overlaps, 1.0, atol=(5000 * torch.finfo(dtype).eps) ** 2 + 1e-12)
    assert top.resolved.all()
    with pytest.raises(SettingError, match="n_eigenvalues"):
        top_spectrum(probe, 60, rng=np.random.default_rng(0))


def test_direction_of_a_mode_moves_the_outputs_along_it_and_nothing_is_shorter():
    model, x, y = mlp(), normal(3, 3), normal(3, 2)
    probe, loss = OutputProbe(model, lambda m: m(x)), squared_error(y)
    p = {name: t.abs() + 0.5 for name, t in probe.parameters.items()}
    spectrum = kernel_spectrum(kernel_matrix(probe, loss=loss, preconditioner=p))
    j, diagonal = jacobian(probe).numpy(), torch.cat([p[n].flatten() for n in probe.parameters]).numpy()
    for mode in range(3):
        q, kappa = spectrum.eigenvectors[:, mode], spectrum.eigenvalues[mode]
        parts = kernel_direction(probe, q, loss=loss, preconditioner=p)
        flat = np.concatenate([parts[n].reshape(-1) for n in probe.parameters])
        close(j @ flat / np.sqrt(3), kappa * q, 1e-11)  # B^(1/2) = 1 / sqrt(3)
        close(flat @ (diagonal * flat), kappa, 1e-11)
        shortest = np.linalg.lstsq(j / np.sqrt(3) / np.sqrt(diagonal), kappa * q, rcond=None)[0]
        close(np.sqrt(diagonal) * flat, shortest, 1e-9)  # condition number of J here: 1e2


def test_what_a_probe_refuses():
    model, x = mlp(), normal(3, 3)
    with pytest.raises(SettingError, match="at least one trainable parameter"):
        OutputProbe(model, lambda m: m(x), params="nothing")
    with pytest.raises(SettingError, match="one real tensor"):
        OutputProbe(model, lambda m: [m(x)]).values()
    with pytest.raises(SettingError, match="method"):
        kernel_matrix(OutputProbe(model, lambda m: m(x)), method="fast")
    with pytest.raises(SettingError, match="chunk_size"):
        jacobian(OutputProbe(model, lambda m: m(x)), chunk_size=0)
    with pytest.raises(DataError, match="finite"):
        kernel_matrix(OutputProbe(model, lambda m: m(x) / 0))
    assert list(OutputProbe(model, lambda m: m(x), params=r"^2\.").parameters) == ["2.weight", "2.bias"]
    with pytest.raises(SettingError, match="one entry per output"):
        kernel_direction(OutputProbe(model, lambda m: m(x)), np.ones(5))
