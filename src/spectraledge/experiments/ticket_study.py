"""Do the largest entries of |v_1| make better lottery tickets than the largest weights, or than chance?

Train, choose masks, rewind to the initialisation, train again under the mask. The comparison is
``ticket_effects``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import configure
from .intervene_files import Lines, read_rows, seed_file
from .seed_studies import claim_folder, distinct_seeds, read_seeds, run_seeds
from .ticket_design import KINDS, TicketDesign, make_ticket_design

if TYPE_CHECKING:
    from .settings import TrainingSettings
    from .tickets import Masks
    from .vectors import Vector

__all__ = ["TicketDesign", "read_tickets", "run_ticket_seed", "ticket_study"]


def ticket_study(
    name: str,
    *,
    out: str | os.PathLike[str],
    seeds: Sequence[int] = range(42, 50),
    settings: Mapping[str, object] | None = None,
    at_step: int = 1500,
    fraction: float | Sequence[float] = (0.1, 0.3),
    kinds: Sequence[str] = ("v1", "magnitude", "random", "magnitude_as_v1"),
    masked: str = "matrices",
    steps: int = 4000,
    window: int = 10,
    every: int = 25,
    evaluate_every: int = 100,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a catalogued experiment to ``at_step``, and train its tickets from the initialisation.

    A ticket is a mask over all matrices, embeddings and head among them; entries outside are 0 from the rewind on.
    Biases and LayerNorm gains are trained whole, as is usual: gains all start at 1 and v_1 has small entries there,
    so that a mask over all tensors can cut a whole LayerNorm off, behind which nothing can be learned. Each starts
    from the seed's own initial weights, with fresh optimizers, and meets the same batches as all others of its seed.
    All masks of a fraction keep the same number of entries:

    - ``v1``: the largest |v_1| of the last window, over all masked tensors together;
    - ``magnitude``: the largest weights at ``at_step``, over all masked tensors together;
    - ``random``: drawn, as many of every tensor as ``v1`` keeps;
    - ``random_magnitude``: drawn, as many of every tensor as ``magnitude`` keeps;
    - ``magnitude_as_v1``: the largest weights of every tensor, as many as ``v1`` keeps there.

    ``v1`` against ``magnitude`` compares two choices of layers as much as of entries: embeddings start near 1 and
    hidden weights near 0.05, so that weights of the embedding are kept first. Against ``random`` and
    ``magnitude_as_v1`` the entries alone differ. Under weight decay an update holds a part along -theta, so that
    |v_1| and the weights are related: ``overlap`` says how much.

    Every seed has its own file ``seed-<n>.jsonl``, one line a ticket, written as it ends: a study that was stopped
    goes on where it was (the run to ``at_step`` is trained again, finished tickets are not).

    Args:
        name: A name of the catalogue.
        out: Folder of the study.
        seeds: Of initialisation, data split and batches: the independent units of the analysis.
        settings: Of the experiment, without the seed; early stopping is switched off for the tickets.
        at_step: Optimizer step at which masks are chosen; a multiple of ``every``.
        fraction: Share or shares of the masked tensors' entries kept.
        masked: ``matrices`` (tensors of two axes or more), or ``all``.
        kinds: Of masks; a dense run from the same start is always among the rows.
        steps: Optimizer steps that a ticket trains; schedules run over these.
        window: W.
        every: Optimizer steps a snapshot.
        evaluate_every: Optimizer steps between evaluations of a ticket; divides ``steps``.
        jobs: Processes, one a seed; with more than one, the calling script needs its ``__main__`` guard.
        progress: Called as ``progress(seeds finished, seeds)``.

    Returns:
        The rows, as :func:`read_tickets` gives them.

    Raises:
        SettingError: On a setting that cannot be, or a folder that holds a study of another design.
        OutputError: If ``out`` cannot be written.

    Source: connection to lottery tickets, arXiv:2603.28964v1-v3; the design is derived.
    """
    table = dict(settings or {})
    listed = distinct_seeds(seeds, table, jobs)
    design = make_ticket_design(name, table, at_step, fraction, kinds, masked, steps, window, every, evaluate_every)
    folder = Path(out)
    claim_folder(folder, asdict(design))
    return run_seeds(
        run_ticket_seed,
        design,
        listed,
        folder,
        rows_per_seed=len(design.cells()),
        jobs=jobs,
        progress=progress,
    )


