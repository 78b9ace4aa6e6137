"""Whether training several models as one computation pays here: measured, not assumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...errors import SettingError
from ..config import configure
from ..loop import Position, train
from ..optimizers import build_optimizers
from ..session import build_experiment, own_torch
from ..settings import TrainingSettings
from .stack import NotOneComputation
from .step import BatchedStep


def choose_batch_size(
    name: str,
    settings: Mapping[str, object] | None = None,
    n_models: int = 8,
    *,
    processes: int = 1,
    steps: int = 5,
    rounds: int = 3,
) -> int:
    """How many of ``n_models`` to train as one: all, or 1 where one by one is at least as fast, or the only way.

    Args:
        name: A name of the catalogue.
        settings: The experiment's settings by name.
        n_models: Models to be trained.
        processes: Processes that would train one by one side by side otherwise (``run_grid``); taken to be that
            many times as fast as one.
        steps: Optimizer steps timed at once.
        rounds: Repetitions, one by one and as one in turn; the fastest of each counts.

    Raises:
        SettingError: On an unknown name or setting.
    """
    if n_models <= 1:
        return 1
    try:
        alone, together = step_seconds(name, settings, [1, n_models], steps=steps, rounds=rounds).values()
    except NotOneComputation:
        return 1
    return n_models if together < alone / processes else 1


def step_seconds(
    name: str,
    settings: Mapping[str, object] | None = None,
    sizes: Sequence[int] = (1, 8),
    *,
    steps: int = 5,
    rounds: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """Seconds of one optimizer step of one model, trained with others in batches of each size.

    Evaluations and the recording, which cost the same either way, are left out. The first round warms up and does
    not count.

    Args:
        name: A name of the catalogue.
        settings: The experiment's settings by name.
        sizes: Models in one computation; 1 is the training loop of ``run``.
        steps: Optimizer steps timed at once.
        rounds: Repetitions, the sizes in turn; the fastest counts.
        clock: ``time.process_time`` on a busy machine, where the device is the CPU.

    Raises:
        SettingError: On an unknown name or setting; its kind ``NotOneComputation`` for models that cannot be one.
    """
    if min(sizes, default=0) < 1 or steps < 1 or rounds < 1:
        raise SettingError(f"sizes, steps and rounds must be at least 1; got {list(sizes)}, {steps} and {rounds}.")
    chosen, _ = configure(name, settings=settings)
    with own_torch(chosen):
        work = {size: _work(name, chosen, size, steps) for size in sizes}
        best = dict.fromkeys(sizes, float("inf"))
        for count in range(rounds + 1):
            for size, make_steps in work.items():
                _wait(chosen.device)
                began = clock()
                make_steps()
                _wait(chosen.device)
                if count:
                    best[size] = min(best[size], (clock() - began) / (steps * size))
    return best


def _work(name: str, chosen: TrainingSettings, size: int, steps: int) -> Callable[[], object]:
    """A function that trains ``size`` models for ``steps`` steps."""
    settings = [chosen.model_copy(update={"seed": (chosen.seed + index) % 2**32}) for index in range(size)]
    experiments = []
    for own in settings:
        with own_torch(own):
            experiments.append(build_experiment(name, own))
    optimizers: list[Any] = [
        build_optimizers(experiment.model, own, experiment.outer) for experiment, own in zip(experiments, settings)
    ]
    if size == 1:
        # From step 2 on, and never due: step 1 is always evaluated.
        length = chosen.model_copy(update={"steps": steps + 1, "eval_every": steps + 2, "stop_after_grok": None})
        return lambda: train(experiments[0], optimizers[0], length, log=lambda **_: None, position=Position(1))
    batch = BatchedStep(experiments, settings, optimizers)
    return lambda: [batch.step(step + 2) for step in range(steps)]


def _wait(device: str) -> None:
    """Until the device has done what it was given."""
    torch.get_device_module(torch.device(device)).synchronize()
