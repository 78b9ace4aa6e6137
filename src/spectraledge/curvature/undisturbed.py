"""Evaluate a model in the middle of its training and leave no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def undisturbed(model: torch.nn.Module, *, train: bool = False) -> Iterator[None]:
    """Inside, the model may be evaluated at will; outside, all is as before, bit for bit.

    Restored are the generators of torch (every accelerator that is in use), NumPy and Python, the training
    flag of each module, and every buffer (running statistics of normalisation layers, for one). Gradients are
    enabled inside. Parameters and their ``.grad`` are not touched by anything in this package.

    Args:
        model: The module that will be evaluated.
        train: Whether it is put into training mode (dropout active) rather than evaluation mode.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=_devices_in_use(model)), torch.enable_grad():
            model.train(train)
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, saved in buffers.items():
                if not torch.equal(buffer, saved):  # unchanged ones keep their version counter
                    buffer.copy_(saved)
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _devices_in_use(model: torch.nn.Module) -> list[torch.device]:
    tensors = [*model.parameters(), *model.buffers()]
    return sorted({t.device for t in tensors if t.device.type == "cuda"}, key=str)
