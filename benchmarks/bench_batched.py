"""Models trained as one computation against one by one: time, and the grok steps they lead to.

    python benchmarks/bench_batched.py [--models 8] [--threads 1] [--device cpu] [--set p=97 ...]
    python benchmarks/bench_batched.py --distributions [--seeds 12] [--out FOLDER]

Times are those of one optimizer step of one model of the modular runs. With more than one thread they are also held
against as many processes of one thread each, which train one by one side by side. --clock process tells CPU seconds,
which a busy machine does not stretch. --distributions trains a small grokking world both ways and compares the grok
steps by a two-sample permutation test of means and by Kolmogorov and Smirnov's; a difference of seeds is much larger
than one of rounding, so the paired differences are told too. With --out a call that was stopped goes on, and its
seconds are those of the last call alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp, permutation_test

from spectraledge.detect.grok import grok_steps
from spectraledge.experiments.batched import run_batched, step_seconds

# Groks near step 1,400: 7 s of one core a run.
SMALL_WORLD = {
    "p": 23,
    "d_model": 32,
    "layers": 1,
    "heads": 2,
    "d_hidden": 64,
    "batch_size": 128,
    "train_fraction": 0.7,
    "lr": 3e-3,
    "steps": 2500,
    "eval_every": 20,
    "stop_after_grok": 2,
    "defect_every": 0,
    "weight_spectra": 0,
}


def side_by_side(settings: dict[str, object], steps: int, rounds: int) -> float:
    """Seconds of a step of one model, trained by itself."""
    return step_seconds("modular/add", settings, (1,), steps=steps, rounds=rounds)[1]


def timing(options: argparse.Namespace) -> dict[str, object]:
    settings = {"device": options.device, "threads": options.threads}
    settings |= dict(pair.split("=", 1) for pair in options.set)
    clock = time.process_time if options.clock == "process" else time.perf_counter
    arguments = {"steps": options.steps, "rounds": options.rounds}
    seconds = step_seconds("modular/add", settings, (1, options.models), clock=clock, **arguments)
    alone, together = seconds.values()
    found: dict[str, object] = {
        "models": options.models,
        "threads": options.threads,
        "device": options.device,
        "clock": options.clock,
        "one_by_one_ms": round(1e3 * alone, 3),
        "as_one_ms": round(1e3 * together, 3),
        "as_one_over_one_by_one": round(together / alone, 3),
    }
    if options.threads > 1 and options.clock == "wall":
        cells = [({**settings, "threads": 1}, options.steps, options.rounds)] * options.threads
        with multiprocessing.get_context("spawn").Pool(options.threads) as pool:
            beside = float(np.mean(pool.starmap(side_by_side, cells))) / options.threads
        found |= {"processes_ms": round(1e3 * beside, 3), "as_one_over_processes": round(together / beside, 3)}
    return found


def distributions(options: argparse.Namespace) -> dict[str, object]:
    settings = SMALL_WORLD | dict(pair.split("=", 1) for pair in options.set)
    seeds = range(1, options.seeds + 1)
    found, seconds = {}, {}
    for size in (1, options.seeds):
        began = time.process_time()
        folders = [None if options.out is None else options.out / f"{size}" / f"{seed}" for seed in seeds]
        cells = [("modular/add", {**settings, "seed": seed}, folder) for seed, folder in zip(seeds, folders)]
        recordings = run_batched(cells, size=size, window=3, every=100, resume=options.out is not None)
        seconds[size] = round(time.process_time() - began, 1)
        groks = [grok_steps(*recording.metrics["test_accuracy"]).first_095.step for recording in recordings]
        found[size] = np.array([np.nan if grok is None else grok for grok in groks])
    alone, together = found.values()
    paired = (together - alone)[np.isfinite(together - alone)]
    mean_p = permutation_test(
        (alone[np.isfinite(alone)], together[np.isfinite(together)]),
        lambda x, y: x.mean() - y.mean(),
        n_resamples=9999,
        rng=np.random.default_rng(0),
    ).pvalue
    return {
        "seeds": options.seeds,
        "cpu_seconds": seconds,
        "one_by_one": alone.tolist(),
        "as_one": together.tolist(),
        "not_grokked": [int(np.isnan(alone).sum()), int(np.isnan(together).sum())],
        "mean": [float(np.nanmean(alone)), float(np.nanmean(together))],
        "sd": [float(np.nanstd(alone, ddof=1)), float(np.nanstd(together, ddof=1))],
        "paired_difference": [float(paired.mean()), float(paired.std(ddof=1))],
        "permutation_p": float(mean_p),
        "kolmogorov_smirnov_p": float(ks_2samp(alone[np.isfinite(alone)], together[np.isfinite(together)]).pvalue),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "process"), default="wall")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--distributions", action="store_true")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(json.dumps(distributions(options) if options.distributions else timing(options), indent=2))


if __name__ == "__main__":
    main()
