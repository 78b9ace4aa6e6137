"""C12: where the gap sits depends on the optimizer: k* = 1 under Muon, 2 under AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..theory.bootstrap import cluster_bootstrap
from ..theory.gap import gap_position
from .context import NULLS, Array, Context
from .counted import held_out_loss
from .pooled import N_BOOT, author_says, each, ends, mean_draws, null_p, word
from .position import most_frequent
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

MUON, ADAMW = "muon", "adamw"
_MOST_PAIRS = 6


@dataclass(frozen=True)
class _Positions:
    """Of one run: (N) guarded and plain k*, (N) log held-out loss or None."""

    guarded: np.ndarray
    plain: np.ndarray
    loss: Array | None


@dataclass(frozen=True)
class _Nulls:
    """Of one run, null to (draws, 2) shares of guarded k* at 1 and 2, and to (draws) most frequent plain k*."""

    shares: dict[str, Array]
    plain: dict[str, np.ndarray]


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    pairs = _pairs(runs)
    kept = each([run for pair in pairs for run in pair], lambda run: _positions(run, context))
    table = {id(run): x for run, x in kept}
    both = [(a, b, table[id(a)], table[id(b)]) for a, b in pairs if id(a) in table and id(b) in table]
    contrasts = [(a, b, x, y, _contrast(*_matched(x, y))) for a, b, x, y in both]
    contrasts = [item for item in contrasts if np.isfinite(item[-1])]
    if len(contrasts) < 2:
        raise DataError(
            "two pairs of Muon and AdamW at least must pass through the same losses, each with two windows there; "
            f"got {len(contrasts)}. Train both for as long, at more seeds."
        )
    values = [value for *_, value in contrasts]
    interval = cluster_bootstrap(np.mean, values, n_boot=N_BOOT, rng=context.rng(211), interval="t")
    at_loss = sum(len(z) for _, _, x, y, _ in contrasts for z in _matched(x, y))
    whole = float(np.mean([_contrast(x.guarded, y.guarded) for _, _, x, y, _ in contrasts]))
    nulls = [(_nulls(a, context), _nulls(b, context)) for a, b, *_ in contrasts]
    pooled: dict[str, Array] = {}
    for kind in NULLS:
        draws = [_less(x.shares[kind], y.shares[kind]) for x, y in nulls if kind in x.shares and kind in y.shares]
        if draws:
            pooled[str(kind)] = mean_draws(draws)
    p_values = {kind: null_p(whole, draws) for kind, draws in pooled.items()}
    closest = max(p_values, key=lambda kind: p_values[kind]) if p_values else ""
    p = p_values.get(closest, float("nan"))
    rate = max((float(np.mean(d > np.quantile(d, 0.95))) for d in pooled.values()), default=float("nan"))
    blocks = sum(len(x.guarded) + len(y.guarded) for _, _, x, y, _ in contrasts) / (2.0 * context.window)
    typical = {f"difference in {kind}": float(np.median(d)) for kind, d in pooled.items()}
    outcome = word(interval, null_rate=rate, p=p, blocks=blocks)
    shares = {
        name: float(np.mean([np.mean(x.guarded == k) for x in group]))
        for name, group, k in (
            ("k* = 1 under Muon", [x for _, _, x, _, _ in contrasts], 1),
            ("k* = 1 under AdamW", [y for _, _, _, y, _ in contrasts], 1),
            ("k* = 2 under AdamW", [y for _, _, _, y, _ in contrasts], 2),
        )
    }
    modes = [(most_frequent(x.plain), most_frequent(y.plain)) for _, _, x, y, _ in contrasts]
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"guarded k* is 1 in {100 * shares['k* = 1 under Muon']:.0f} % of Muon's windows and in "
        f"{100 * shares['k* = 1 under AdamW']:.0f} % of AdamW's, 2 in {100 * shares['k* = 2 under AdamW']:.0f} % of "
        f"the latter; at matched loss the smaller of both shifts is {float(interval.value):.2f} ({len(values)} "
        f"pairs), and noise of each run's own norms and drift gives "
        f"{typical.get(f'difference in {closest}', float('nan')):.2f} ({closest or 'none'}, p {p:.2g}).",
        statistic="smaller of P(k*=1) Muon less AdamW and P(k*=2) AdamW less Muon, guarded, at matched held-out loss",
        value=float(interval.value),
        interval=ends(interval),
        interval_method=f"bootstrap over {len(values)} pairs, Student's t",
        n={"pairs": len(values), "blocks": blocks, "windows at matched loss": float(at_loss)},
        null=closest,
        null_pass_rate=rate,
        p=p,
        baselines={**typical, "the same without matching": whole},
        author=author_says(
            [m == (1, 2) for m in modes],
            [float(a - b) for a, b in modes],
            _author_null(nulls),
        ),
        raw=[
            {"muon": a.name, "adamw": b.name, "k_muon": m[0], "k_adamw": m[1], "contrast": value}
            for (a, b, _, _, value), m in zip(contrasts, modes)
        ],
    )


def _pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Muon and AdamW of one experiment, by seed where both have it, else in order."""
    pairs: list[tuple[Run, Run]] = []
    kinds = {kind: [r for r in runs if r.optimizer == kind and r.arm != "placebo"] for kind in (MUON, ADAMW)}
    for name in sorted({run.experiment for run in kinds[MUON]}):
        left = [run for run in kinds[ADAMW] if run.experiment == name]
        for a in [run for run in kinds[MUON] if run.experiment == name]:
            like = sorted(left, key=lambda b: (b.seed != a.seed, b.arm != a.arm))
            if like:
                pairs.append((a, like[0]))
                left.remove(like[0])
    if len(pairs) < 2:
        raise DataError(
            "runs of one experiment under Muon and under AdamW must be there, two of each at least; got "
            f"{len(kinds[MUON])} and {len(kinds[ADAMW])}, {len(pairs)} pairs. Train both at the same seeds."
        )
    return pairs[:_MOST_PAIRS]


