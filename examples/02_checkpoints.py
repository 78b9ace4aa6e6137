"""The same recording from a folder of checkpoints, long after the run.

    python examples/02_checkpoints.py [folder]

Saves a short run's checkpoints as safetensors, analyses them, and compares with the live recording.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_model

import spectraledge as se

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/checkpoints")
folder.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

with se.attach(model, optimizer, window=5, every=10) as monitor:
    for step in range(201):
        if step % 10 == 0:
            save_model(model, str(folder / f"step-{step}.safetensors"))
        inputs = torch.randn(64, 20)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1)).backward()
        optimizer.step()

offline = se.analyze(folder, window=5)
live = monitor.recording
a, b = offline.products[:20, offline.blocks.index("all")], live.products[:20, live.blocks.index("all")]
norms = np.sqrt(b[:, 0])
print(offline)
print(
    "largest difference from the live recording, relative:",
    f"{np.nanmax(abs(a - b) / norms[:, None] / norms.min()):.1e}",
)
