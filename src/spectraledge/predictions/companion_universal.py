"""C5: all runs go through the same three phases at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..theory.phase_rules import COLLAPSE_RATIO
from ..theory.phases import is_three_phase
from ..theory.piecewise import PiecewiseModel
from .context import NULLS, Array, Context
from .counted import counted, is_scheduled, smallest_rate
from .pooled import author_says, each, null_p, some
from .position import log_guarded_ratio
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

SPREAD = 0.03  # of a run's length: 300 of 10,000 steps
_POINTS, _DRAWS, _FEWEST_RUNS = 40, 39, 3


@dataclass(frozen=True)
class _Course:
    """Of one run: step of its collapse, NaN without three phases; the same in draws of nulls, and of tr G.

    ``r23`` is the published event: first sigma_2 / sigma_3 below 1.20 after the peak.
    """

    length: float
    collapse: float
    nulls: dict[str, Array]
    trace: float
    r23: float
    r23_null: Array


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs), lambda run: _course(run, context))
    if len(found) < _FEWEST_RUNS:
        raise DataError(
            f"a pattern common to runs takes {_FEWEST_RUNS} runs; got {len(found)}. Train the same with other seeds."
        )
    courses = [x for _, x in found]
    length = float(np.median([x.length for x in courses]))
    n = len(found)
    together = agreeing(np.array([[x.collapse for x in courses]]), length)[0]
    k = int(together.sum())
    rates: dict[str, float] = {}
    p: dict[str, float] = {}
    for kind in NULLS:
        drawn = [x.nulls[kind] for x in courses if kind in x.nulls]
        if len(drawn) >= _FEWEST_RUNS:
            share = agreeing(np.stack(drawn, axis=1), length).mean(axis=1)
            rates[kind], p[kind] = float(share.mean()), null_p(k / n, share)
    closest = max(rates, key=lambda kind: (rates[kind], p[kind])) if rates else ""
    rate = rates.get(closest, float("nan"))
    rivals = float(agreeing(np.array([[x.trace for x in courses]]), length).mean())
    scheduled = is_scheduled([run for run, _ in found])
    outcome, interval, chance = counted(
        k, n, smallest_rate(rate, _DRAWS), max(p.values()) if p else None, beaten=k / n > rivals and not scheduled
    )
    steps = np.array([x.collapse for x in courses])
    steps = steps[np.isfinite(steps)]
    published = agreeing(np.array([[x.r23 for x in courses]]), length)[0]
    r23_null = [x.r23_null for x in courses if len(x.r23_null)]
    r23_rate = float("nan")
    if len(r23_null) >= _FEWEST_RUNS:
        m = min(len(d) for d in r23_null)
        r23_rate = float(agreeing(np.stack([d[:m] for d in r23_null], axis=1), length).mean())
    schedule = "; the learning rate follows a schedule, which may be the clock" if scheduled else ""
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"{len(steps)} of {n} runs rise, stay and collapse, {k} of them within {100 * SPREAD:.0f} % of the run of "
        "the "
        f"same step, against {100 * rate:.0f} % in the closest null ({closest or 'none'}){schedule}.",
        statistic=f"share of runs with three phases whose collapse lies within {100 * SPREAD:.0f} % of the common "
        "step",
        value=k / n,
        interval=interval,
        interval_method=f"Clopper-Pearson over {n} runs",
        n={"runs": n, "runs with three phases": len(steps)},
        null=closest,
        null_pass_rate=rate,
        p=chance,
        baselines={"tr G": rivals, "fixed clock": 1.0 if scheduled else float("nan")},
        author=author_says([bool(x) for x in published], [x.r23 for x in courses], r23_rate),
        raw=[{"run": run.name, "collapse": x.collapse, "r23_below_1.2": x.r23} for run, x in found],
    )


def agreeing(collapse: Array, length: float) -> NDArray[np.bool_]:
    """(D, n) whether each of n collapses lies within 3 % of the length of the median; never where it is missing.

    A single collapse agrees with nothing.
    """
    known = np.isfinite(collapse)
    some_ = known.sum(axis=1) >= 2
    middle = np.full(len(collapse), np.nan)
    middle[some_] = np.nanmedian(collapse[some_], axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(known & (np.abs(collapse - middle[:, None]) <= SPREAD * length))


def _course(run: Run, context: Context) -> _Course:
    spectra, at = context.spectra(run), context.whole(run)
    if len(at) < max(2 * context.window, 13):
        raise DataError(
            f"three phases take {max(2 * context.window, 13)} whole windows; {run.name} has {len(at)}. Record more "
            "often."
        )
    sigma, steps = spectra.singular_values[at], spectra.steps[at].astype(np.float64)
    with np.errstate(divide="ignore"):
        trace = np.log(spectra.trace[at])
    nulls: dict[str, Array] = {}
    r23_null = np.empty(0)
    for kind in NULLS:
        try:
            drawn = context.null_singular_values(run, kind)[:_DRAWS]
        except DataError:
            continue
        m = min(drawn.shape[1], len(steps))
        if m < 13:
            continue
        nulls[kind] = _collapse(steps[:m], log_guarded_ratio(drawn[:, :m]), context.window)
        if kind == "norm_matched":
            r23_null = _below(drawn[:, :m], steps[:m])
    return _Course(
        length=float(steps[-1]),
        collapse=float(_collapse(steps, log_guarded_ratio(sigma)[None], context.window)[0]),
        nulls=nulls,
        trace=float(_collapse(steps, trace[None], context.window)[0]) if np.isfinite(trace).all() else float("nan"),
        r23=float(_below(sigma[None], steps)[0]),
        r23_null=r23_null,
    )


def _collapse(steps: Array, y: Array, window: int) -> Array:
    """(D) second break of series that rise, stay and fall; NaN for others."""
    thin = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _POINTS)).round().astype(int))
    values = y[:, thin]
    whole = np.asarray(np.isfinite(values).all(axis=1))
    fit = PiecewiseModel(steps[thin], smallest=max(3, len(thin) // 10)).fit(
        np.where(whole[:, None], values, 0.0), n_effective=max(len(steps) / window, 2.0)
    )
    three = np.asarray(np.atleast_1d(is_three_phase(fit)) & whole)
    return np.where(three, fit.breakpoints[2][..., 1], np.nan)


def _below(sigma: Array, steps: Array) -> Array:
    """(D) first step after the peak of sigma_2 / sigma_3 at which it is below 1.20; NaN where there is none."""
    if sigma.shape[-1] < 3:
        return np.full(len(sigma), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(sigma[..., 1] / sigma[..., 2], nan=np.inf)
    after = np.arange(ratio.shape[1]) > np.argmax(ratio, axis=1)[:, None]
    below = after & (ratio < COLLAPSE_RATIO)
    return np.where(below.any(axis=1), steps[np.argmax(below, axis=1)], np.nan)


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C5",
        "Every run goes through the same three phases, and collapses at the same step.",
        "arXiv:2603.15678 (section 3.3), cited by arXiv:2603.28964",
        "three runs or more of one kind, best under a constant learning rate",
        "spectraledge run modular/add --seed 42; spectraledge run modular/add --seed 137; and so on, 6 seeds",
        "sigma_2 / sigma_3 below 1.20 after its peak, within 300 of 10,000 steps of the others",
        "7500 +- 300 (4 seeds, one cosine schedule); confirmed",
        _judge,
    ),
)
