"""C14: a solution that lives in few directions, and yet cannot be compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..detect.grok import capability_series
from ..dynamics.verdict import LEVEL
from ..errors import DataError
from ..theory.bootstrap import BootstrapInterval
from ..theory.sign_flip import sign_flip_p
from .context import Context
from .displacement import directions_of
from .pooled import author_says, each, ends, over_runs, word
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

KINDS = ("truncate", "prune", "scale")
"""Compressions of ``kernel.compress``: singular values cut, small weights cut, all scaled by 5 %."""

_DIRECTIONS = (4, 8)
_DESTROYED = 0.5  # share of the accuracy


@dataclass(frozen=True)
class _Solution:
    """Of one run: accuracy as it is, after each compression, after random moves as long; PCA directions or None."""

    before: float
    after: dict[str, float]
    control: dict[str, float]
    directions: int | None


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(runs, lambda run: _solution(run, context))
    harm = [min(x.control[kind] - x.after[kind] for kind in KINDS) for _, x in found]
    p = sign_flip_p(np.array(harm), rng=context.rng(221)) if len(harm) > 1 else float("nan")
    if len(harm) < 2:
        raise DataError(
            f"two runs at least must hold accuracies after compression; {len(harm)} does. Compress more seeds."
        )
    interval, method = over_runs(harm, _alone, context.rng(222))
    outcome = word(interval, null_rate=LEVEL, p=p)
    destroyed = [all(x.after[kind] < _DESTROYED * x.before for kind in KINDS) for _, x in found]
    known = [x.directions for _, x in found if x.directions is not None]
    few = [x.directions is None or x.directions <= _DIRECTIONS[1] for _, x in found]
    moves = [x.control[kind] < _DESTROYED * x.before for _, x in found for kind in KINDS]
    spans = f"{np.median(known):.0f} directions hold 99 % of the displacement" if known else "no run has lags for PCA"
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"every compression halves the accuracy in {sum(destroyed)} of {len(found)} runs, the mildest takes "
        f"{float(interval.value):.2f} more of it than a random move as long (which halves it in "
        f"{100 * float(np.mean(moves)):.0f} % of cases), and {spans}.",
        statistic="accuracy after a random move as long, less that after the mildest compression",
        value=float(interval.value),
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found)},
        null="signs of the differences drawn at random",
        null_pass_rate=LEVEL,
        p=p,
        baselines={f"accuracy after {k}, control": float(np.mean([x.control[k] for _, x in found])) for k in KINDS},
        author=author_says([d and f for d, f in zip(destroyed, few)], list(map(float, known)), float(np.mean(moves))),
        raw=[
            {"run": run.name, "before": x.before, "directions": x.directions}
            | {f"after {kind}": x.after[kind] for kind in KINDS}
            | {f"control of {kind}": x.control[kind] for kind in KINDS}
            for run, x in found
        ],
    )


def _solution(run: Run, context: Context) -> _Solution:
    metrics = run.recording.metrics
    missing = [name for kind in KINDS for name in (f"{kind}_accuracy", f"{kind}_control") if name not in metrics]
    if missing:
        raise DataError(
            "the accuracy after truncation, pruning and scaling must be logged, and that after random moves as long; "
            f"{run.name} has no {missing[0]}, which inner products of updates cannot tell. Log them after training, "
            "from spectraledge.kernel.compressibility."
        )
    last = {name: float(values[-1]) for name, (_, values) in metrics.items() if len(values)}
    _, accuracy = capability_series(metrics)
    if run.grok_step is None or run.arm == "placebo":
        raise DataError(f"a solution must generalise to be destroyed; {run.name} does not. Train for longer.")
    try:
        directions = directions_of(run, context)
    except DataError:
        directions = None
    after, control = ({kind: last[f"{kind}_{what}"] for kind in KINDS} for what in ("accuracy", "control"))
    return _Solution(float(accuracy[-1]), after, control, directions)


def _alone() -> BootstrapInterval:
    raise DataError("two runs at least must be there; got one. Compress more seeds.")


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C14",
        "Solutions are holographic: 4 to 8 directions hold them, yet truncation, pruning and scaling by 5 % destroy "
        "them.",
        "arXiv:2602.18523, cited by arXiv:2603.28964",
        "two runs and more that grok, with <kind>_accuracy and <kind>_control for kind of truncate, prune and scale, "
        "logged after training; lags over the whole run for the directions",
        "spectraledge.kernel.compressibility(model, accuracy) after training, its numbers logged with "
        "monitor.log(prune_accuracy=..., prune_control=..., ...)",
        "accuracy below half after each compression, and at most 8 directions where the run was recorded with lags "
        "over all of it",
        "4 to 8 directions reconstruct; truncation, pruning and scaling by 5 % all destroy; confirmed",
        _judge,
    ),
)