def read_tickets(out: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All finished tickets of a study's folder, seed by seed.

    Each holds seed, kind, fraction (asked for), kept (entries of masked tensors), kept_by_tensor (share by name),
    overlap (share of the kept entries that ``v1`` keeps too; ``fraction`` by chance where all tensors keep alike),
    sigma (of the window at ``at_step``), steps and the series train_loss, test_loss, train_accuracy, test_accuracy
    at them: before the first step, after it, and every ``evaluate_every`` steps.

    Raises:
        DataError: If there is no ticket study with a finished row.
    """
    return read_seeds(out, "tickets")


def run_ticket_seed(design: TicketDesign, seed: int, folder: Path) -> None:
    """Train one seed to ``at_step`` and its unfinished tickets from the start; appends to the seed's file."""
    path = seed_file(folder, seed)
    done = {(row["kind"], row["fraction"]) for row in read_rows(path)}
    todo = [cell for cell in design.cells() if cell not in done]
    if not todo:
        return
    chosen, _ = configure(design.experiment, seed=seed, settings=design.settings, window=design.window)
    sigma, v1, weights = _trained(design, chosen)
    with Lines(path) as lines:
        for kind, fraction in todo:
            # A stream of its own by seed, kind and fraction: a resumed study draws what an uninterrupted one does.
            rng = np.random.default_rng([seed, KINDS.index(kind), round(fraction * 1e6)])
            masks = _masks(kind, fraction, v1, weights, rng)
            about = {"seed": seed, "kind": kind, "fraction": fraction, "sigma": sigma.tolist()}
            lines.append({**about, **_kept(masks, v1, fraction), **_retrained(design, chosen, masks)})


def _trained(design: TicketDesign, chosen: TrainingSettings) -> tuple[np.ndarray, Vector, Vector]:
    """Singular values and v_1 of the last window at ``at_step``, and the weights there, of the masked tensors."""
    from .._attach import attach
    from .intervene_cell import ignore
    from .loop import Position, train
    from .mixing import parameters_like, window_directions
    from .optimizers import build_optimizers
    from .session import build_experiment, own_torch

    quiet = chosen.model_copy(update={"eval_every": 10**9, "stop_after_grok": None})
    with own_torch(chosen):
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
            if position.step == design.at_step:
                position.reason = "masks"

        with monitor:
            train(experiment, optimizers, quiet, log=ignore, after_step=after_step)
            sigma, directions, last = window_directions(monitor, design.window)
        weights = {name: p.detach().clone() for name, p in parameters_like(experiment.model, last).items()}
    chosen_names = [name for name, p in weights.items() if design.masked == "all" or p.ndim >= 2]
    v1 = directions[0]
    return sigma, {name: v1[name] for name in chosen_names}, {name: weights[name] for name in chosen_names}


def _masks(kind: str, fraction: float, v1: Vector, weights: Vector, rng: np.random.Generator) -> Masks:
    from .tickets import matched_random_masks, ticket_masks

    if kind == "dense":
        return {}
    masks = ticket_masks(weights if kind in ("magnitude", "random_magnitude") else v1, fraction)
    if kind.startswith("random"):
        return matched_random_masks(masks, rng)
    return _largest_as(masks, weights) if kind == "magnitude_as_v1" else masks


def _largest_as(masks: Masks, weights: Vector) -> Masks:
    """The largest weights of every tensor, as many as ``masks`` keeps there."""
    from .tickets import ticket_masks

    found = {}
    for name, mask in masks.items():
        keep = int(mask.sum())
        # A ticket keeps at least one entry; a mask of one tensor may keep none.
        own = ticket_masks({name: weights[name]}, keep / mask.numel()) if keep else {name: mask}
        found[name] = own[name]
    return found


def _kept(masks: Masks, v1: Vector, fraction: float) -> dict[str, Any]:
    from .tickets import mask_overlap, ticket_masks

    if not masks:
        return {"kept": sum(v.numel() for v in v1.values()), "kept_by_tensor": {}, "overlap": None}
    return {
        "kept": sum(int(mask.sum()) for mask in masks.values()),
        "kept_by_tensor": {name: float(mask.double().mean()) for name, mask in masks.items()},
        "overlap": mask_overlap(masks, ticket_masks(v1, fraction)),
    }


def _retrained(design: TicketDesign, chosen: TrainingSettings, masks: Masks) -> dict[str, Any]:
    """Curves of the network under masks, from the seed's own initialisation and first batch on."""
    from .intervene_cell import ignore
    from .loop import train
    from .optimizers import build_optimizers
    from .session import build_experiment, own_torch
    from .tickets import hold_masks

    changes = {"steps": design.steps, "eval_every": design.evaluate_every, "stop_after_grok": None}
    settings = chosen.model_copy(update=changes)
    # Seeded as the first training was, so that built again is rewound.
    with own_torch(settings):
        experiment = build_experiment(design.experiment, settings)
        optimizers = build_optimizers(experiment.model, settings, experiment.outer)
        hold_masks(dict(experiment.model.named_parameters()), masks, optimizers)
        curves: dict[int, Mapping[str, float]] = {0: experiment.task.evaluate(experiment.model)}
        # The metrics of a step also hold its learning rate and gradient norm, which are no outcome.
        names = list(curves[0])
        train(
            experiment,
            optimizers,
            settings,
            log=ignore,
            progress=lambda step, _, metrics: curves.update({step: metrics}),
        )
    values = {name: [float(point[name]) for point in curves.values()] for name in names}
    finite = {name: [y if np.isfinite(y) else None for y in series] for name, series in values.items()}
    return {"steps": list(curves), **finite}
