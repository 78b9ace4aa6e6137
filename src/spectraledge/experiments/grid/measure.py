"""What one run costs, measured: ``python -m spectraledge.experiments.grid.measure < config``.

In a process of its own, so that its largest memory is the run's, with the threads that the run will have.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from ...errors import SpectralEdgeError
from ..parent import end_with
from .folders import WORKER

STEPS = 20
_METRICS = 700  # bytes that the metrics of an evaluation take in a recording
_KEPT = 2  # checkpoints on disk at once


def measure(config: Mapping[str, Any]) -> dict[str, float]:
    """Cost of a run; nothing is written.

    Args:
        config: Content of its ``config.json``.

    Returns:
        seconds_a_step (median of 20, batches and snapshots included), seconds_an_evaluation, seconds (of the whole
        run, should it not stop early), memory_bytes (largest, the ring of updates full), recording_bytes and
        checkpoint_bytes (the latter until the run has finished).
    """
    import torch

    from ..._attach import attach
    from ..baselines import Baselines
    from ..config import configure
    from ..loop import train
    from ..optimizers import build_optimizers
    from ..probing import ProbeSettings, build_probe
    from ..session import build_experiment, own_torch

    probing = dict(config.get("probe") or {})
    settings, _ = configure(config["experiment"], settings=config["settings"], **config["monitor"])
    with own_torch(settings):
        experiment = build_experiment(config["experiment"], settings)
        optimizers = build_optimizers(experiment.model, settings, experiment.outer)
        # A step later than the end is never evaluated; the first always is.
        short = settings.model_copy(update={"steps": STEPS + 1, "eval_every": STEPS + 2, "stop_after_grok": None})
        clock: list[float] = []
        monitor = attach(experiment.model, optimizers, **config["monitor"], on_error="raise")
        with monitor:
            train(
                experiment, optimizers, short, log=monitor.log, after_step=lambda _: clock.append(time.perf_counter())
            )
        step = statistics.median(after - before for before, after in pairwise(clock))
        plan = monitor.plan
        without = {"defect_every": 0, "sharpness_every": 0}
        each = {
            name: Baselines(experiment, settings.model_copy(update=without | {name: settings.eval_every}))
            for name in without
        }
        evaluation = seconds_of(lambda: experiment.task.evaluate(experiment.model))
        evaluation += seconds_of(lambda: each["defect_every"].spectra(1))
        every = settings.eval_every if settings.defect_every is None else settings.defect_every
        seconds = (settings.steps // settings.eval_every + 1) * evaluation
        if every:
            seconds += (settings.steps // every + 1) * seconds_of(lambda: each["defect_every"].measure(1))
        if settings.sharpness_every:
            count = settings.steps // settings.sharpness_every + 1
            seconds += count * seconds_of(lambda: each["sharpness_every"].measure(1))
        if probing:
            chosen = ProbeSettings(**probing)
            evaluations = build_probe(chosen, experiment, settings).total_evaluations
            gradient = seconds_of(lambda: experiment.task.probe_losses()[0](experiment.model).backward())
            seconds += settings.steps // chosen.every * evaluations * gradient
        state = [value for o in optimizers for kept in o.state.values() for value in kept.values()]
        tensors = [*experiment.model.parameters(), *(value for value in state if isinstance(value, torch.Tensor))]
    records, evaluations = settings.steps // plan.every, settings.steps // settings.eval_every + 1
    return {
        "seconds_a_step": step + plan.append_ms / 1e3 / plan.every,
        "seconds_an_evaluation": evaluation,
        "seconds": settings.steps * (step + plan.append_ms / 1e3 / plan.every) + seconds,
        "memory_bytes": largest_memory() + plan.ring_bytes,
        "recording_bytes": records * plan.record_bytes + evaluations * _METRICS,
        "checkpoint_bytes": _KEPT * (sum(t.numel() * t.element_size() for t in tensors) + plan.ring_bytes),
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that ``work()`` takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def largest_memory() -> int:
    """Most memory that this process has had, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main() -> int:
    """Measure what standard input describes and print it; exit status 2 where its settings cannot be."""
    if WORKER in os.environ:
        end_with(int(os.environ[WORKER]), seconds=0.5)
    try:
        sys.stdout.write(json.dumps(measure(json.loads(sys.stdin.read()))))
    except SpectralEdgeError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
