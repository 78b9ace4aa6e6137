"""The checkpoints that Lightning itself writes: hyperparameters, callbacks and loops beside the state dict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning")

# In a process of its own: Lightning's warnings and its imports are not this suite's.
TRAIN = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch, lightning
from lightning.pytorch.callbacks import ModelCheckpoint
class Model(lightning.LightningModule):
    def __init__(self, lr=0.1, path=Path("x"), options={"a": (1, 2)}):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(4, 3)
    def training_step(self, batch, i):
        loss = self.net(batch[0]).square().mean()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}
torch.manual_seed(0)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 4)), batch_size=2)
saver = ModelCheckpoint(sys.argv[1], every_n_train_steps=2, save_top_k=-1, save_last=True, monitor="loss")
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", callbacks=[saver], logger=False,
                            enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Model(), data)
saved = torch.load(sys.argv[1] + "/epoch=0-step=4.ckpt", weights_only=False)["state_dict"]
print("RESULT" + json.dumps({name: value.tolist() for name, value in saved.items()}))
"""


def test_a_series_of_lightning(tmp_path: Path) -> None:
    from spectraledge.checkpoints.series import find_series

    done = subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    saved = json.loads(done.stdout.split("RESULT")[1])
    series = find_series(tmp_path)
    assert series.steps == [2, 4, 6, 8]
    assert series.ignored == ("last.ckpt",)
    with series.checkpoints[1].open() as reader:
        assert {name: reader.read(name).tolist() for name in reader.tensors} == saved
