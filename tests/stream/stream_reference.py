"""Naive references and small real training runs for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def small_transformer(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Embedding, two encoder layers, norm, head: every kind of tensor, a fused projection included."""
    torch.manual_seed(seed)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(11, 16)
            layer = torch.nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True)
            self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.norm = torch.nn.LayerNorm(16)
            self.head = torch.nn.Linear(16, 11)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.encoder(self.embed(x)))[:, 0])

    return Model().to(dtype)


def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randint(0, 11, (32, 3), generator=generator)
    return x, x.sum(dim=1) % 11


def train(
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    steps: int,
    after: Callable[[int], None] = lambda step: None,
    seed: int = 1,
) -> list[float]:
    """A plain loop; returns the losses."""
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for step in range(1, steps + 1):
        x, y = batch(generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(float(loss.detach()))
        after(step)
    return losses


def flat(model: torch.nn.Module, names: list[str] | None = None) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for n, p in model.named_parameters() if names is None or n in names])


def band(updates: np.ndarray, lags: int) -> np.ndarray:
    """Brute force ``<delta_t, delta_{t-l}>`` in extended precision, shape (T, L + 1), NaN before the start."""
    rows = updates.astype(np.longdouble)
    out = np.full((len(rows), lags + 1), np.nan)
    for t in range(len(rows)):
        for lag in range(min(t, lags) + 1):
            out[t, lag] = float(np.sum(rows[t] * rows[t - lag]))
    return out


def relative_error(products: np.ndarray, updates: np.ndarray) -> float:
    """Largest error of a band, relative to ||delta_t|| ||delta_{t-l}||."""
    lags = products.shape[1] - 1
    reference = band(updates, lags)
    assert np.array_equal(np.isnan(reference), np.isnan(products))
    norms = np.linalg.norm(updates.astype(np.longdouble), axis=1)
    worst = 0.0
    for t in range(len(updates)):
        for lag in range(min(t, lags) + 1):
            worst = max(worst, float(abs(reference[t, lag] - products[t, lag]) / (norms[t] * norms[t - lag])))
    return worst
