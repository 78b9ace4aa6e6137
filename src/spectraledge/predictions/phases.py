"""T4: the gap ratio rises, stays and collapses, and is tied to the validation loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.timeline import metric_at
from ..dynamics.verdict import LEVEL, PASS_RATE
from ..errors import DataError
from ..theory.gap import ratios as gap_ratios
from ..theory.intervals import clopper_pearson
from ..theory.lagged_correlation import polynomial_residual
from ..theory.phase_surrogates import phase_randomised
from ..theory.phases import is_three_phase
from ..theory.piecewise import PiecewiseFit, PiecewiseModel
from .context import NULLS, Array, Context
from .pooled import author_says, each, mean_draws, null_p, some
from .position import log_guarded_ratio
from .registry_types import Prediction
from .runs import Run
from .verdict import Outcome, Verdict

CORRELATION = 0.3  # arXiv:2603.28964's script
LOSSES = ("val_loss", "test_loss")

_POINTS = 60  # of a fit of two breaks: more do not move a break by a window, and cost their square
_FEWEST = 2  # windows' worth of windows


@dataclass(frozen=True)
class _Phases:
    """Of one run: three phases, and in the draws of each null; r of R and loss, and in surrogates of either."""

    three: bool
    n_breaks: int
    nulls: dict[str, Array]
    r: float
    r_nulls: dict[str, Array]
    others: dict[str, float]


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs), lambda run: _phases(run, context))
    n = len(found)
    share = float(np.mean([x.three for _, x in found]))
    with_null = [x for _, x in found if x.nulls]
    rates: dict[str, float] = {
        str(kind): float(np.mean([x.nulls[kind].mean() for x in with_null if kind in x.nulls]))
        for kind in NULLS
        if any(kind in x.nulls for x in with_null)
    }
    closest = max(rates, key=lambda kind: rates[kind]) if rates else ""
    rate = rates.get(closest, float("nan"))
    pooled = {kind: mean_draws([x.nulls[kind] for x in with_null if kind in x.nulls]) for kind in rates}
    observed = float(np.mean([x.three for x in with_null])) if with_null else float("nan")
    p = max((null_p(observed, draws) for draws in pooled.values()), default=float("nan"))
    low, high = (float(x) for x in clopper_pearson(sum(x.three for _, x in found), n))

    tied = [x for _, x in found if np.isfinite(x.r)]
    kinds = sorted({kind for x in tied for kind in x.r_nulls})
    r_rates = {
        kind: float(np.mean([np.mean(x.r_nulls[kind] > CORRELATION) for x in tied if kind in x.r_nulls]))
        for kind in kinds
    }
    r_rate = max(r_rates.values(), default=float("nan"))
    r = float(np.mean([x.r for x in tied])) if tied else float("nan")
    p_values = []
    for kind in kinds:
        of_kind = [x for x in tied if kind in x.r_nulls]
        p_values.append(
            null_p(float(np.mean([x.r for x in of_kind])), mean_draws([x.r_nulls[kind] for x in of_kind]))
        )
    r_p = max(p_values, default=float("nan"))
    others = sorted({name for x in tied for name in x.others})
    baselines = {
        f"|r| with {name}": float(np.mean([x.others[name] for x in tied if name in x.others])) for name in others
    }

    outcome: Outcome
    if rate > PASS_RATE:
        outcome = "uninformative"
    elif high < 0.5:
        outcome = "contradicted"
    elif not np.isfinite(rate) or share < 0.5:
        outcome = "not identifiable"
    elif p > LEVEL or low <= rate:
        outcome = "compatible"
    else:
        tie = r_p <= LEVEL and all(r > value for value in baselines.values())
        outcome = "supported" if tie or not tied else "compatible"
    loss = (
        f"; |r| with the loss is {r:.2f} (p {r_p:.2g}), and {100 * r_rate:.0f} % of surrogates pass the published 0.3"
        if tied
        else "; no validation loss was logged"
    )
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"two breaks with slopes up, flat, down in {sum(x.three for _, x in found)} of {n} runs and in "
        f"{100 * rate:.0f} % of histories of the closest null ({closest or 'none'}){loss}.",
        statistic="share of runs whose log R is best fitted by a rise, a plateau and a collapse",
        value=share,
        interval=(low, high),
        interval_method=f"Clopper-Pearson over {n} runs",
        n={"runs": n, "runs with a loss": len(tied)},
        null=closest,
        null_pass_rate=rate,
        p=p,
        baselines=baselines,
        author=author_says([x.r > CORRELATION for x in tied], [x.r for x in tied], r_rate),
        raw=[
            {"run": run.name, "three_phases": x.three, "breaks": x.n_breaks, "r": x.r, **x.others} for run, x in found
        ],
    )


def _phases(run: Run, context: Context) -> _Phases:
    window, rng = context.window, context.rng(41)
    spectra = context.spectra(run)
    at = context.whole(run)
    if len(at) < max(_FEWEST * window, 12):
        raise DataError(
            f"three phases take {max(_FEWEST * window, 12)} whole windows; {run.name} has {len(at)}. Record more "
            "often."
        )
    sigma, steps = spectra.singular_values[at], spectra.steps[at].astype(np.float64)
    thin = np.unique(np.linspace(0, len(at) - 1, min(len(at), _POINTS)).round().astype(int))
    log_ratio = log_guarded_ratio(sigma)
    fit = _fit(steps[thin], log_ratio[thin], len(at) / window)
    nulls: dict[str, Array] = {}
    drawn: dict[str, Array] = {}
    r_nulls: dict[str, Array] = {}
    for kind in NULLS:
        try:
            drawn[kind] = context.null_singular_values(run, kind)
        except DataError:
            continue
        n = drawn[kind].shape[1]
        if n < 12:
            continue
        every = np.unique(np.linspace(0, n - 1, min(n, _POINTS)).round().astype(int))
        log_null = log_guarded_ratio(drawn[kind][:, every])
        nulls[kind] = np.atleast_1d(is_three_phase(_fit(every.astype(np.float64), log_null, n / window)))
    three = bool(is_three_phase(fit))
    name = next((x for x in LOSSES if len(run.recording.metrics.get(x, ((),))[0]) >= 4), None)
    if name is None:
        return _Phases(three, int(fit.n_breaks), nulls, float("nan"), {}, {})
    loss = metric_at(run.recording, name, steps)
    plain = plain_ratio(sigma, spectra.floor[at])
    known = np.isfinite(loss) & np.isfinite(plain)
    if known.sum() < 12 or np.ptp(loss[known]) == 0.0:
        return _Phases(three, int(fit.n_breaks), nulls, float("nan"), {}, {})
    y = polynomial_residual(loss[known], 1)
    for label, values in drawn.items():
        m = min(values.shape[1], int(known.sum()))
        ratio = np.nanmax(values[:, :m, :-1] / np.maximum(values[:, :m, 1:], 1e-300), axis=2)
        r_nulls[label] = _abs_correlation(polynomial_residual(ratio, 1), polynomial_residual(loss[known][:m], 1))
    x = polynomial_residual(plain[known], 1)
    r_nulls["phases of the loss"] = _abs_correlation(phase_randomised(y, context.draws, rng), x)
    others = {
        label: float(_abs_correlation(polynomial_residual(series[known], 1), y))
        for label, series in _others(run, context, at, steps).items()
        if np.isfinite(series[known]).all() and np.ptp(series[known]) > 0.0
    }
    return _Phases(three, int(fit.n_breaks), nulls, float(_abs_correlation(x, y)), r_nulls, others)


def _others(run: Run, context: Context, at: np.ndarray, steps: Array) -> dict[str, Array]:
    """Cheaper series in step with the windows."""
    return {
        "tr G": context.spectra(run).trace[at],
        "train_loss": metric_at(run.recording, "train_loss", steps),
        "grad_norm": metric_at(run.recording, "grad_norm", steps),
        "lr": metric_at(run.recording, "lr", steps),
    }


def plain_ratio(sigma: Array, floor: Array) -> Array:
    """(N) largest sigma_j / sigma_{j+1} over all j of (N, W) singular values; NaN where none is resolved."""
    found = gap_ratios(sigma, floor)
    return np.where(np.isfinite(found).any(axis=1), np.fmax.reduce(found, axis=1), np.nan)


def _fit(times: Array, y: Array, n_effective: float) -> PiecewiseFit:
    return PiecewiseModel(times, smallest=max(3, len(times) // 10)).fit(y, n_effective=max(n_effective, 2.0))


def _abs_correlation(x: Array, y: Array) -> Array:
    """(...) |r| along the last axis of series without mean."""
    a, b = np.broadcast_arrays(x, y)
    scale = np.sqrt(np.square(a).sum(axis=-1) * np.square(b).sum(axis=-1))
    return np.asarray(np.abs((a * b).sum(axis=-1)) / np.where(scale > 0.0, scale, np.nan))


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "T4",
        "The gap ratio R rises, stays and collapses over training, and is correlated with the validation loss.",
        "arXiv:2603.28964v1-v3 (draft Proposition 8.1); arXiv:2603.15678",
        "runs of at least two windows' worth of windows; a validation loss for the second half",
        "spectraledge run modular/add --seed 42",
        "|r| > 0.3 of R at the plain k* and the validation loss, both without their line in time, at lag 0",
        "0.937 in phases of its own choice (TinyStories), 0.870 for a ratio of its own choice (GPT-2); confirmed",
        _judge,
    ),
)
