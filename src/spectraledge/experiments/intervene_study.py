"""Does a mix at k* cost more than the same mix elsewhere? The study that asks, seed by seed.

A cell is a fork of the run at one time with one change made to it: same parameters, optimizer state and
future batches in all cells, and nothing differs but the change. Knows nothing about the analysis, which is
``intervene_effects``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .config import configure
from .intervene_design import Design, make_design
from .intervene_files import Lines, read_rows, read_study, seed_file
from .seed_studies import claim_folder, distinct_seeds, run_seeds

__all__ = ["Design", "intervention_study", "read_study", "run_seed"]


def intervention_study(
    name: str,
    *,
    out: str | os.PathLike[str],
    seeds: Sequence[int] = range(42, 50),
    settings: Mapping[str, object] | None = None,
    kinds: Sequence[str] = ("step",),
    positions: Sequence[int | str] | None = None,
    norms: Sequence[float] = (1.0,),
    times: Sequence[int] = (1000, 1500, 2000),
    horizon: int = 500,
    window: int = 10,
    every: int = 25,
    evaluate_every: int = 100,
    metric: str = "update",
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a catalogued experiment, fork it, change each fork, train on, and write what came of it.

    Every seed has its own file ``seed-<n>.jsonl``, one line a cell, written as the cell ends: a study that was
    stopped goes on where it was (the run up to a fork is trained again, finished cells are not). One process
    a seed, one torch thread each unless the settings say otherwise. Directions are those of the monitor's
    last window at the fork. Where the norm asked for is more than one of the positions allows (a rotation has
    an end), all cells of that fork and kind are made with the smallest norm that all allow: equal norms are
    what the comparison rests on.

    Args:
        name: A name of the catalogue.
        out: Folder of the study.
        seeds: Of initialisation, data split and batches: the independent units of the analysis.
        settings: Of the experiment, without the seed.
        kinds: ``step``, ``momentum``, ``close_gap``.
        positions: Cuts and controls (``span``, ``space``); every cut and both where None.
        norms: Relative norms; 1 is as long as the last update (``step``) or the momentum.
        times: Optimizer steps of the forks.
        horizon: Optimizer steps trained after each change.
        window: W.
        every: Optimizer steps a snapshot.
        evaluate_every: Optimizer steps between evaluations; divides ``horizon``.
        metric: ``update`` or ``buffer``; see ``momentum.Momentum``.
        jobs: Processes; with more than one, the calling script needs its ``__main__`` guard.
        progress: Called as ``progress(seeds finished, seeds)``.

    Returns:
        The cells, as :func:`read_study` gives them.

    Raises:
        SettingError: On a setting that cannot be, or a folder that holds a study of another design.
        OutputError: If ``out`` cannot be written.

    Source: interventional test of the gap maximality principle, arXiv:2603.28964v1-v3 part (iii); the design is
        ours.
    """
    design = make_design(
        name, settings, kinds, positions, norms, times, horizon, window, every, evaluate_every, metric
    )
    chosen = distinct_seeds(seeds, {}, jobs)
    folder = Path(out)
    claim_folder(folder, asdict(design))
    rows_per_seed = len(design.times) * len(design.cells())
    return run_seeds(run_seed, design, chosen, folder, rows_per_seed=rows_per_seed, jobs=jobs, progress=progress)


def run_seed(design: Design, seed: int, folder: Path) -> None:
    """Train one seed to the last fork with unfinished cells and run those; appends to the seed's file."""
    from .._attach import attach
    from .intervene_cell import Fork, ignore
    from .loop import Position, train
    from .optimizers import build_optimizers
    from .session import build_experiment, own_torch

    path = seed_file(folder, seed)
    done = {(row["time"], row["kind"], row["position"], row["amount"]) for row in read_rows(path)}
    todo = {time: [cell for cell in design.cells() if (time, *cell) not in done] for time in design.times}
    last = max((time for time, cells in todo.items() if cells), default=0)
    if not last:
        return
    chosen, _ = configure(design.experiment, seed=seed, settings=design.settings, window=design.window)
    quiet = chosen.model_copy(update={"eval_every": 10**9, "stop_after_grok": None})
    with own_torch(chosen), Lines(path) as lines:
        experiment = build_experiment(design.experiment, chosen)
        optimizers = build_optimizers(experiment.model, chosen, experiment.outer)
        monitor = attach(
            experiment.model,
            optimizers,
            window=design.window,
            every=design.every,
            lags=design.window,
            blocks="all",
            on_error="raise",
        )

        def after_step(position: Position) -> None:
            if todo.get(position.step):
                fork = Fork(design, chosen, seed, position.step, experiment, optimizers, monitor)
                for cell in todo[position.step]:
                    lines.append(fork.run(*cell))
            if position.step == last:
                position.reason = "forked"

        with monitor:
            train(experiment, optimizers, quiet, log=ignore, after_step=after_step)
