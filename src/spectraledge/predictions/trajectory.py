"""C15 and C16: the path of the parameters is of rank one, with a backbone. C13 and C14 are in files of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..theory.bootstrap import BootstrapInterval
from . import compression, staggered
from .context import Array, Context
from .displacement import WALK, first_share, halves_angle, positions, walks_of
from .pooled import author_says, each, ends, mean_draws, null_p, over_runs, some, word
from .registry_types import Prediction
from .runs import Run
from .verdict import Outcome, Verdict

_SIGMAS = 5.0  # of the published comparison
_BACKBONE = 0.6  # least of the published shares
_MOST_RUNS = 12
_SPAN = 0.5  # share of a run below which a stretch says little of the whole


Rule = Callable[[Array, Array], tuple[Array, NDArray[np.bool_]]]


@dataclass(frozen=True)
class _Share:
    """Of one run, means over its stretches.

    Attributes:
        value: Share of the first component.
        walk: (draws) the same of random walks of the run's own norms and momentum.
        drift: Median of walks around a constant direction.
        deflated: Value without the direction of the parameters, less the median of the walks.
        author: The published statistic.
        author_passes: Whether it passes.
        author_null: Share of the walks that pass as well.
        blocks: Stretches.
        rows, coverage: Of a stretch.
        angle: Degrees between the first components of its halves; ``angle_walk`` the median of the walks.
    """

    value: float
    walk: Array
    drift: float
    deflated: float
    author: float
    author_passes: bool
    author_null: float
    blocks: int
    rows: int
    coverage: float
    angle: float
    angle_walk: float

    @property
    def excess(self) -> float:
        return self.value - float(np.median(self.walk))


def _c15(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs, _MOST_RUNS), lambda run: _share(run, context, _centred, _z_rule))
    return _verdict(found, context, "centred", 15)


def _c16(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs, _MOST_RUNS), lambda run: _share(run, context, _from_start, _backbone_rule))
    return _verdict(found, context, "from the start, positions of length one", 16)


def _centred(gram: Array) -> Array:
    return first_share(positions(gram, centred=True))


def _from_start(gram: Array) -> Array:
    return first_share(positions(gram, unit=True))


def _share(run: Run, context: Context, of: Callable[[Array], Array], rule: Rule) -> _Share:
    walks = walks_of(run, context)
    observed, walk = of(walks.observed), of(walks.walk)
    plain = of(walks.plain)
    score, passes = rule(observed[:, None], plain)
    _, null_passes = rule(walk, plain)
    typical = float(np.median(walk.mean(axis=0)))
    return _Share(
        value=float(observed.mean()),
        walk=walk.mean(axis=0),
        drift=float(np.median(of(walks.drift).mean(axis=0))),
        deflated=float(of(walks.deflated).mean()) - typical,
        author=float(np.median(score)),
        author_passes=bool(2 * passes.sum() > passes.size),
        author_null=float(np.mean(null_passes)),
        blocks=len(observed),
        rows=walks.rows,
        coverage=walks.coverage,
        angle=float(np.mean(halves_angle(walks.observed))),
        angle_walk=float(np.median(halves_angle(walks.walk))),
    )


def _z_rule(share: Array, plain: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Standard deviations of random walks above their mean; more than five pass."""
    z = (share - plain.mean(axis=1, keepdims=True)) / np.maximum(plain.std(axis=1, ddof=1, keepdims=True), 1e-12)
    return z, z > _SIGMAS


def _backbone_rule(share: Array, plain: Array) -> tuple[Array, NDArray[np.bool_]]:
    return share, share >= _BACKBONE


