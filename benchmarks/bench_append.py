"""Cost of one append, against the time to read the same memory once and against an SVD of the window.

    python benchmarks/bench_append.py [--parameters 20000000] [--lags 10]

Prints medians of interleaved repetitions: compare the ratios, not the times, and only within one run.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from spectraledge.stream.blocks import make_blocks
from spectraledge.stream.kernel import load_kernel
from spectraledge.stream.ring import UpdateRing


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def make(n_parameters: int, n_blocks: int, lags: int, backend: str) -> tuple[UpdateRing, dict[str, torch.Tensor]]:
    shapes = {f"layers.{i}.weight": (n_parameters // n_blocks,) for i in range(n_blocks)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    ring = UpdateRing(make_blocks(shapes), tensors, lags, backend=backend)
    for _ in range(lags + 1):  # full, pages touched
        for tensor in tensors.values():
            tensor.add_(1e-3)
        ring.append(tensors)
    return ring, tensors


def peak_extra(n_parameters: int, lags: int, backend: str) -> int:
    """Bytes by which the peak memory of this process grows over a model of that size; run before all else."""
    tensors = {"w": torch.randn(n_parameters)}
    tensors["w"].add_(1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ring = UpdateRing(make_blocks({"w": (n_parameters,)}), tensors, lags, backend=backend)
    for _ in range(lags + 2):
        tensors["w"].add_(1e-3)
        ring.append(tensors)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--lags", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--backend-memory", choices=["torch", "compiled"], help="only measure peak memory")
    options = parser.parse_args()
    n, lags = options.parameters, options.lags
    torch.manual_seed(0)
    if options.backend_memory:
        extra = peak_extra(n, lags, options.backend_memory)
        budget = (lags + 2) * n * 4 + 64 * 2**20
        print(json.dumps({"peak_extra_bytes": extra, "promised": budget, "kept": extra <= budget}))
        return
    backends = ["torch"] + (["compiled"] if load_kernel() is not None else [])
    cases = {(b, k): make(n, k, lags, b) for b in backends for k in (1, 200)}
    memory = torch.randn(lags + 2, n)
    times: dict[str, list[float]] = {}
    for _ in range(options.repetitions):
        times.setdefault("read", []).append(timed(memory.sum))
        for (backend, n_blocks), (ring, tensors) in cases.items():
            for tensor in tensors.values():
                tensor.add_(1e-3)
            times.setdefault(f"{backend}, {n_blocks} blocks", []).append(timed(lambda r=ring, t=tensors: r.append(t)))
    window = memory[:lags]
    times["svdvals"] = [timed(lambda: torch.linalg.svdvals(window)) for _ in range(2)]
    median = {name: float(np.median(values)) for name, values in times.items()}
    result = {
        "parameters": n,
        "lags": lags,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "median_ms": {name: round(1e3 * value, 2) for name, value in median.items()},
        "over_read": {name: round(value / median["read"], 2) for name, value in median.items()},
        "svdvals_over": {b: round(median["svdvals"] / median[f"{b}, 1 blocks"], 1) for b in backends},
        "200_blocks_over_1": {b: round(median[f"{b}, 200 blocks"] / median[f"{b}, 1 blocks"], 3) for b in backends},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
