"""Cost of the monitor in the training of the modular-arithmetic transformer (290,401 parameters).

    python benchmarks/bench_training.py [--rounds 40] [--threads 1]

Bare and attached loops are interleaved in rounds of 20 steps of the same process; the figure is attached time over
bare time, all rounds together. Compare ratios within one run.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

import spectraledge as se
from spectraledge.experiments.models.modular import ModularTransformer


class Loop:
    """The published training step, and the monitor if any."""

    def __init__(self, every: int | None, lags: int) -> None:
        torch.manual_seed(42)
        self.model = ModularTransformer()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=1.0)
        self.generator = torch.Generator().manual_seed(0)
        self.monitor = None
        if every is not None:
            self.monitor = se.attach(
                self.model, self.optimizer, window=lags, lags=lags, every=every, on_error="raise"
            )

    def steps(self, n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            x = torch.randint(0, 97, (512, 2), generator=self.generator)
            y = (x[:, 0] + x[:, 1]) % 97
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return (time.perf_counter() - start) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = {"bare": Loop(None, 10), "every=100": Loop(100, 10), "every=1": Loop(1, 10)}
    for loop in cases.values():
        loop.steps(20)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, loop in cases.items():
            times[name].append(loop.steps(20))
    median = {name: float(np.median(values)) for name, values in times.items()}
    # of totals: most short rounds of every=100 hold no snapshot, and a median would not see its cost
    ratios = {name: float(np.sum(values) / np.sum(times["bare"])) - 1 for name, values in times.items()}
    # the monitor's own clock: free of the drift between loops that run one after another
    own = {}
    for name in ("every=100", "every=1"):
        monitor = cases[name].monitor
        assert monitor is not None
        seconds = float(np.median(monitor.recording.seconds[-20:]))
        every = 100 if name == "every=100" else 1
        own[name] = round(seconds / every / median["bare"], 5)
    print(
        json.dumps(
            {
                "threads": options.threads,
                "step_ms": {name: round(1e3 * value, 3) for name, value in median.items()},
                "overhead_measured": {name: round(value, 4) for name, value in ratios.items() if name != "bare"},
                "overhead_by_the_monitors_clock": own,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
