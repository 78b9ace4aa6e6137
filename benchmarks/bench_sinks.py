"""Cost of trackers in the training of the modular-arithmetic transformer (290,401 parameters), a snapshot every step.

    python benchmarks/bench_sinks.py [--rounds 20] [--threads 1] [--sinks jsonl tensorboard wandb mlflow trackio]

Loops with the monitor alone and with one tracker each are interleaved in rounds of 20 steps. ``hand_over_ms`` is the
processor time that the training thread spends on the tracker for each snapshot: making the numbers and putting them
into the queue. What the trackers' own threads do shows in ``overhead``, where they compete for the same cores.
Nothing leaves the machine: W&B is offline, MLflow and Trackio write files in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spectraledge as se
from spectraledge.experiments.models.modular import ModularTransformer
from spectraledge.sinks import MlflowSink, TrackioSink, WandbSink, connect

ENVIRONMENT = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # mlflow-skinny has no other local store
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
}


def make_sink(name: str, folder: Path) -> Any:
    """One tracker that writes below ``folder``."""
    if name == "wandb":
        import wandb

        return WandbSink(wandb.init(project="bench", dir=folder), own_run=True)
    if name == "mlflow":
        import mlflow

        mlflow.set_tracking_uri((folder / "mlruns").as_uri())
        return MlflowSink(mlflow.MlflowClient().create_run("0").info.run_id)
    if name == "trackio":
        import trackio

        run = trackio.init(project="bench", auto_log_gpu=False, auto_log_cpu=False)
        return TrackioSink(run, own_run=True)
    return f"{name}:{folder / name}"


class Loop:
    """The published training step with a monitor, and a tracker if any."""

    def __init__(self, sink: Any = None) -> None:
        torch.manual_seed(42)
        self.model = ModularTransformer()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=1.0)
        self.generator = torch.Generator().manual_seed(0)
        self.monitor = se.attach(self.model, self.optimizer, window=10, lags=10, every=1, on_error="raise")
        self.handing_over: list[float] = []
        self.connection = None
        if sink is not None:
            self.connection = connect(self.monitor, sink, timeout=60.0)
            take = self.connection.take

            def timed(kind: str, fields: Any) -> None:
                start = time.thread_time()
                take(kind, fields)
                if kind == "row":
                    self.handing_over.append(time.thread_time() - start)

            self.monitor._listeners[:] = [timed]

    def steps(self, n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            x = torch.randint(0, 97, (512, 2), generator=self.generator)
            y = (x[:, 0] + x[:, 1]) % 97
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()
        return (time.perf_counter() - start) / n


def main() -> None:
    names = ["jsonl", "tensorboard", "wandb", "mlflow", "trackio"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sinks", nargs="*", choices=names, default=names)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({**ENVIRONMENT, "TRACKIO_DIR": folder, "WANDB_DIR": folder})
        loops = {"monitor alone": Loop()}
        loops |= {name: Loop(make_sink(name, Path(folder))) for name in options.sinks}
        times: dict[str, list[float]] = {name: [] for name in loops}
        for loop in loops.values():
            loop.steps(20)
        for _ in range(options.rounds):
            for name, loop in loops.items():
                times[name].append(loop.steps(20))
        out = {}
        alone = float(np.median(times["monitor alone"]))
        for name, loop in loops.items():
            start = time.perf_counter()
            loop.monitor.detach()
            out[name] = {
                "step_ms": round(1e3 * float(np.median(times[name])), 3),
                "overhead": round(float(np.median(times[name])) / alone - 1, 3),
            }
            if loop.connection is not None:
                out[name]["hand_over_ms"] = round(1e3 * float(np.median(loop.handing_over)), 3)
                out[name]["detach_s"] = round(time.perf_counter() - start, 2)
                out[name]["dropped"] = sum(loop.connection.dropped.values())
    print(json.dumps({"threads": options.threads, **out}, indent=2))


if __name__ == "__main__":
    main()
