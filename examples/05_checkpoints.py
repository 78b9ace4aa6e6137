"""The same recording from a folder of checkpoints, long after the run, whatever wrote them.

    python examples/05_checkpoints.py [folder]

Saves a short run's checkpoints as training loops do (``torch.save`` of model, optimizer and step), as safetensors,
and as torch's distributed checkpoints; analyses each series, and compares it with the live recording.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_model

import spectraledge as se

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/checkpoints")
for kind in ("torch", "safetensors", "distributed"):
    (folder / kind).mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def save(step: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, folder / "torch" / f"ckpt_{step:06}.pt")
    save_model(model, str(folder / "safetensors" / f"step-{step}.safetensors"))
    with warnings.catch_warnings():  # that one process alone saves
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder / "distributed" / f"step-{step}")


with se.attach(model, optimizer, window=5, every=10) as monitor:
    for step in range(201):
        if step % 10 == 0:
            save(step)
        inputs = torch.randn(64, 20)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1)).backward()
        optimizer.step()

live = monitor.recording
for kind in ("torch", "safetensors", "distributed"):
    offline = se.analyze(folder / kind, window=5)
    a, b = offline.products[:20, offline.blocks.index("all")], live.products[:20, live.blocks.index("all")]
    norms = np.sqrt(b[:, 0])
    difference = np.nanmax(abs(a - b) / norms[:, None] / norms.min())
    print(f"{kind}: {offline}; largest difference from the live recording, relative: {difference:.1e}")
