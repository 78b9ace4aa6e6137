"""Promise 1: attached or not, training is the same to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stream_reference import batch, small_transformer

import spectraledge as se

Make = Callable[[torch.nn.Module], list[torch.optim.Optimizer]]


def adamw(**options: Any) -> Make:
    return lambda m: [torch.optim.AdamW(m.parameters(), lr=1e-2, weight_decay=0.5, **options)]


def muon(m: torch.nn.Module) -> list[torch.optim.Optimizer]:
    hidden = [p for n, p in m.named_parameters() if p.ndim == 2 and "encoder" in n]
    rest = [p for n, p in m.named_parameters() if not (p.ndim == 2 and "encoder" in n)]
    return [torch.optim.Muon(hidden, lr=0.02, weight_decay=0.1), torch.optim.AdamW(rest, lr=1e-2)]


OPTIMIZERS: dict[str, Make] = {
    "adamw-foreach": adamw(foreach=True),
    "adamw-fused": adamw(fused=True),
    "muon+adamw": muon,
    "sgd-momentum": lambda m: [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9)],
    "lbfgs": lambda m: [torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=3, history_size=4)],
    "scaler-unfused": adamw(),
    "scaler-fused": adamw(fused=True),
}
STEPS = 200
SKIPPED = (20, 21, 130)  # steps whose gradient overflows under the scaler


def run(kind: str, attached: bool) -> tuple[dict[str, torch.Tensor], list[float], Any, Any]:
    """200 steps; all state that training leaves behind, the losses and the recording."""
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002 - the global generator is what must not be touched
    random.seed(11)
    model = small_transformer()
    for layer in model.encoder.layers:  # dropout draws from the global generator
        layer.dropout.p = 0.1
    optimizers = OPTIMIZERS[kind](model)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=30) if "scaler" in kind else None
    monitor = None
    if attached:
        decoupled = kind.startswith(("adamw", "muon", "scaler"))
        monitor = se.attach(
            model, optimizers, window=5, every=1, blocks="head", decay_products=decoupled, on_error="raise"
        )
    generator = torch.Generator().manual_seed(1)
    losses = []
    for step in range(STEPS):
        x, y = batch(generator)

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            (loss if scaler is None else scaler.scale(loss)).backward()
            return loss

        if kind == "lbfgs":
            loss = optimizers[0].step(closure)
        else:
            loss = closure()
            if scaler is None:
                for optimizer in optimizers:
                    optimizer.step()
            else:
                if step in SKIPPED:
                    model.head.weight.grad[0, 0] = float("inf")
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
        losses.append(float(loss.detach()))
        if monitor is not None:
            monitor.log(loss=losses[-1])
    recording = None
    if monitor is not None:
        monitor.detach()
        recording = monitor.recording
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"grad.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    for i, optimizer in enumerate(optimizers):
        for j, entry in enumerate(optimizer.state.values()):
            state |= {
                f"opt.{i}.{j}.{k}": torch.as_tensor(v) for k, v in entry.items() if isinstance(v, (int, torch.Tensor))
            }
            state |= {
                f"opt.{i}.{j}.{k}.{n}": t
                for k, v in entry.items()
                if isinstance(v, list)
                for n, t in enumerate(v)
                if isinstance(t, torch.Tensor)
            }
    state["rng"] = torch.get_rng_state()
    drawn = (np.random.random(), random.random())  # noqa: NPY002
    return state, losses, drawn, recording


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_bit_equal_with_and_without(kind: str) -> None:
    bare_state, bare_losses, bare_rng, _ = run(kind, attached=False)
    state, losses, rng, recording = run(kind, attached=True)
    assert losses == bare_losses
    assert rng == bare_rng
    assert state.keys() == bare_state.keys()
    for name, tensor in bare_state.items():
        assert torch.equal(tensor, state[name]), name
    n_steps = STEPS - (len(SKIPPED) if "scaler" in kind else 0)
    assert recording.steps.tolist() == list(range(1, n_steps + 1))
    if "scaler" in kind or kind.startswith("adamw"):
        # decay_norm2 is (lr wd)^2 ||theta||^2 of the one step: none is counted for a step that was skipped
        before = recording.theta_norm2[:-1, 0]  # after update t, so before update t + 1
        np.testing.assert_allclose(recording.decay_norm2[1:, 0], (1e-2 * 0.5) ** 2 * before, rtol=1e-5)
    if kind != "lbfgs":  # which converges, and then does not move
        assert not any("zero_update" in flags for flags in recording.flags)
