"""T2: the gap sits at the largest ratio of neighbouring singular values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..theory.bootstrap import BootstrapInterval, block_bootstrap
from ..theory.gap import Rule, gap_position, uniqueness_margin
from .context import NULLS, Array, Context
from .pooled import author_says, each, ends, mean_draws, mean_known, null_p, over_runs, some, word
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

RULES: tuple[Rule, ...] = ("plain", "weighted", "guarded")


@dataclass(frozen=True)
class _Position:
    """Of one run: (N) log R at the guarded k*, (draws) its mean over windows in each null, and positions."""

    log_ratio: Array
    nulls: dict[str, Array]
    plain: int
    weighted: int
    guarded: int
    kept: float
    unique: float


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    window = context.window
    found = each(some(runs), lambda run: _position(run, context))
    pooled: dict[str, Array] = {
        str(kind): mean_draws([x.nulls[kind] for _, x in found if kind in x.nulls])
        for kind in NULLS
        if any(kind in x.nulls for _, x in found)
    }
    with_null = [x for _, x in found if x.nulls]
    observed = float(np.mean([x.log_ratio.mean() for x in with_null])) if with_null else float("nan")
    p = {kind: null_p(observed, draws) for kind, draws in pooled.items()}
    closest = max(p, key=lambda kind: p[kind]) if p else ""
    expected = {kind: float(np.median(draws)) for kind, draws in pooled.items()}
    floor = max(expected.values(), default=float("nan"))
    excess = [x.log_ratio.mean() - max(float(np.median(d)) for d in x.nulls.values()) for x in with_null]

    def alone() -> BootstrapInterval:
        x = found[0][1].log_ratio - floor
        block = min(2 * window, max(1, len(x) // 2))
        return block_bootstrap(
            lambda y: y.mean(axis=-1), x, block=block, n_boot=999, rng=context.rng(21), vectorized=True
        )

    interval, method = over_runs(excess, alone, context.rng(21))
    blocks = sum(len(x.log_ratio) for _, x in found) / (2.0 * window)
    # The test passes where the mean exceeds the upper 5 % of every null: the share of draws of the closest null.
    limit = max((float(np.quantile(d, 0.95)) for d in pooled.values()), default=float("nan"))
    rate = max((float(np.mean(d > limit)) for d in pooled.values()), default=float("nan"))
    replacement = word(interval, null_rate=rate, p=max(p.values(), default=float("nan")), blocks=blocks)
    kept = mean_known([x.kept for _, x in found])
    return Verdict(
        "",
        "",
        "",
        "uninformative",
        "the position of the largest ratio is the definition of k*, which no run can contradict; whether there is a "
        f"gap at all: the mean log R exceeds that of the closest null ({closest or 'none'}) by "
        f"{float(interval.value):.3f} ({replacement}), and k* is the same a window later in {100 * kept:.0f} % of "
        "windows.",
        statistic="mean log R at the guarded k*, above the closest null",
        value=float(interval.value),
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found), "windows": float(sum(len(x.log_ratio) for _, x in found)), "blocks": blocks},
        null=closest,
        null_pass_rate=rate,
        p=max(p.values(), default=float("nan")),
        baselines={f"log R of {kind}": value for kind, value in expected.items()},
        author=author_says([True] * len(found), [float(x.plain) for _, x in found], 1.0),
        raw=[
            {
                "run": run.name,
                "k_plain": x.plain,
                "k_weighted": x.weighted,
                "k_guarded": x.guarded,
                "log_ratio": float(x.log_ratio.mean()),
                "same_a_window_later": x.kept,
                "unique": x.unique,
                "at_most_3": x.plain <= 3,
                "replacement": replacement,
            }
            for run, x in found
        ],
    )


def log_guarded_ratio(sigma: Array) -> Array:
    """(...) log of the largest sigma_j / sigma_j+1 over j <= W // 2; (..., W) singular values.

    >>> float(np.exp(log_guarded_ratio(np.array([8.0, 2.0, 1.0, 0.01]))).round(9))
    4.0
    """
    half = sigma.shape[-1] // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(sigma[..., :half] / sigma[..., 1 : half + 1])
    return np.asarray(np.fmax.reduce(np.where(np.isfinite(ratio), ratio, np.nan), axis=-1))


def _position(run: Run, context: Context) -> _Position:
    spectra = context.spectra(run)
    at = context.whole(run)
    sigma, floor = spectra.singular_values[at], spectra.floor[at]
    plain, weighted, k = (gap_position(sigma, rule=rule, floor=floor) for rule in RULES)
    log_ratio = log_guarded_ratio(np.where(sigma > floor[:, None], sigma, np.nan))
    log_ratio = log_ratio[np.isfinite(log_ratio)]
    if not len(log_ratio):
        raise DataError(f"a gap needs windows with two resolved modes; {run.name} has none. Record larger updates.")
    nulls: dict[str, Array] = {}
    sds = float("nan")
    for kind in NULLS:
        try:
            drawn = context.null_singular_values(run, kind)
        except DataError:
            continue
        nulls[kind] = log_guarded_ratio(drawn).mean(axis=1)
        if kind == "norm_matched":
            sds = float(np.exp(log_guarded_ratio(drawn[:, :: context.window])).std())
    later = k[context.window :]
    margin = uniqueness_margin(sigma, null_sd=sds, floor=floor) if sds > 0 else np.full(len(sigma), np.nan)
    return _Position(
        log_ratio,
        nulls,
        most_frequent(plain),
        most_frequent(weighted),
        most_frequent(k),
        kept=float(np.mean(later == k[: len(later)])) if len(later) else float("nan"),
        unique=float(np.mean(margin > 2.0)) if np.isfinite(margin).any() else float("nan"),
    )


def most_frequent(position: np.ndarray) -> int:
    """Most frequent position; 0 where none is resolved."""
    known = position[position > 0]
    return int(np.bincount(known).argmax()) if len(known) else 0


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "T2",
        "The gap sits at k* = argmax sigma_j / sigma_j+1, with k* of 1 to 3.",
        "arXiv:2603.28964v1-v3 (draft Definition 3.1)",
        "any run of two windows and more",
        "spectraledge run modular/add --seed 42",
        "the most frequent argmax of sigma_j / sigma_j+1 is printed and ticked whatever it is",
        "2 (TinyStories), 3 (GPT-2), 1 (Dyck, SCAN, 15 of 18 modular runs; weighted rule); confirmed",
        _judge,
    ),
)