def _positions(run: Run, context: Context) -> _Positions:
    spectra, at = context.spectra(run), context.whole(run)
    if len(at) < 2:
        raise DataError(
            f"a position of the gap takes two whole windows; {run.name} has {len(at)}. Record more often."
        )
    sigma, floor = spectra.singular_values[at], spectra.floor[at]
    try:
        loss = held_out_loss(run, spectra.steps[at].astype(np.float64))
    except DataError:
        loss = None
    guarded, plain = gap_position(sigma, rule="guarded", floor=floor), gap_position(sigma, rule="plain", floor=floor)
    return _Positions(guarded, plain, loss)


def _nulls(run: Run, context: Context) -> _Nulls:
    shares, most = {}, {}
    for kind in NULLS:
        try:
            drawn = context.null_singular_values(run, kind)
        except DataError:
            continue
        k = gap_position(drawn, rule="guarded")
        shares[str(kind)] = np.stack([np.mean(k == 1, axis=1), np.mean(k == 2, axis=1)], axis=1)
        plain = gap_position(drawn, rule="plain")
        most[str(kind)] = np.array([most_frequent(x) for x in plain])
    return _Nulls(shares, most)


def _matched(x: _Positions, y: _Positions) -> tuple[np.ndarray, np.ndarray]:
    """Positions at losses that both runs pass through; all where one logged none."""
    if x.loss is None or y.loss is None:
        return x.guarded, y.guarded
    if not np.isfinite(x.loss).any() or not np.isfinite(y.loss).any():
        return x.guarded, y.guarded
    low = max(float(np.nanmin(x.loss)), float(np.nanmin(y.loss)))
    high = min(float(np.nanmax(x.loss)), float(np.nanmax(y.loss)))
    first, second = x.guarded[(x.loss >= low) & (x.loss <= high)], y.guarded[(y.loss >= low) & (y.loss <= high)]
    return first, second


def _contrast(muon: np.ndarray, adamw: np.ndarray) -> float:
    if len(muon) < 2 or len(adamw) < 2:
        return float("nan")
    at_1 = float(np.mean(muon == 1) - np.mean(adamw == 1))
    at_2 = float(np.mean(adamw == 2) - np.mean(muon == 2))
    return min(at_1, at_2)


def _less(muon: Array, adamw: Array) -> Array:
    n = min(len(muon), len(adamw))
    return np.minimum(muon[:n, 0] - adamw[:n, 0], adamw[:n, 1] - muon[:n, 1])


def _author_null(pairs: Sequence[tuple[_Nulls, _Nulls]]) -> float:
    """Largest share of null histories whose most frequent plain k* are 1 and 2."""
    rates = []
    for kind in NULLS:
        both = [(x.plain[kind], y.plain[kind]) for x, y in pairs if kind in x.plain and kind in y.plain]
        if both:
            rates.append(float(np.mean([np.mean(a == 1) * np.mean(b == 2) for a, b in both])))
    return max(rates, default=float("nan"))


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C12",
        "The position of the gap depends on the optimizer: k* = 1 under Muon, k* = 2 under AdamW.",
        "arXiv:2603.28964v1-v3 (abstract)",
        "runs of one experiment under Muon and under AdamW, at two seeds and more",
        "for seed in 42 137 2024; do for opt in muon adamw; do spectraledge run lm/small --seed $seed --set "
        "optimizer=$opt; done; done",
        "most frequent argmax of sigma_j / sigma_j+1: 1 under Muon and 2 under AdamW (no code was published)",
        "1 (Muon), 2 (AdamW) on the same model at comparable validation loss; confirmed",
        _judge,
    ),
)
