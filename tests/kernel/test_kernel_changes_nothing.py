"""Looking at a model leaves it, and the random generators, bit for bit as they were."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from kernel_models import normal

from spectraledge.errors import DataError
from spectraledge.kernel import (
    Compression,
    OutputProbe,
    compressibility,
    cross_entropy,
    differential_ntk,
    gradient_velocity,
    kernel_direction,
    kernel_matrix,
    kernel_rate,
    measure_adiabatic,
    residual,
    top_spectrum,
)


class Everything(torch.nn.Module):
    """Tied embedding, batch statistics, dropout, attention, a frozen tensor."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 8)
        self.attention = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.norm = torch.nn.BatchNorm1d(8)
        self.head = torch.nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = torch.nn.Parameter(torch.ones(8), requires_grad=False)

    def forward(self, tokens):
        return self.head(self.norm(self.attention(self.embed(tokens)).mean(dim=1)) * self.frozen)


def state(model):
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [m.training for m in model.modules()],
        [(p.data_ptr(), p._version) for p in model.parameters()],
        torch.random.get_rng_state(),
    )


def same(a, b):
    return (
        all(torch.equal(a[0][k], b[0][k]) for k in a[0])
        and all((x is None and y is None) or torch.equal(x, y) for x, y in zip(a[1], b[1]))
        and a[2:5] == b[2:5]
        and torch.equal(a[5], b[5])
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_nothing_changes(training, grad):
    torch.manual_seed(0)
    model = Everything().double()
    model.attention.eval()  # a mixture of flags is kept as it is
    tokens, labels = torch.arange(12).reshape(4, 3) % 7, torch.tensor([0, 1, 2, 3])
    torch.nn.functional.cross_entropy(model(tokens), labels).backward()
    probe = OutputProbe(model, lambda m: m(tokens), training=training)
    train = OutputProbe(model, lambda m: torch.nn.functional.cross_entropy(m(tokens), labels), training=training)
    loss, rng = cross_entropy(labels), np.random.default_rng(0)
    before = state(model)
    with grad():
        v = gradient_velocity(train, 0.1)
        kernels = [kernel_matrix(probe, method=m) for m in ("jacobian", "products")]
        rate = kernel_rate(probe, v, loss=loss)
        top_spectrum(probe, 3, rng=rng)
        residual(probe, loss)
        kernel_direction(probe, np.ones(28))
        measure_adiabatic(probe, v, 0.1, loss=loss)
        compressibility(model, lambda m: float(m(tokens).sum()), ways=[Compression("prune", 0.5)], n_controls=1)
        with pytest.raises(DataError):
            kernel_matrix(OutputProbe(model, lambda m: m(tokens) * torch.nan))
    assert same(before, state(model))
    assert not any(t.requires_grad for t in v.values())
    # Dropout draws the same mask in every evaluation, so both methods see one function.
    np.testing.assert_allclose(kernels[0], kernels[1], atol=1e-11 * np.abs(kernels[0]).max())
    assert np.isfinite(rate.rate).all()


def test_tied_weights_count_once_and_frozen_ones_not_at_all():
    torch.manual_seed(1)
    model = Everything().double()
    probe = OutputProbe(model, lambda m: m(torch.zeros(1, 2, dtype=torch.long)))
    assert "head.weight" not in probe.parameters
    assert "frozen" not in probe.parameters
    assert probe.n_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_hooks_and_optimizer_go_on_as_if_nothing_had_been_measured():
    torch.manual_seed(2)
    first = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1)).double()
    x, y = normal(8, 3), normal(8, 1)
    paths = []
    for measured in (False, True):
        model = copy.deepcopy(first)
        torch.manual_seed(3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            if measured:
                differential_ntk(OutputProbe(model, lambda m: m(x[:2])))
            optimizer.step()
        paths.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*paths))
