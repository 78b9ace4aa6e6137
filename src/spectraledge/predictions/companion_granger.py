"""C7: the gap forecasts the loss, in the sense of Granger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.timeline import metric_at
from ..dynamics.verdict import FEWEST_BLOCKS, LEVEL
from ..errors import DataError, SettingError
from ..theory.bootstrap import BootstrapInterval
from ..theory.granger import granger
from ..theory.lagged_correlation import polynomial_residual
from ..theory.phase_surrogates import phase_randomised
from ..theory.spectrum import effective_rank
from .context import Array, Context
from .counted import held_out_loss
from .phases import plain_ratio
from .pooled import author_says, each, ends, mean_draws, null_p, over_runs, some, word
from .position import log_guarded_ratio
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

SMALL = 0.1  # share of what is left unexplained; 0.895 was published
_FEWEST = 10  # windows that share no row


@dataclass(frozen=True)
class _Gain:
    """Of one run: share of the squared error that each cause explains, above the median of its surrogates."""

    excess: dict[str, float]
    null: Array
    p_law: float
    author_p: float
    author_gain: float
    author_null: float
    rows: int


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs), lambda run: _gain(run, context))
    gains = [x.excess["gap"] for _, x in found]

    def alone() -> BootstrapInterval:
        # Of a single run the surrogates are the only measure of scatter.
        x = found[0][1]
        reach = float(np.quantile(np.abs(x.null), 1.0 - LEVEL))
        value = np.array(gains[0])
        return BootstrapInterval(value, value - reach, value + reach, 0.95, float(x.rows))

    interval, method = over_runs(gains, alone, context.rng(171))
    if len(gains) < 2:
        method = "scatter of the surrogates of one run"
    null = mean_draws([x.null for _, x in found])
    p = null_p(float(np.mean(gains)), null)
    rate = float(np.mean(null > np.quantile(null, 1.0 - LEVEL)))
    names = sorted({name for _, x in found for name in x.excess if name != "gap"})
    rivals = {name: float(np.mean([x.excess[name] for _, x in found if name in x.excess])) for name in names}
    value, rows = float(interval.value), float(sum(x.rows for _, x in found))
    outcome = word(interval, null_rate=rate, p=p, beaten=all(value > r for r in rivals.values()), blocks=rows)
    if outcome in ("not identifiable", "compatible") and float(interval.high) < SMALL and rows >= FEWEST_BLOCKS:
        outcome = "contradicted"
    best = max(rivals, key=lambda name: rivals[name]) if rivals else "none"
    rejected = sum(x.p_law <= LEVEL for _, x in found)
    return Verdict(
        "",
        "",
        "",
        outcome,
        "of what the loss's own past leaves unexplained, gap and k_95 of the window before explain "
        f"{100 * value:.0f} % more "
        f"than their surrogates (interval {100 * float(interval.low):.0f} to {100 * float(interval.high):.0f} %, "
        "89.5 % "
        f"published; F rejects in {rejected} of {len(found)} runs), and {best} "
        f"{100 * rivals.get(best, float('nan')):.0f} %.",
        statistic="share of the squared error of an autoregression of the log loss explained by the window before, "
        "above "
        "surrogates",
        value=value,
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found), "windows without a common row": rows},
        null="phases of gap and k_95 drawn anew",
        null_pass_rate=rate,
        p=p,
        baselines=rivals,
        author=author_says(
            [x.author_p <= LEVEL for _, x in found],
            [x.author_gain for _, x in found],
            float(np.mean([x.author_null for _, x in found])),
        ),
        raw=[
            {"run": run.name, "author_p": x.author_p, "author_gain": x.author_gain, "p": x.p_law, **x.excess}
            for run, x in found
        ],
    )


def _gain(run: Run, context: Context) -> _Gain:
    window = context.window
    spectra, at = context.spectra(run), context.whole(run)
    steps = spectra.steps[at].astype(np.float64)
    sigma, floor = spectra.singular_values[at], spectra.floor[at]
    loss = held_out_loss(run, steps)
    rank = effective_rank(sigma, 0.95).astype(np.float64)
    gap = np.stack([log_guarded_ratio(np.where(sigma > floor[:, None], sigma, np.nan)), rank], axis=1)
    published = np.stack([plain_ratio(sigma, floor), rank], axis=1)
    lr = metric_at(run.recording, "lr", steps, how="last")
    known = np.isfinite(loss) & np.isfinite(gap).all(axis=1) & np.isfinite(published).all(axis=1)
    if known.sum() < _FEWEST * window or np.ptp(loss[known]) == 0.0:
        raise DataError(
            f"a forecast of the loss takes {_FEWEST} windows that share no row, and a loss that changes; {run.name} "
            "has "
            f"{int(known.sum()) / window:.1f}. Record a longer run, or more often."
        )
    controls = None
    if np.isfinite(lr[known]).all() and np.ptp(lr[known]) > 0.01 * np.abs(lr[known]).max():
        controls = lr[known][:, None]
    y, rng = loss[known], context.rng(172)
    energy = np.log(np.maximum(spectra.trace[at], 1e-300))
    ends_ = np.minimum(np.searchsorted(run.recording.steps, steps), run.recording.n_updates - 1)
    theta = np.log(np.maximum(run.recording.theta_norm2[ends_, 0], 1e-300))
    causes = {"gap": gap, "tr G": energy[:, None], "norm of parameters": theta[:, None]}
    for name in ("train_loss", "grad_norm"):
        x = metric_at(run.recording, name, steps)
        causes[name] = np.where(x > 0.0, np.log(np.where(x > 0.0, x, 1.0)), np.nan)[:, None]
    excess, null, p_law, rows = {}, np.empty(0), float("nan"), 0
    for name, x in causes.items():
        if not np.isfinite(x[known]).all() or np.any(np.ptp(x[known], axis=0) == 0.0):
            # k_95 that never changes says nothing: the gap alone is the cause then.
            x = x[:, :1]
            if not np.isfinite(x[known]).all() or np.ptp(x[known]) == 0.0:
                continue
        own, drawn, p, n = _explained(y, x[known], controls, context, rng)
        excess[name] = own - float(np.median(drawn))
        if name == "gap":
            null, p_law, rows = drawn - float(np.median(drawn)), p, n
    back = _explained(gap[known][:, 0], y[:, None], controls, context, rng)
    excess["loss on the gap (reverse)"] = back[0] - float(np.median(back[1]))
    if "gap" not in excess:
        raise DataError(f"a forecast needs a gap that changes; that of {run.name} does not. Record another stretch.")
    return _Gain(excess, null, p_law, *_author(y, published[known], controls, window, context, rng), rows)


def _explained(
    y: Array, x: Array, controls: Array | None, context: Context, rng: np.random.Generator
) -> tuple[float, Array, float, int]:
    """Share explained by the window before, the same for (draws) surrogates of the cause, F's p, and rows."""
    window = context.window
    flat = _level(x)
    draws = phase_randomised(flat, context.draws, rng)
    stack = np.concatenate([flat[None], draws])
    many = None if controls is None else np.broadcast_to(controls, (len(stack), *controls.shape))
    try:
        found = granger(
            np.broadcast_to(_level(y[:, None])[:, 0], (len(stack), len(y))),
            stack,
            window=window,
            orders=(1,),
            controls=many,
        )
    except SettingError as error:
        raise DataError(str(error)) from error
    gain = np.nan_to_num(found.gain, nan=0.0)
    return float(gain[0]), gain[1:], float(found.p_value[0]), int(found.n.flat[0])


