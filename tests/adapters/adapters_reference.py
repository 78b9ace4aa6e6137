"""One small training problem and its plain PyTorch loop; every framework must record the same products of it.

Why the comparison may be bit for bit: samples come in a fixed order, in micro-batches of one size, and gradients are
accumulated over 4 of them. Lightning divides each loss by 4 before its backward pass, Accelerate and the Hugging Face
Trainer do as well, and so does the loop here. Dividing by a power of two is exact (nothing is near underflow), so it
would not even matter at which point it is done; with an accumulation of 3 it would.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

import spectraledge as se

ACCUMULATION = 4
MICRO_BATCH = 8
STEPS_AN_EPOCH = 6
SAMPLES = MICRO_BATCH * ACCUMULATION * STEPS_AN_EPOCH
STEPS = 20  # three epochs and a third
MONITORED: dict[str, Any] = {"window": 3, "every": 2, "blocks": "layer", "on_error": "raise"}


class Net(torch.nn.Module):
    """Three layers, tanh between them. Given targets it returns the mean squared error as well."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = torch.nn.Sequential(
                torch.nn.Linear(6, 16),
                torch.nn.Tanh(),
                torch.nn.Linear(16, 16),
                torch.nn.Tanh(),
                torch.nn.Linear(16, 2),
            )

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        predictions = self.net(x)
        if y is None:
            return predictions
        return {"loss": torch.nn.functional.mse_loss(predictions, y), "predictions": predictions}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """(SAMPLES, 6) inputs and (SAMPLES, 2) targets."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((SAMPLES, 6))
    y = np.stack([np.sin(x[:, 0] + x[:, 1]), x[:, 2] * x[:, 3]], axis=1)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def loader() -> torch.utils.data.DataLoader[Any]:
    """Micro-batches ``[x, y]`` in the order of the samples."""
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=MICRO_BATCH, shuffle=False)


def make_optimizer(model: torch.nn.Module, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, **options)


def plain_run(
    steps: int = STEPS,
    *,
    accumulation: int = ACCUMULATION,
    skipped: Collection[int] = (),
    clip: float | None = None,
    monitored: bool = True,
    optimizer_options: dict[str, Any] | None = None,
    **keywords: Any,
) -> tuple[se.Recording | None, Net, list[float]]:
    """Train with a loop of one's own.

    Args:
        steps: Groups of micro-batches; each ends in an optimizer step, but for those in ``skipped``.
        accumulation: Micro-batches a step.
        skipped: Groups (1-based) whose gradients are thrown away, as a gradient scaler does when they overflow.
        clip: Largest norm of the gradient.
        monitored: Whether to attach.
        optimizer_options: E.g. ``{"fused": True}``.
        **keywords: For ``attach``, over those in ``MONITORED``.

    Returns:
        The recording (None without monitor), the trained net, and the loss of every micro-batch.
    """
    model = Net()
    optimizer = make_optimizer(model, **(optimizer_options or {}))
    monitor = se.attach(model, optimizer, **{**MONITORED, **keywords}) if monitored else None
    losses = []
    batches = iter(())
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        for _ in range(accumulation):
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader())
                batch = next(batches)
            loss = model(*batch)["loss"]
            losses.append(float(loss.detach()))
            (loss / accumulation).backward()
        if step in skipped:
            continue
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    if monitor is None:
        return None, model, losses
    monitor.detach()
    return monitor.recording, model, losses


def assert_same_products(recording: se.Recording, reference: se.Recording) -> None:
    """Equal to the bit: step numbers, learning rates, products, norms; and the same blocks."""
    assert tuple(recording.blocks) == tuple(reference.blocks)
    for name in ("steps", "lr_sum", "products", "theta_dot", "theta_norm2"):
        np.testing.assert_array_equal(getattr(recording, name), getattr(reference, name), err_msg=name)


def assert_same_parameters(model: torch.nn.Module, reference: torch.nn.Module) -> None:
    """Equal to the bit, in the order of the parameters."""
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(one.detach(), other.detach())
