"""The Hugging Face Trainer with one callback more: train, stop, resume, and read what was recorded.

    python examples/03_hf_trainer.py [folder]

Trains a small GPT-2 from nothing to continue sequences that repeat themselves; about fifteen seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from spectraledge.adapters.transformers import SpectralEdgeCallback

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/hf")
torch.manual_seed(0)
halves = torch.randint(0, 32, (2048, 8))
tokens = torch.cat([halves, halves], dim=1)  # the second half can be known
samples = [{"input_ids": row, "labels": row} for row in tokens]


def make_trainer(max_steps: int, callback: SpectralEdgeCallback) -> Trainer:
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=max_steps,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        logging_steps=20,
        save_steps=100,
        save_total_limit=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Trainer(GPT2LMHeadModel(config), arguments, train_dataset=samples, callbacks=[callback])


# Keywords are those of spectraledge.attach. With the ring in the checkpoints a resumed recording has no seam.
keywords = {"window": 10, "every": 5, "out": folder / "recording", "save_ring": True}
make_trainer(100, SpectralEdgeCallback(**keywords, overwrite=True)).train()

# Another day: what the checkpoint belongs to is found, and the recording goes on where it was.
callback = SpectralEdgeCallback(**keywords)
make_trainer(200, callback).train(resume_from_checkpoint=str(folder / "checkpoints" / "checkpoint-100"))

recording = callback.recording  # the same as spectraledge.load(folder / "recording")
print(recording)
steps, losses = recording.metrics["loss"]  # what the Trainer logged, at the optimizer's steps
print(f"loss {losses[0]:.2f} at step {steps[0]}, {losses[-1]:.2f} at step {steps[-1]}")
for block in recording.blocks:
    gap = recording.spectra(window=10, block=block).gap(rule="guarded")
    print(f"{block:>15}: k* = {gap.position[-1]}, ratio {gap.ratio[-1]:.3f}")
