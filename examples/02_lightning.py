"""The same in Lightning: one callback, and what it recorded.

    python examples/02_lightning.py [folder]

Trains a small classifier on the digits that ship with scikit-learn; about ten seconds, most of them imports.
"""

from __future__ import annotations

import sys
import warnings

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import spectraledge as se
from spectraledge.adapters.lightning import SpectralEdge

warnings.filterwarnings("ignore", module="lightning")  # its advice on workers, which small data do not need
warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # Lightning 2.6 on torch 2.13
out = sys.argv[1] if len(sys.argv) > 1 else "runs/digits-lightning"


class Digits(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self.net(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)


pl.seed_everything(0, verbose=False)
digits = load_digits()
data = TensorDataset(torch.tensor(digits.data / 16.0, dtype=torch.float32), torch.tensor(digits.target))
train, test = torch.utils.data.Subset(data, range(1500)), torch.utils.data.Subset(data, range(1500, len(data)))

# the one line; its keywords are those of spectraledge.attach, and `every` counts steps of the optimizer. Add
# save_ring=True where you save checkpoints: then fit(ckpt_path=...) goes on with the same recording, bit for bit.
spectral_edge = SpectralEdge(window=10, every=5, out=out, overwrite=True)

quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = pl.Trainer(max_epochs=15, accelerator="cpu", callbacks=[spectral_edge], **quiet)
trainer.fit(Digits(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(test, batch_size=512))

recording = se.load(out)
print(f"{recording}, accuracy {recording.metrics['accuracy'][1][-1]:.3f}")
for block in recording.blocks:
    gap = recording.spectra(window=10, block=block).gap(rule="guarded")
    print(f"{block:>5}: k* = {gap.position[-1]}, sigma_k / sigma_k+1 = {gap.ratio[-1]:.3f} at step {gap.steps[-1]}")
