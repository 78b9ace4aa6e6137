"""C1: the spectrum of updates is wider than that of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.verdict import LEVEL
from ..errors import DataError
from ..theory.bootstrap import BootstrapInterval, block_bootstrap
from ..theory.surrogates import sample_gram
from ..theory.window_series import moving_grams
from .context import Array, Context
from .noise_floor import parameters_of
from .pooled import author_says, disjoint, each, ends, mean_draws, null_p, over_runs, some, word
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Verdict

PLANTED = 2.0  # strength of the planted drift, in units of the 5 % point of the largest noise eigenvalue
_EXCESS_POINT = 2.11  # that point lies 2.11 sqrt(W / P_eff) above the mean, for W about 10


@dataclass(frozen=True)
class _Spread:
    """Of one run: (n) log CV in windows that share no row; (draws) their mean in norm-matched noise."""

    log_cv: Array
    null: Array
    energies: float


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs), lambda run: _spread(run, context))
    null = mean_draws([x.null for _, x in found])
    middle = [float(np.median(x.null)) for _, x in found]
    excess = [float(x.log_cv.mean()) - m for (_, x), m in zip(found, middle)]

    def alone() -> BootstrapInterval:
        x = found[0][1].log_cv - middle[0]
        if len(x) < 4:
            unknown = np.array(np.nan)
            return BootstrapInterval(np.array(x.mean()), unknown, unknown, 0.95, float(len(x)))
        return block_bootstrap(
            lambda y: y.mean(axis=-1), x, block=1, n_boot=999, rng=context.rng(101), interval="t", vectorized=True
        )

    interval, method = over_runs(excess, alone, context.rng(101))
    p = null_p(float(np.mean([x.log_cv.mean() for _, x in found])), null)
    limit = float(np.quantile(null, 1.0 - LEVEL))
    rate = float(np.mean(null > limit))
    blocks = float(sum(len(x.log_cv) for _, x in found))
    outcome = word(interval, null_rate=rate, p=p, blocks=blocks)
    cv, noise = (float(np.exp(np.mean(x))) for x in ([x.log_cv.mean() for _, x in found], middle))
    energies = float(np.exp(np.mean([x.energies for _, x in found])))
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"the eigenvalues of a window have a coefficient of variation of {cv:.2f}, noise of the same row norms, "
        "effective "
        f"dimension and momentum one of {noise:.2f} (p {p:.2g}), and the row norms alone make {energies:.2f}.",
        statistic="mean log coefficient of variation of the eigenvalues of a window, above norm-matched noise",
        value=float(interval.value),
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found), "windows": blocks},
        null="norm_matched",
        null_pass_rate=rate,
        p=p,
        baselines={"CV of noise": noise, "CV of row energies": energies},
        power=_power([run for run, _ in found], context),
        author=_author(runs, context),
        raw=[
            {"run": run.name, "cv": float(np.exp(x.log_cv.mean())), "noise": float(np.exp(m)), "excess": e}
            for (run, x), m, e in zip(found, middle, excess)
        ],
    )


def log_variation(sigma: Array) -> Array:
    """(...) log of sd / mean over the eigenvalues sigma^2 of each window; NaN where all are equal.

    >>> float(np.exp(log_variation(np.array([3.0, 1.0]))).round(9))
    0.8
    """
    lam = np.square(sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        cv = lam.std(axis=-1) / lam.mean(axis=-1)
        return np.where(cv > 1e-12, np.log(cv), np.nan)


def _spread(run: Run, context: Context) -> _Spread:
    whole = context.whole(run)
    drawn = context.null_singular_values(run, "norm_matched")
    n = min(len(whole), drawn.shape[1])
    index = disjoint(n, context.window)
    sigma, gram = context.spectra(run).singular_values[whole[index]], context.spectra(run).gram[whole[index]]
    log_cv = log_variation(sigma)
    known = np.isfinite(log_cv)
    if not known.any():
        raise DataError(
            f"a spread needs windows with unequal eigenvalues; {run.name} has none. Record another stretch."
        )
    null = np.nanmean(log_variation(drawn[:, index[known]]), axis=1)
    energies = log_variation(np.sqrt(np.diagonal(gram[known], axis1=1, axis2=2)))
    energies = energies[np.isfinite(energies)]
    return _Spread(log_cv[known], null, float(energies.mean()) if len(energies) else -np.inf)


def _power(runs: Sequence[Run], context: Context) -> float:
    """Share of histories found to be wider than noise, with a common drift twice as strong as the 5 % point of "
    "noise."""
    window, found = context.window, []
    for run in runs[:3]:
        spectra, whole = context.spectra(run), context.whole(run)
        p_eff = float(np.nanmedian(spectra.p_eff))
        norms = spectra.norms[whole, -1][: 20 * window]
        if len(norms) < 2 * window:
            continue
        drift = min(0.9, PLANTED * _EXCESS_POINT * np.sqrt(window / p_eff) / window)
        correlation = np.zeros(len(norms))
        m = min(len(norms), spectra.row_correlation.shape[1])
        correlation[:m] = spectra.row_correlation[0, :m]
        both = []
        for coherence in (0.0, drift):
            grams = sample_gram(
                norms, p_eff, row_correlation=correlation, coherence=coherence, n_draws=39, rng=context.rng(102)
            )
            lam = np.linalg.eigvalsh(moving_grams(grams, window)[:, ::window])
            both.append(log_variation(np.sqrt(lam.clip(min=0.0))).mean(axis=1))
        found.append(np.mean(both[1] > np.quantile(both[0], 1.0 - LEVEL)))
    return float(np.mean(found)) if found else float("nan")


def _author(runs: Sequence[Run], context: Context) -> AuthorRule:
    sizes = {run.name: parameters_of(run, context) for run in runs}
    passes, values, rates = [], [], []
    for run in runs:
        unit = np.sqrt(context.window / sizes[run.name])  # CV of the Marchenko-Pastur law
        try:
            sigma = context.spectra(run).singular_values[context.whole(run)]
        except DataError:
            continue
        if not np.isfinite(unit) or not len(sigma):
            continue
        ratio = np.exp(log_variation(sigma)) / unit
        passes.append(bool(np.nanmin(ratio) > 1.0))
        values.append(float(np.nanmedian(ratio)))
    for run in some(runs):
        unit = np.sqrt(context.window / sizes[run.name])
        try:
            rates.append(
                context.null_pass_rate(
                    run,
                    "norm_matched",
                    lambda s, unit=unit: bool(np.nanmin(np.exp(log_variation(s))) > unit),  # type: ignore[misc]
                )
            )
        except DataError:
            continue
    return author_says(passes, values, float(np.mean(rates)) if rates else float("nan"))


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C1",
        "The spectrum of updates stands out of Marchenko-Pastur noise.",
        "arXiv:2603.15678 (section 3.2), cited by arXiv:2603.28964",
        "any run of two windows and more",
        "spectraledge run modular/add --seed 42",
        "coefficient of variation of the eigenvalues of every window above that of the Marchenko-Pastur law, "
        "sqrt(W / P), P the number of parameters",
        "229 to 576 times above; confirmed",
        _judge,
    ),
)
