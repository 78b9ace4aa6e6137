"""Do R, k* and A_rel change with width, and does mu-P hold them still? One run a seed, width and parametrisation.

The slopes are ``width_effects``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .config import configure
from .intervene_files import Lines, read_rows, seed_file
from .seed_studies import claim_folder, distinct_seeds, read_seeds, run_seeds
from .width_design import WidthDesign, make_width_design
from .width_medians import window_medians

__all__ = ["WidthDesign", "read_widths", "run_width_seed", "width_study"]


def width_study(
    name: str,
    *,
    out: str | os.PathLike[str],
    widths: Sequence[int] = (64, 128, 256),
    parametrisation: str | Sequence[str] = ("standard", "mup"),
    seeds: Sequence[int] = range(42, 50),
    settings: Mapping[str, object] | None = None,
    steps: int = 2000,
    step_range: tuple[int, int] | None = None,
    window: int = 10,
    every: int = 25,
    evaluate_every: int = 100,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a modular experiment at several widths and write the medians of its spectra over the same steps.

    The settings' own width (128 unless set) is the base: there both parametrisations are one and the same run, which
    is trained once. ``d_hidden`` and the number of heads grow with the width, so that a head keeps its width and
    attention's 1 / sqrt(d_head) is the same at all widths. ``standard``: PyTorch's initialisation and one learning
    rate. ``mup``: what ``mup`` scales. The seed's data split and batches are the same at all widths.

    Matched steps are not matched phases: a width that groks earlier is compared at another stage; the curves are in
    the rows. R of mere noise also falls as its dimension grows, and more parameters may be more dimensions, so that a
    slope of R says nothing about signals unless it exceeds what that of ``p_eff`` makes.

    Every seed has its own file ``seed-<n>.jsonl``, one line a run, written as it ends; a study that was stopped goes
    on with the first run that is not there.

    Args:
        name: A modular experiment of the catalogue.
        out: Folder of the study.
        widths: Values of ``d_model``; multiples of the base's width of a head.
        parametrisation: ``standard``, ``mup``, or both.
        seeds: Of initialisation, data split and batches.
        settings: Of the base model, without seed, ``steps`` and ``eval_every``.
        steps: Optimizer steps of every run.
        step_range: Steps (first, last) at which windows that count end; the second half where None, from two
            windows on.
        window: W.
        every: Optimizer steps a snapshot.
        evaluate_every: Optimizer steps between evaluations.
        jobs: Processes, one a seed; with more than one, the calling script needs its ``__main__`` guard.
        progress: Called as ``progress(seeds finished, seeds)``.

    Returns:
        The rows, as :func:`read_widths` gives them.

    Raises:
        SettingError: On a setting that cannot be, or a folder that holds a study of another design.
        DataError: If no window of a run has a gap in the range.
        OutputError: If ``out`` cannot be written.

    Source: connection to Tensor Programs, arXiv:2603.28964v1-v3; the design is derived.
    """
    table = dict(settings or {})
    listed = distinct_seeds(seeds, table, jobs)
    design = make_width_design(name, table, widths, parametrisation, steps, step_range, window, every, evaluate_every)
    folder = Path(out)
    claim_folder(folder, asdict(design))
    per_seed = len(design.cells())
    return run_seeds(run_width_seed, design, listed, folder, rows_per_seed=per_seed, jobs=jobs, progress=progress)


def read_widths(out: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All finished runs of a study's folder, seed by seed.

    Each holds seed, width, parametrisation, width_ratio (m, over the base), n_parameters, the medians of
    ``width_medians.window_medians`` (n_windows, ratio, k_star, a_rel, p_eff), steps and the series train_loss,
    test_loss, train_accuracy, test_accuracy at them.

    Raises:
        DataError: If there is no width study with a finished row.
    """
    return read_seeds(out, "widths")


def run_width_seed(design: WidthDesign, seed: int, folder: Path) -> None:
    """Train the unfinished runs of one seed; appends to the seed's file."""
    path = seed_file(folder, seed)
    rows = {(row["width"], row["parametrisation"]): row for row in read_rows(path)}
    with Lines(path) as lines:
        for width, arm in design.cells():
            if (width, arm) in rows:
                continue
            same = [row for (w, _), row in rows.items() if w == width and design.ratio(width) == 1.0]
            # At the base width mu-P changes nothing.
            row = {**same[0], "parametrisation": arm} if same else _run(design, seed, width, arm)
            lines.append(row)
            rows[width, arm] = row


def _run(design: WidthDesign, seed: int, width: int, arm: str) -> dict[str, Any]:
    import torch

    from .._attach import attach
    from . import catalogue
    from .intervene_cell import ignore
    from .loop import train
    from .mup import mup_initialise, mup_optimizers
    from .optimizers import build_optimizers
    from .session import own_torch

    chosen, _ = configure(design.experiment, seed=seed, settings=design.settings_at(width), window=design.window)
    ratio = design.ratio(width)
    curves: dict[int, Mapping[str, float]] = {}
    with own_torch(chosen):
        experiment = catalogue.entry(design.experiment).build(chosen)
        model = experiment.model
        if arm == "mup":
            mup_initialise(model, ratio)
        model.to(getattr(torch, chosen.dtype))
        if arm == "mup":
            optimizers = mup_optimizers(model, chosen, experiment.outer, ratio)
        else:
            optimizers = build_optimizers(model, chosen, experiment.outer)
        names = list(experiment.task.evaluate(model))
        # 2 W - 1 lags: windows W rows apart share none.
        lags = 2 * design.window - 1
        monitor = attach(
            model,
            optimizers,
            window=design.window,
            every=design.every,
            lags=lags,
            blocks="all",
            on_error="raise",
        )
        with monitor:
            train(
                experiment,
                optimizers,
                chosen,
                log=ignore,
                progress=lambda step, _, metrics: curves.update({step: metrics}),
            )
    values = {name: [float(point[name]) for point in curves.values()] for name in names}
    return {
        "seed": seed,
        "width": width,
        "parametrisation": arm,
        "width_ratio": ratio,
        "n_parameters": sum(p.numel() for p in model.parameters()),
        **window_medians(monitor.recording, design.window, design.first, design.last),
        "steps": list(curves),
        **{name: [y if math.isfinite(y) else None for y in series] for name, series in values.items()},
    }
