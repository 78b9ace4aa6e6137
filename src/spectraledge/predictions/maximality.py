"""GM: only a collapse of the gap at k* disrupts learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import perm

import numpy as np

from ..dynamics.cut_study import FEWEST_EVENTS
from ..dynamics.maximality import maximality
from ..dynamics.timeline import metric_at
from ..dynamics.verdict import LEVEL
from ..errors import DataError
from ..theory.event_study import EventStudy, event_study
from ..theory.maximality import progress_change
from .context import Array, Context
from .counted import LOSSES
from .interventions import Intervention, read_interventions, studies_beside
from .pooled import each, some
from .registry_types import Prediction
from .runs import Run
from .verdict import Outcome, Verdict

_MOST_RUNS, _DRAWS, _RENAMINGS = 8, 49, 499
_UNBALANCED = 0.25  # standard deviations
_SHARED = 0.5  # share of the cost at k* that other cuts cost as well, beyond which it is not k* alone


@dataclass(frozen=True)
class _Cuts:
    """Of one run: (N, W-1) collapses, (N) k* a window before, (N, W-1) levels, (N) steps and standardised change."""

    events: np.ndarray
    before: np.ndarray
    level: Array
    steps: Array
    change: Array
    at_k_star: int


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    made = read_interventions(studies_beside(runs), context)
    try:
        seen = _observed(runs, context)
    except DataError:
        if made is None:
            raise
        seen = None
    if made is not None:
        return _of_intervention(made, seen[0] if seen else None)
    assert seen is not None
    return _of_events(*seen)


def _observed(runs: Sequence[Run], context: Context) -> tuple[EventStudy, list[tuple[Run, _Cuts]]]:
    found = each(some(runs, _MOST_RUNS), lambda run: _cuts(run, context))
    label = np.concatenate([np.full(len(x.steps), i) for i, (_, x) in enumerate(found)])
    study = event_study(
        np.concatenate([x.events for _, x in found]),
        np.concatenate([x.change for _, x in found]),
        np.concatenate([x.before for _, x in found]),
        np.concatenate([x.level for _, x in found]),
        np.concatenate([x.steps for _, x in found]),
        label,
        n_permutations=_RENAMINGS,
        rng=context.rng(261),
    )
    return study, found


def _cuts(run: Run, context: Context) -> _Cuts:
    recording = run.recording
    name = next((x for x in LOSSES if len(recording.metrics.get(x, ((),))[0]) >= 3), None)
    if name is None:
        raise DataError(
            f"the loss on held-out data must be logged at three steps or more; {run.name} does not. Log test_loss or "
            "val_loss with monitor.log."
        )
    found = maximality(
        recording,
        context.window,
        context.block,
        context.stride,
        outcome=name,
        n_draws=_DRAWS,
        n_permutations=1,
        seed=context.seed,
    )
    change = progress_change(metric_at(recording, name, found.steps), found.horizon)
    spread = float(np.nanstd(change)) if np.isfinite(change).any() else 0.0
    return _Cuts(
        found.events,
        found.k_star,
        context.spectra(run).singular_values[:, :-1],
        np.asarray(found.steps, dtype=np.float64),
        change / spread if spread > 0.0 else np.full(len(change), np.nan),
        int(found.at_k_star.sum()),
    )


def _of_events(study: EventStudy, found: Sequence[tuple[Run, _Cuts]]) -> Verdict:
    if not study.n_events:
        raise DataError(
            f"a gap must collapse at k* with a match at another cut of like strength and time; none does in "
            f"{len(found)} runs. Record longer runs, or put an intervention study beside them."
        )
    smallest = max(1.0 / (1.0 + _RENAMINGS), 1.0 / float(np.prod([_renamings(x) for _, x in found])))
    balanced = bool(np.all(np.abs(study.imbalance) <= _UNBALANCED))
    outcome = _word(study, smallest, balanced)
    matched = "like" if balanced else "not even like"
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"{study.n_events} collapses at k* in {len(found)} runs have matches ({study.n_unmatched} have none) among "
        f"{study.n_other} at other cuts of {matched} strength and time, and the held-out loss afterwards differs by "
        f"{study.effect:+.2f} standard deviations ({study.low:.2f} to {study.high:.2f}, p {study.p_value:.2g}); that "
        "k* is the largest gap after any collapse is its definition.",
        statistic="held-out loss after a collapse at k*, above that after one at another cut [standard deviations]",
        value=study.effect,
        interval=(study.low, study.high),
        interval_method="bootstrap over runs",
        n={"runs": study.n_runs, "collapses at k*": study.n_events, "collapses at other cuts": study.n_other},
        null="names of the cuts exchanged",
        null_pass_rate=LEVEL,
        p=study.p_value,
        raw=[{"run": run.name, "at_k_star": x.at_k_star, "elsewhere": int(x.events.sum())} for run, x in found],
    )


def _renamings(x: _Cuts) -> int:
    """Distinct names that the positions of k* at collapses could have."""
    used = x.events.any(axis=1) & np.isfinite(x.change) & (x.before > 0)
    positions = len(np.unique(x.before[used]))
    return perm(x.events.shape[1], positions) if positions else 1


def _word(study: EventStudy, smallest: float, balanced: bool) -> Outcome:
    """Harm raises the loss."""
    if study.n_events < FEWEST_EVENTS or not smallest <= LEVEL or not np.isfinite(study.p_value):
        return "not identifiable"
    if study.effect < 0.0:
        return "contradicted" if study.p_value <= LEVEL and study.high < 0.0 else "not identifiable"
    if not study.low > 0.0:
        return "not identifiable"
    return "supported" if study.p_value <= LEVEL and balanced else "compatible"


def _of_intervention(made: Intervention, seen: EventStudy | None) -> Verdict:
    """A change that is made says more than one that is waited for."""
    alone = len(made.positions) == 1
    first = made.at_once
    at_once = f", and at once {first.at_k:.3f} and {first.others:.3f} (p {first.p:.2g})" if first is not None else ""
    which = f"k* was {made.positions[0]} in all forks" if alone else f"k* took {len(made.positions)} positions"
    return Verdict(
        "",
        "",
        "",
        _made_word(made),
        f"the same change ({made.kind}) has cost {made.at_k:.3f} of held-out loss at k* and {made.others:.3f} at "
        f"other cuts by the end of the horizon: {made.difference:+.3f} ({made.low:.3f} to {made.high:.3f}, "
        f"{made.n_seeds} seeds, p {made.p:.2g}){at_once}, and {which}.",
        statistic="held-out loss at the end of the horizon, changed at k*, less that with the same change elsewhere",
        value=made.difference,
        interval=(made.low, made.high),
        interval_method=f"bootstrap over {made.n_seeds} seeds, Student's t",
        n={"seeds": made.n_seeds, "positions of k*": len(made.positions)},
        null="signs of the differences drawn at random",
        null_pass_rate=LEVEL,
        p=made.p,
        baselines={"cost at other cuts": made.others, "cost of a random direction in the span": made.span}
        | ({"difference at once": first.difference} if first is not None else {})
        | ({"observed collapses [standard deviations]": seen.effect} if seen is not None else {}),
        raw=[{"seed": seed, "difference": x} for seed, x in made.seeds.items()],
    )


def _made_word(made: Intervention) -> Outcome:
    harmful = made.others_low > 0.0 and made.others_p <= LEVEL
    if made.high < 0.0 or (harmful and made.high < _SHARED * made.at_k):
        return "contradicted"  # other cuts cost most of it, or more
    if not made.low > 0.0:
        return "not identifiable"
    # "Only" asks that others cost nothing, and k* at one position is the first mode under another name.
    return "supported" if made.p <= LEVEL and not harmful and len(made.positions) > 1 else "compatible"


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "GM",
        "Gap maximality: k* is the one privileged position, and only a collapse of its gap disrupts learning.",
        "arXiv:2603.28964v1-v3 (part iii)",
        "runs with a loss on held-out data, whose gaps collapse at k* and elsewhere; better an intervention study in "
        "a folder beside them",
        "spectraledge intervene modular/add --out runs/study --seeds 42-49 --time 2000 --kind close_gap",
        "none was published",
        "confirmed, without a number",
        _judge,
    ),
)
