"""Two lines in a training loop, and what can be read from the recording afterwards.

    python examples/01_plain_pytorch.py [folder]

Trains a small classifier on the digits that ship with scikit-learn; about two seconds.
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits

import spectraledge as se

out = sys.argv[1] if len(sys.argv) > 1 else "runs/digits"
torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data / 16.0, dtype=torch.float32)
y = torch.tensor(digits.target)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)

# the two lines: this one ...
monitor = se.attach(model, optimizer, window=10, every=5, out=out, overwrite=True)

for step in range(1, 401):
    index = torch.randint(0, 1500, (64,))
    loss = torch.nn.functional.cross_entropy(model(x[index]), y[index])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        with torch.no_grad():
            accuracy = (model(x[1500:]).argmax(dim=1) == y[1500:]).float().mean()
        monitor.log(loss=loss, test_accuracy=accuracy)

# ... and this one
monitor.detach()

recording = se.load(out)
print(recording)
for block in recording.blocks:
    spectra = recording.spectra(window=10, block=block)
    gap = spectra.gap(rule="guarded")
    sigma = ", ".join(f"{s:.3g}" for s in spectra.singular_values[-1][:4])
    print(f"{block:>4}: sigma = {sigma}, ...; k* = {gap.position[-1]}, ratio {gap.ratio[-1]:.3f}")

# the same run seen through windows of 5 rows of 2 updates each, and how far disjoint windows agree
coarse = recording.spectra(window=5, stride=2)
steps, overlaps = recording.overlaps(window=10, lag=10)
print(f"stride 2: sigma_1 / sigma_2 = {coarse.ratios[-1, 0]:.3f} at step {coarse.steps[-1]}")
print(f"|<v_1(t), v_1(t - 10)>| = {abs(overlaps[-1, 0, 0]):.3f} at step {steps[-1]}")