def _verdict(found: Sequence[tuple[Run, _Share]], context: Context, how: str, salt: int) -> Verdict:
    shares = [x for _, x in found]
    excess = [x.excess for x in shares]

    def alone() -> BootstrapInterval:
        # Of a single run the walks are the only measure of scatter.
        reach = float(np.quantile(np.abs(shares[0].walk - np.median(shares[0].walk)), 0.95))
        value = np.array(excess[0])
        return BootstrapInterval(value, value - reach, value + reach, 0.95, float(shares[0].blocks))

    interval, method = over_runs(excess, alone, context.rng(240 + salt))
    if len(found) < 2:
        method = "scatter of the walks of one run"
    null = mean_draws([x.walk - np.median(x.walk) for x in shares])
    p = null_p(float(np.mean(excess)), null)
    rate = float(np.mean(null > np.quantile(null, 0.95))) if len(null) else float("nan")
    deflated = float(np.mean([x.deflated for x in shares]))
    coverage = float(np.mean([x.coverage for x in shares]))
    limit = float(np.quantile(null, 0.95))
    blocks = float(sum(x.blocks for x in shares))
    # Runs, not stretches, are the units where there are several.
    units = max(blocks, 10.0 if len(found) > 2 else 0.0)
    # Most of the excess must be left without the direction along which decay moves.
    beaten = deflated > max(limit, 0.5 * float(interval.value))
    outcome = word(interval, null_rate=rate, p=p, beaten=beaten, blocks=units)
    outcome = _capped(outcome, coverage)
    value, walk = float(np.mean([x.value for x in shares])), float(np.mean([np.median(x.walk) for x in shares]))
    drift = float(np.mean([x.drift for x in shares]))
    angle, turned = (float(np.mean([getattr(x, n) for x in shares])) for n in ("angle", "angle_walk"))
    part = (
        f"stretches of {shares[0].rows} rows, {100 * coverage:.0f} % of a run, which is all that the lags hold"
        if coverage < _SPAN
        else f"{100 * coverage:.0f} % of a run"
    )
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"the first component ({how}) holds {100 * value:.1f} % of the displacement over {part}, a random walk of "
        f"the same norms {100 * walk:.1f} % (p {p:.2g}) and one around a constant drift {100 * drift:.1f} %; without "
        f"the direction of the parameters {100 * deflated:+.1f} points are left, and the halves are {angle:.0f} "
        f"degrees apart (walks {turned:.0f}).",
        statistic=f"share of the first principal component ({how}), above that of random walks of the same norms",
        value=float(interval.value),
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found), "stretches": blocks},
        null=str(WALK),
        null_pass_rate=rate,
        p=p,
        baselines={
            "share in random walks": walk,
            "share around a constant drift": drift,
            "excess without the direction of the parameters": deflated,
        },
        author=author_says(
            [x.author_passes for x in shares],
            [x.author for x in shares],
            float(np.mean([x.author_null for x in shares])),
        ),
        raw=[
            {
                "run": run.name,
                "arm": run.arm,
                "share": x.value,
                "excess": x.excess,
                "rows": x.rows,
                "coverage": x.coverage,
                "excess_without_parameters": x.deflated,
                "degrees_between_halves": x.angle,
                "degrees_in_walks": x.angle_walk,
            }
            for run, x in found
        ],
    )


def _capped(outcome: Outcome, coverage: float) -> Outcome:
    """What short stretches show is no more than a hint at the whole path."""
    if coverage >= _SPAN:
        return outcome
    return {"supported": "compatible", "contradicted": "not identifiable"}.get(outcome, outcome)  # type: ignore[return-value]


_COMMAND = "spectraledge run modular/add --seed 42 --every 50 --lags 199"
PREDICTIONS: tuple[Prediction, ...] = (
    *staggered.PREDICTIONS,
    *compression.PREDICTIONS,
    Prediction(
        "C15",
        "The path of the parameters is an execution manifold of rank one: PC1 holds 70 to 94 % of its variance.",
        "arXiv:2602.16746, arXiv:2602.10496, cited by arXiv:2603.28964",
        "runs recorded with lags over all of the path; of others stretches as long as the lags",
        _COMMAND,
        "share of the first component, centred, more than 5 standard deviations above random walks of equal "
        "independent steps (published one weight matrix at a time)",
        "70 to 94 %, z above 5 against random walks; confirmed",
        _c15,
    ),
    Prediction(
        "C16",
        "The path has a backbone: PC1 of the displacement from the start holds 60 to 80 %.",
        "arXiv:2602.23696, cited by arXiv:2603.28964",
        "runs recorded with lags over all of the path; of others stretches as long as the lags",
        _COMMAND,
        "share of the first component, from the start, positions of length one: 60 % or more",
        "79.1 and 79.3 % raw, 71.4 and 71.7 % with positions of length one, 71 degrees between early and late; "
        "confirmed",
        _c16,
    ),
)
