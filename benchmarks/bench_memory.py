"""What each way to keep the ring takes and errs: memory, time against the exact append, errors on a real run.

    python benchmarks/bench_memory.py [--parameters 20000000] [--lags 19] [--folder .]

Memory is anonymous memory (RssAnon) over that of the parameters, each store in a process of its own; times are
medians of interleaved repetitions, to be compared within one run. ``--claim`` tests that a projection to d = 10 W
dimensions keeps the gap within 5.7 % (arXiv:2603.15678): a small transformer is trained, and its windows are sketched
with many seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch

from spectraledge.recording.derive import window_grams
from spectraledge.stream.blocks import make_blocks
from spectraledge.stream.kernel import load_kernel
from spectraledge.stream.sketcher import Sketcher
from spectraledge.stream.store import AnyRing, make_ring
from spectraledge.theory.gap import gap_position, gap_ratio
from spectraledge.theory.sketch import relative_error, single_value_sd
from spectraledge.theory.spectrum import gram_spectrum

STORES: dict[str, dict[str, Any]] = {
    "device": {},
    "bfloat16": {"precision": "bfloat16"},
    "file": {"store": "file"},
    "file bfloat16": {"store": "file", "precision": "bfloat16"},
    "sketch 16384": {"store": "sketch", "sketch_size": 16_384},
    "sketch 1024": {"store": "sketch", "sketch_size": 1024},
}


def anonymous() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def full(name: str, n: int, lags: int, folder: str) -> tuple[AnyRing, dict[str, torch.Tensor]]:
    tensors = {"w": torch.randn(n)}
    ring = make_ring(make_blocks({"w": (n,)}, "all"), tensors, lags, folder=folder, **STORES[name])
    for _ in range(lags + 1):
        tensors["w"].add_(1e-3)
        ring.append(tensors)
    return ring, tensors


def memory(name: str, n: int, lags: int, folder: str) -> int:
    """Anonymous bytes that a full ring adds to the parameters."""
    full(name, 1000, lags, folder)  # what is loaded and started once
    before = anonymous()
    _ring, _tensors = full(name, n, lags, folder)
    return anonymous() - before - 4 * n


def times(n: int, lags: int, folder: str, repetitions: int) -> dict[str, float]:
    """Nanoseconds an entry of one append, medians."""
    rings = {name: full(name, n, lags, folder) for name in STORES}
    found: dict[str, list[float]] = {name: [] for name in STORES}
    for _ in range(repetitions):
        for name, (ring, tensors) in rings.items():
            tensors["w"].add_(1e-3)
            began = time.perf_counter()
            ring.append(tensors)
            found[name].append(1e9 * (time.perf_counter() - began) / n)
    return {name: round(float(np.median(values)), 2) for name, values in found.items()}


def updates_of_a_run(steps: int) -> tuple[np.ndarray, int]:
    """(T, P) updates of a small transformer that learns addition modulo 11."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    model = torch.nn.Sequential(
        torch.nn.Embedding(11, 32),
        torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        torch.nn.Flatten(),
        torch.nn.Linear(96, 11),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    snapshots = [torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()]
    for step in range(1, steps + 1):
        x = torch.randint(0, 11, (64, 3), generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), x.sum(dim=1) % 11).backward()
        optimizer.step()
        if step % 5 == 0:
            snapshots.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    theta = torch.stack(snapshots).double().numpy()
    return np.diff(theta, axis=0), theta.shape[1]


def claim(window: int = 10, seeds: int = 20, steps: int = 1000) -> dict[str, Any]:
    """Errors of sketched windows of a real run, by size of the sketch."""
    updates, n = updates_of_a_run(steps)
    rows = torch.from_numpy(updates)
    exact = _spectra(updates @ updates.T, window)
    plain, guarded = (gap_position(exact, rule=rule) for rule in ("plain", "guarded"))
    out: dict[str, Any] = {
        "parameters": n,
        "windows": len(exact),
        "median ratio at plain k*": round(float(np.median(gap_ratio(exact, plain))), 3),
        "median ratio at guarded k*": round(float(np.median(gap_ratio(exact, guarded))), 3),
    }
    blocks = make_blocks({"w": (n,)}, "all")
    for log2_size in (6, 7, 10, 14):
        errors: dict[str, list[float]] = {}
        for seed in range(seeds):
            sketcher = Sketcher(blocks, {"w": rows[0]}, log2_size, load_kernel(), None, seed)
            table = np.concatenate([sketcher({"w": row})[0] for row in rows])
            found = _spectra(table @ table.T, window)
            errors.setdefault("sigma", []).append(float(np.abs(found / exact - 1).mean()))
            errors.setdefault("sigma, worst", []).append(float(np.abs(found / exact - 1).max()))
            for name, at in (("plain", plain), ("guarded", guarded)):
                change = gap_ratio(found, at) / gap_ratio(exact, at) - 1
                errors.setdefault(f"ratio at {name} k*", []).append(float(np.abs(change).mean()))
                same = gap_position(found, rule=name) == at  # type: ignore[arg-type]
                errors.setdefault(f"{name} k* kept", []).append(float(same.mean()))
        size = 1 << log2_size
        out[f"m = {size}"] = {name: round(float(np.mean(values)), 4) for name, values in errors.items()} | {
            "sigma, worst of all seeds": round(max(errors["sigma, worst"]), 4),
            "law of one sigma, sd": round(single_value_sd(size), 4),
            "bound on all sigma": round(relative_error(window, size), 4),
        }
    return out


def _spectra(products: np.ndarray, window: int) -> np.ndarray:
    t = np.arange(len(products))
    lag = np.arange(window)
    band = np.where(t[:, None] >= lag, products[t[:, None], np.maximum(t[:, None] - lag, 0)], np.nan)
    return gram_spectrum(window_grams(band, window)).singular_values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--lags", type=int, default=19)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--claim", action="store_true", help="only test the claim on projections")
    parser.add_argument("--memory-of", choices=sorted(STORES), help="only measure the memory of one store")
    options = parser.parse_args()
    n, lags = options.parameters, options.lags
    torch.manual_seed(0)
    if options.claim:
        print(json.dumps(claim(), indent=2))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.memory_of:
            print(memory(options.memory_of, n, lags, folder))
            return
        result: dict[str, Any] = {"parameters": n, "lags": lags, "threads": torch.get_num_threads()}
        result["anonymous_bytes_per_parameter"] = {}
        for name in STORES:
            command = [sys.executable, __file__, "--memory-of", name, "--parameters", str(n), "--lags", str(lags)]
            told = subprocess.run([*command, "--folder", folder], capture_output=True, text=True, check=True)
            result["anonymous_bytes_per_parameter"][name] = round(int(told.stdout) / n, 2)
        result["append_ns_per_parameter"] = times(n, lags, folder, options.repetitions)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
