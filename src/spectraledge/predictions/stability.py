"""T5: directions before the gap are more stable than those at it, and these than those behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..dynamics.columns import known_mean, time_interval
from ..dynamics.hierarchy import common_position, group_means, order_margin
from ..dynamics.stretches import stretches
from ..dynamics.windows import grams_ending_at
from ..errors import DataError
from ..theory.alpha import AlphaKind, stability_coefficients
from ..theory.alpha_null import block_size
from ..theory.bootstrap import BootstrapInterval
from ..theory.gap import gap_position
from ..theory.spectrum import UPDATE_EPS_FLOAT64, gram_spectrum
from ..theory.surrogates import fit_null
from .context import NULLS, Array, Context
from .pooled import author_says, each, ends, mean_draws, null_p, over_runs, shifted, some, word
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

# A draw is a history of some 48 rows for each stretch of each run, three nulls.
_MOST_RUNS, _MOST_STRETCHES, _MOST_DRAWS, _FEWEST_DRAWS = 12, 3, 60, 39
_N_BOOT = 500
Side = Literal["strict", "author"]


@dataclass(frozen=True)
class _Order:
    """The order of one coefficient around k* in one run.

    Attributes:
        groups: (3) means of dominant, gap and subdominant modes over the run.
        alpha: (W) means over the run.
        position: Most frequent k*.
        margin: Least fall from one group to the next over the run, with interval.
        matched: The same over the windows that the nulls cover.
        nulls: Name to (draws) margins.
    """

    groups: Array
    alpha: Array
    position: int
    margin: BootstrapInterval
    matched: float
    nulls: dict[str, Array]


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    kept = some(runs, _MOST_RUNS)
    draws = int(np.clip(400 // max(len(kept), 1), _FEWEST_DRAWS, min(_MOST_DRAWS, max(context.draws, _FEWEST_DRAWS))))
    found = each(kept, lambda run: (_order(run, context, "strict", draws), _order(run, context, "author", draws)))
    with_null = [ours for _, (ours, _) in found if ours.nulls and np.isfinite(ours.matched)]
    if not with_null:
        raise DataError(
            "stability must be compared with that in noise, whose effective dimension no run tells. Record longer "
            "stretches without seams, or a larger stride."
        )
    pooled = {str(kind): mean_draws([x.nulls[kind] for x in with_null if kind in x.nulls]) for kind in NULLS}
    observed = float(np.mean([x.matched for x in with_null]))
    p_values = {kind: null_p(observed, null) for kind, null in pooled.items()}
    closest = max(p_values, key=lambda kind: p_values[kind])
    p = p_values[closest]
    limit = max(float(np.nanquantile(null, 0.95)) for null in pooled.values())
    rate = max(float(np.mean(null > limit)) for null in pooled.values())
    typical = {kind: float(np.nanmedian(null)) for kind, null in pooled.items()}
    holds = max(float(np.mean([np.mean(x.nulls[kind] > 0.0) for x in with_null])) for kind in pooled)
    # The order alone is no evidence where nulls show it: what is tested is by how much it exceeds theirs.
    excess = [x.matched - max(float(np.nanmedian(null)) for null in x.nulls.values()) for x in with_null]

    def alone() -> BootstrapInterval:
        return shifted(with_null[0].margin, max(typical.values()))

    interval, method = over_runs(excess, alone, context.rng(51))
    blocks = float(sum(x.margin.n_units for x in with_null))
    outcome = word(interval, null_rate=rate, p=p, blocks=blocks)
    order, _ = over_runs([x.matched for x in with_null], lambda: with_null[0].margin, context.rng(54))
    if outcome in ("supported", "compatible") and observed <= 0.0:
        outcome = "not identifiable"  # above its nulls, and yet no order
    elif outcome == "contradicted" and not float(order.high) < 0.0:
        # Less of an order than nulls have, but not the reverse.
        outcome = "compatible" if float(order.low) > 0.0 else "not identifiable"
    published = [author for _, (_, author) in found]
    rates = [
        float(np.mean([np.mean(x.nulls[kind] > 0.0) for x in published if kind in x.nulls]))
        for kind in NULLS
        if any(kind in x.nulls for x in published)
    ]
    margins = [float(x.margin.value) for x in published]
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"between disjoint windows the overlap falls around the gap by {observed:.3f}, by {typical[closest]:.3f} in "
        f"the closest null ({closest}, p {p:.2g}), and the order as such holds in {100 * holds:.0f} % of null "
        "histories.",
        statistic="least fall of the squared overlap of disjoint windows around k*, above that of the closest null",
        value=float(interval.value),
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(with_null), "blocks": blocks, "draws": draws},
        null=closest,
        null_pass_rate=rate,
        p=p,
        baselines={f"fall in {kind}": x for kind, x in typical.items()}
        | {"order as such, in nulls": holds, "fall itself": observed},
        author=author_says([m > 0.0 for m in margins if np.isfinite(m)], margins, max(rates, default=float("nan"))),
        raw=[
            {
                "run": run.name,
                "k_star": ours.position,
                **{name: float(g) for name, g in zip(("dominant", "gap", "subdominant"), ours.groups)},
                "fall": float(ours.margin.value),
                "fall_published": float(author.margin.value),
                "alpha_published": author.alpha.tolist(),
            }
            for run, (ours, author) in found
        ],
    )


def _order(run: Run, context: Context, side: Side, draws: int) -> _Order:
    recording, window = run.recording, context.window
    kind: AlphaKind = "overlap2_lagW" if side == "strict" else "dk_dlam"
    size = block_size(kind, window)
    band = recording.band(context.block, stride=context.stride)
    every = grams_ending_at(band, size, np.arange(window, len(band)))
    alpha, position = _coefficients(every, window, kind, side, recording.update_eps)
    if not np.isfinite(alpha).any():
        raise DataError(
            f"stability takes {size} rows in a piece and {size - 1} lags; {run.name} has none. Record more lags "
            "(--lags 19 for a window of 10) or a longer stretch."
        )
    groups = group_means(alpha, position)
    rng = context.rng(52)
    margin = time_interval(
        order_margin, groups, block=min(2 * window, len(groups)), n_boot=_N_BOOT, rng=context.rng(53)
    )
    found = [s for s in stretches(recording, window, context.block, context.stride) if len(s) >= size]
    found = [
        found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(len(found), _MOST_STRETCHES)).astype(int))
    ]
    index = [s.start + _last_rows(len(s), size, window) - window for s in found]
    matched = float(order_margin(groups[np.concatenate(index)])) if index else float("nan")
    nulls: dict[str, Array] = {}
    for null in NULLS if found else ():
        parts = []
        for s in found:
            drawn = fit_null(null, s.gram, s.p_eff, s.row_correlation).sample(draws, rng)
            at = _last_rows(len(s), size, window)[:, None] - size + 1 + np.arange(size)
            blocks = drawn[:, at[:, :, None], at[:, None, :]]
            parts.append(group_means(*_coefficients(blocks, window, kind, side, UPDATE_EPS_FLOAT64)))
        nulls[null] = order_margin(np.concatenate(parts, axis=1))
    known = position[position > 0]
    return _Order(
        known_mean(groups, axis=0),
        known_mean(alpha, axis=0),
        int(np.bincount(known).argmax()) if len(known) else 0,
        margin,
        matched,
        nulls,
    )


def _coefficients(blocks: Array, window: int, kind: AlphaKind, side: Side, eps: float) -> tuple[Array, np.ndarray]:
    """(..., N, W) coefficients and (..., N) k*: the window's own, or as published the most frequent one."""
    alpha = stability_coefficients(blocks, window, kind, mode=side, update_eps=eps)
    spectrum = gram_spectrum(blocks[..., -window:, -window:], update_eps=eps)
    rule: Literal["guarded", "plain"] = "guarded" if side == "strict" else "plain"
    position = gap_position(spectrum.singular_values, rule=rule, floor=spectrum.floor)
    position = np.where(np.isfinite(alpha).any(axis=-1), position, 0)
    return alpha, common_position(position, window) if side == "author" else position


def _last_rows(n_rows: int, size: int, window: int) -> np.ndarray:
    """Last rows of the blocks looked at in a stretch, half a window apart."""
    return np.arange(max(size, window + 1) - 1, n_rows, max(1, window // 2))


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "T5",
        "The stability coefficient falls around the gap: alpha of dominant modes > alpha of the gap's > alpha of "
        "subdominant ones.",
        "arXiv:2603.28964v1-v3 (Definition 6.1 of the draft, Theorem 16.3 of v1)",
        "runs recorded with at least 2 W - 1 lags and 2 W rows in a piece",
        "spectraledge run modular/add --seed 42 --lags 19",
        "strict inequality of the mean alpha = 1 - ||change of eigenvalues||^2 / gap^2 by position about the most "
        "frequent k*",
        "0.818 > 0.234 > 0 (GPT-2), 0.77 > 0.16 (Dyck); confirmed",
        _judge,
    ),
)
