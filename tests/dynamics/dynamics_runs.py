"""A small network trained under probes, with every snapshot kept: what the theory on a recording is checked with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import spectraledge as se
from spectraledge.recording import Recording, RecordingWriter

W = 4


@dataclass
class Trained:
    """A recording beside the explicit vectors behind it. T updates, P parameters.

    Attributes:
        recording: What the monitor left.
        theta: (T + 1, P) snapshots; update t leads from row t to row t + 1.
        lr: Rate of every step.
        decay: omega.
    """

    recording: Recording
    theta: np.ndarray
    lr: float
    decay: float
    model: torch.nn.Module
    losses: dict

    @property
    def updates(self) -> np.ndarray:
        return np.diff(self.theta, axis=0)

    def at(self, row: int, name: str) -> torch.Tensor:
        """Loss at snapshot ``row``, as a function that can be differentiated."""
        start = 0
        for p in self.model.parameters():
            p.data = torch.from_numpy(self.theta[row, start : start + p.numel()].reshape(p.shape).copy())
            start += p.numel()
        return self.losses[name](self.model)

    def gradient(self, row: int, name: str) -> np.ndarray:
        grads = torch.autograd.grad(self.at(row, name), list(self.model.parameters()))
        return np.concatenate([g.reshape(-1).numpy() for g in grads])

    def hessian_product(self, row: int, v: np.ndarray) -> np.ndarray:
        parameters = list(self.model.parameters())
        grads = torch.autograd.grad(self.at(row, "train"), parameters, create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in grads])
        parts = torch.autograd.grad(flat @ torch.from_numpy(v), parameters)
        return np.concatenate([g.reshape(-1).numpy() for g in parts])

    def modes(self, t: int, window: int = W) -> tuple[np.ndarray, np.ndarray]:
        """sigma (W) and v (W, P) of the window whose newest update is t."""
        _, sigma, v = np.linalg.svd(self.updates[t - window + 1 : t + 1], full_matrices=False)
        return sigma, v


def train(
    optimizer: str = "sgd",
    n_updates: int = 60,
    *,
    probe_every: int = 2,
    val: bool = True,
    blocks: str = "layer",
    noise: float = 0.0,
    next_gradients: bool = True,
) -> Trained:
    """Train a network of 29 parameters in float64 for ``n_updates`` steps, each a snapshot."""
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    x = {name: torch.from_numpy(rng.normal(size=(40, 3))) for name in ("train", "val")}
    y = {name: torch.sin(a.sum(dim=1, keepdim=True)) for name, a in x.items()}
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    lr, decay = (0.05, 0.0) if optimizer == "sgd" else (0.01, 0.1)
    made = (
        torch.optim.SGD(model.parameters(), lr=lr)
        if optimizer == "sgd"
        else torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    )
    losses = {name: (lambda m, name=name: (m(x[name]) - y[name]).square().mean()) for name in x}
    probe = se.Probe(
        train=losses["train"], val=losses["val"] if val else None, modes=W, span=2, random=2, eigenvalues=1,
        curvature="exact", next_gradients=next_gradients,
    )  # fmt: skip
    monitor = se.attach(model, made, window=W, every=1, blocks=blocks, probe=probe, probe_every=probe_every)
    theta = [_flat(model)]
    for _ in range(n_updates):
        made.zero_grad()
        losses["train"](model).backward()
        for p in model.parameters():
            p.grad += noise * torch.from_numpy(rng.normal(size=tuple(p.shape)))
        made.step()
        theta.append(_flat(model))
    monitor.detach()
    return Trained(monitor.recording, np.array(theta), lr, decay, model, losses)


def _flat(model: torch.nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().reshape(-1).numpy().copy() for p in model.parameters()])


@dataclass
class Planted:
    """Updates of noise of unit norm around a constant direction, in a recording of one block."""

    n_updates: int
    n_parameters: int = 300
    lags: int = 19
    drift: float = 0.0
    seed: int = 0
    seam_at: int | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.updates = rng.normal(size=(self.n_updates, self.n_parameters)) / np.sqrt(self.n_parameters)
        self.updates[:, 0] += self.drift

    def recording(self) -> Recording:
        writer = RecordingWriter(None)
        writer.write(
            "segment", segment=0, step=0, reason="start", blocks=["all"], block_info=[], lags=self.lags,
            update_dtype="float64", momentum=None, every=1, n_parameters=self.n_parameters,
            groups=[{"optimizer": 0, "class": "SGD", "lr": 0.1, "weight_decay": 0.0}],
        )  # fmt: skip
        for t in range(self.n_updates):
            oldest = self.seam_at if self.seam_at is not None and t >= self.seam_at else 0
            products = np.full((1, self.lags + 1), np.nan)
            for lag in range(min(self.lags, t - oldest) + 1):
                products[0, lag] = self.updates[t] @ self.updates[t - lag]
            writer.write(
                "row", t=t, segment=0, step=t + 1, n_steps=1, lr_sum=[0.1], products=products, theta_dot=[0.0],
                theta_norm2=[1.0], flags=["seam"] if t == self.seam_at else [],
            )  # fmt: skip
        return Recording.from_log(writer.log())