def _author(
    y: Array, x: Array, controls: Array | None, window: int, context: Context, rng: np.random.Generator
) -> tuple[float, float, float]:
    """P of the published form, share explained, and how often surrogates pass it."""
    varied = np.ptp(x, axis=0) > 0.0
    if not varied.any():
        return float("nan"), float("nan"), float("nan")
    stack = np.concatenate([x[None], phase_randomised(x, context.draws, rng)])[..., varied]
    many = None if controls is None else np.broadcast_to(controls, (len(stack), *controls.shape))
    found = granger(np.broadcast_to(y, (len(stack), len(y))), stack, window=window, mode="author", controls=many)
    return float(found.p_value[0]), float(found.gain[0]), float(np.mean(found.p_value[1:] <= LEVEL))


def _level(x: Array) -> Array:
    """(N, d) without a line in time: ends that differ are noise to random phases."""
    return polynomial_residual(x.T, 1).T


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C7",
        "The gap forecasts the loss: edge strength and k_95 Granger-cause it.",
        "arXiv:2603.15678 (section 4.6), cited by arXiv:2603.28964",
        "runs of ten windows' worth of windows with a loss on held-out data",
        "spectraledge run modular/add --seed 42",
        "F test on neighbouring windows, lags 1 to 2 by AIC, learning rate held: p at most 0.05",
        "edge strength and k_95 explain 89.5 %; confirmed",
        _judge,
    ),
)
