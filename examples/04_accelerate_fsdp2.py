"""A model sharded over two processes with FSDP2, recorded as if it were in one.

    torchrun --nproc-per-node 2 examples/04_accelerate_fsdp2.py [folder]

Runs on the CPU over Gloo with ``fully_shard`` itself: Accelerate's FSDP2 plugin wants an accelerator, and makes
DDP of a model on the CPU. With it the lines are

    accelerator = Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))
    model, optimizer = accelerator.prepare(model, optimizer)
    monitor = se.attach(model, optimizer, window=8, every=2, out=out)

Started as one plain process, the script starts the two itself.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import spectraledge as se


def main(out: str) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)  # the same initial values on every rank
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4))
    target = torch.nn.Linear(16, 4)
    for layer in (model[0], model[2]):
        fully_shard(layer)
    fully_shard(model)
    # made after sharding: it must train the shards
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)

    # on every rank, after sharding; rank 0 alone writes the recording
    monitor = se.attach(model, optimizer, window=8, every=2, out=out, overwrite=True)

    generator = torch.Generator().manual_seed(dist.get_rank())  # each rank its own data
    for step in range(1, 121):
        x = torch.randn(32, 16, generator=generator)
        loss = (model(x) - torch.sin(2 * target(x)).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            monitor.log(loss=loss)  # rank 0's
    monitor.detach()

    if dist.get_rank() == 0:
        recording = se.load(out)
        print(recording)
        for block in recording.blocks:
            gap = recording.spectra(window=8, block=block).gap(rule="guarded")
            print(f"{block:>4}: k* = {gap.position[-1]}, ratio {gap.ratio[-1]:.3f}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main(sys.argv[1] if len(sys.argv) > 1 else "runs/fsdp2")
    else:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        sys.exit(subprocess.run([*launcher, *sys.argv], check=False).returncode)
