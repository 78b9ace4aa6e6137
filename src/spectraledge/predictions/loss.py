"""T8: what a mode does to the loss is the product of its gradients, weighted by its stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.loss_decomposition import LossReport, loss_decomposition
from ..errors import DataError
from ..theory.alpha import AlphaKind
from ..theory.bootstrap import BootstrapInterval, block_bootstrap
from .context import Array, Context
from .pooled import each, ends, mean_known, null_p, over_runs, word
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Verdict

KIND: AlphaKind = "overlap2_lagW"
_FEWEST = 12
_BOOT = 500


@dataclass(frozen=True)
class _Split:
    """Of one run: (n) measured changes and forecasts; (draws) gain of alpha given to the wrong modes."""

    report: LossReport
    measured: Array
    plain: Array
    weighted: Array
    gradients: Array
    shuffled: Array
    block: int


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(runs, lambda run: _split(run, context))
    gains = [_gain(x.measured, x.plain, x.weighted) for _, x in found]

    def alone() -> BootstrapInterval:
        x = found[0][1]
        block = min(x.block, max(1, len(x.measured) // 2))
        return block_bootstrap(
            _gain, x.measured, x.plain, x.weighted, block=block, n_boot=_BOOT, rng=context.rng(81), vectorized=True
        )

    interval, method = over_runs([float(g) for g in gains], alone, context.rng(81))
    null = np.mean([x.shuffled for _, x in found], axis=0)
    p = null_p(float(interval.value), null)
    # The test asks for more than the upper 5 % of alpha on the wrong modes, and for a gain at all.
    limit = float(np.quantile(null, 0.95))
    rate = float(np.mean(null > max(limit, 0.0)))
    shares = {
        "alpha = 1": [float(_share(x.measured, x.plain)) for _, x in found],
        "gradients without modes": [float(_share(x.measured, x.gradients)) for _, x in found],
    }
    weighted = [float(_share(x.measured, x.weighted)) for _, x in found]
    last = [float(_share(x.measured[1:], x.measured[:-1])) for _, x in found]
    baselines = {name: mean_known(values) for name, values in shares.items()}
    baselines["last change"] = mean_known(last)
    mean = mean_known(weighted)
    blocks = sum(len(x.measured) / x.block for _, x in found)
    outcome = word(
        interval, null_rate=rate, p=p, beaten=all(mean > value for value in baselines.values()), blocks=blocks
    )
    coverage = [float(x.report.pooled_coverage.value) for _, x in found]
    best = max(baselines, key=lambda name: baselines[name])
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"weighting the modes by alpha changes the share of the validation loss's change that is explained by "
        f"{float(interval.value):+.3f} (alpha on the wrong modes: {float(np.median(null)):+.3f}, p {p:.2g}), to "
        f"{mean:.2f} where {best} explains {baselines[best]:.2f}; the modes hold {mean_known(coverage):.2f} "
        "of the first-order change.",
        statistic="squared cosine of forecast and measured change of the validation loss, with alpha less without",
        value=float(interval.value),
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found), "probes": float(sum(len(x.measured) for _, x in found)), "blocks": blocks},
        null="alpha of another mode",
        null_pass_rate=rate,
        p=p,
        baselines=baselines,
        author=AuthorRule(""),
        raw=[
            {
                "run": run.name,
                "gain": float(g),
                "explained": w,
                "explained_alpha_1": a,
                "coverage": c,
                "in_sample_error": _largest(x.report.in_error),
                "nested": x.report.alpha_tests[KIND].verdict if KIND in x.report.alpha_tests else "not identifiable",
                "probes": len(x.measured),
            }
            for (run, x), g, w, a, c in zip(found, gains, weighted, shares["alpha = 1"], coverage)
        ],
    )


def _split(run: Run, context: Context) -> _Split:
    report = loss_decomposition(run.recording, n_boot=200, seed=context.seed)
    measured = report.decomposition.measured
    found = report.forecasts
    plain, alpha = found.plain, found.alpha[KIND]
    modes = np.isfinite(plain) & np.isfinite(alpha)
    totals = [
        np.where(modes.any(axis=1), np.where(modes, x, 0.0).sum(axis=1), np.nan) for x in (plain, plain * alpha)
    ]
    known = np.isfinite(measured) & np.isfinite(totals[0])
    if known.sum() < _FEWEST:
        raise DataError(
            f"the split needs {_FEWEST} probes with gradients of both losses, a next update and {2 * report.k - 1} "
            f"lags; {run.name} has {int(known.sum())}. Run with --probe-every and a validation loss."
        )
    rng = context.rng(82)
    terms = np.where(modes, plain, 0.0)[known]
    weights = np.where(modes, alpha, 0.0)[known]
    y = measured[known]
    shuffled = np.empty(context.draws)
    for i in range(context.draws):
        # Modes are exchanged alike at all probes: alpha keeps its course in time, and loses its mode.
        order = rng.permutation(terms.shape[1])
        shuffled[i] = float(_gain(y, totals[0][known], (terms * weights[:, order]).sum(axis=1)))
    every = np.median(np.diff(report.steps)) if len(report.steps) > 1 else 1.0
    updates = max(1.0, float(every) / float(np.median(run.recording.n_steps)))
    block = max(1, int(np.ceil(2.0 * context.window / updates)))
    gradients = found.optimizer if np.isfinite(found.optimizer[known]).all() else found.gradients
    return _Split(report, y, totals[0][known], totals[1][known], gradients[known], shuffled, block)


def _share(y: Array, x: Array) -> Array:
    """(...) cos^2 of two series: share of the energy of y that x explains at its best scale."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    energy = np.square(x).sum(axis=-1) * np.square(y).sum(axis=-1)
    return np.asarray(np.square((x * y).sum(axis=-1)) / np.where(energy > 0.0, energy, np.nan))


def _gain(y: Array, plain: Array, weighted: Array) -> Array:
    nothing = np.nan_to_num(_share(y, weighted), nan=0.0)  # alpha 0 for all: nothing is forecast
    return np.asarray(nothing - np.nan_to_num(_share(y, plain), nan=0.0))


def _largest(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else float("nan")


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "T8",
        "The contribution of mode j to learning is alpha_j G_j^train G_j^val.",
        "arXiv:2603.28964v1-v3 (loss decomposition, test 8)",
        "runs with a dozen probes or more that have gradients of training and validation loss",
        "spectraledge run modular/add --seed 42 --probe-every 100",
        "rank correlation of |alpha_j G_j^train G_j^val| with the loss change when theta's part along v_j is "
        "removed, over at most 5 modes; needs ablations, which a recording does not hold",
        "confirmed; no value is given",
        _judge,
    ),
)
