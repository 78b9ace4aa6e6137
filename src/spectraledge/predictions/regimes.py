"""AR: the adiabatic parameter A tells plateaus (A << 1), transitions (A ~ 1) and forgetting (A >> 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..detect.grok import capability_series
from ..dynamics.foresight import Foresight, foresight
from ..dynamics.timeline import OUTCOMES, row_rates
from ..dynamics.verdict import FEWEST_BLOCKS, LEVEL
from ..dynamics.windows import grams_ending_at
from ..errors import DataError
from ..theory.adiabatic import adiabatic
from ..theory.bootstrap import BootstrapInterval
from ..theory.phase_surrogates import phase_randomised
from ..theory.regimes import AUTHOR_CUTS
from .context import Array, Context
from .pooled import author_says, each, ends, mean_draws, null_p, over_runs, some, word
from .position import log_guarded_ratio
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

SMALL = 0.1
"""Share of the forecast's error that A must explain to be more than a footnote."""

_MOST_RUNS, _DRAWS, _N_BOOT = 8, 19, 19
_LOW, _HIGH = 0.1, 0.9  # accuracy between which a run is in transition


@dataclass(frozen=True)
class _Gain:
    """Of one run.

    Attributes:
        excess: Signal to the share of error that it explains beyond norms, rates and the past, less the median of
            phase surrogates of A.
        null: (draws) the same of the surrogates.
        blocks: Of two windows, in the test.
        lag: Rows between the two windows of A.
    """

    excess: dict[str, float]
    null: Array
    blocks: float
    lag: int


@dataclass(frozen=True)
class _Published:
    """Of one run that groks.

    Attributes:
        transition, plateau: Median A_abs while the accuracy rises from 0.1 to 0.9, and before.
        passes: Whether they lie between the cuts and below them.
        null: Share of circular shifts of the accuracy that pass.
    """

    transition: float
    plateau: float
    passes: bool
    null: float


@dataclass(frozen=True)
class _Windows:
    """Pairs of windows: last rows, Grams that hold both, steps, learning rates, and rows between the two."""

    rows: np.ndarray
    blocks: Array
    steps: Array
    lr: Array
    lag: int


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs, _MOST_RUNS), lambda run: _gain(run, context))
    gains = [x.excess["A"] for _, x in found]

    def alone() -> BootstrapInterval:
        # Of a single run the surrogates are the only measure of scatter.
        x = found[0][1]
        reach = float(np.quantile(np.abs(x.null), 1.0 - LEVEL))
        value = np.array(gains[0])
        return BootstrapInterval(value, value - reach, value + reach, 0.95, x.blocks)

    interval, method = over_runs(gains, alone, context.rng(271))
    if len(gains) < 2:
        method = "scatter of the surrogates of one run"
    null = mean_draws([x.null for _, x in found])
    p = null_p(float(np.mean(gains)), null)
    rate = float(np.mean(null > np.quantile(null, 1.0 - LEVEL)))
    names = sorted({name for _, x in found for name in x.excess if name != "A"})
    rivals = {name: float(np.mean([x.excess[name] for _, x in found if name in x.excess])) for name in names}
    value, blocks = float(interval.value), float(sum(x.blocks for _, x in found))
    outcome = word(interval, null_rate=rate, p=p, beaten=all(value > r for r in rivals.values()), blocks=blocks)
    if outcome in ("not identifiable", "compatible") and float(interval.high) < SMALL and blocks >= FEWEST_BLOCKS:
        outcome = "contradicted"
    best = max(rivals, key=lambda name: rivals[name]) if rivals else "none"
    try:
        published = [x for _, x in each(runs, lambda run: _published(run, context))]
    except DataError:
        published = []  # no run that groks
    low, high = AUTHOR_CUTS
    author = author_says(
        [x.passes for x in published],
        [x.transition for x in published],
        float(np.mean([x.null for x in published])) if published else float("nan"),
    )
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"of what step norm, rates and the past leave open of the change of held-out performance over the next "
        f"window, A explains {100 * value:.0f} % more than its surrogates ({100 * float(interval.low):.0f} to "
        f"{100 * float(interval.high):.0f} %, p {p:.2g}) and {best} {100 * rivals.get(best, float('nan')):.0f} %; by "
        f"cuts at {low:g} and {high:g}, which have the unit of 1 / lr and are ours, plateau and transition are told "
        f"in {author.passed} of {author.n} runs, and forgetting takes a second task.",
        statistic="share of the forecast error of |change of performance| that A explains, above surrogates",
        value=value,
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found), "blocks": blocks},
        null="phases of log A drawn anew",
        null_pass_rate=rate,
        p=p,
        baselines=rivals,
        author=author,
        raw=[
            {
                "run": run.name,
                "arm": run.arm,
                "lag": x.lag,
                **x.excess,
            }
            for run, x in found
        ],
    )


def _gain(run: Run, context: Context) -> _Gain:
    recording, window = run.recording, context.window
    name = next((x for x in OUTCOMES if len(recording.metrics.get(x, ((),))[0]) >= 4), None)
    if name is None:
        raise DataError(
            f"held-out accuracy or loss must be logged at four steps or more; {run.name} does not. Log test_accuracy "
            "or test_loss with monitor.log."
        )
    pairs = _windows(run, context)
    rows, steps = pairs.rows, pairs.steps
    a = adiabatic(pairs.blocks, window).relative["operator"]
    spectra = context.spectra(run)
    at = rows - (window - 1)
    sigma = spectra.singular_values[at]
    norms = np.sqrt(np.maximum(recording.band(context.block, stride=context.stride)[rows, 0], 0.0))

    def gain(series: Array) -> Foresight:
        found = foresight(
            recording,
            name,
            series,
            steps=steps,
            norms=norms,
            lr=pairs.lr,
            window=window,
            n_boot=_N_BOOT,
            seed=context.seed,
        )
        if found.beyond_past is None:
            raise DataError(f"{run.name} cannot tell whether A foretells: {found.reason}. Record a longer run.")
        return found

    own = gain(a)
    assert own.beyond_past is not None
    known = np.isfinite(a) & (a > 0.0)
    log_a = np.interp(rows, rows[known], np.log(a[known]))
    drawn = phase_randomised(log_a[:, None], min(_DRAWS, max(context.draws, 19)), context.rng(272))[..., 0]
    null = np.array([_value(gain(np.exp(x))) for x in drawn])
    typical = float(np.median(null))
    others = {
        "log R": np.exp(np.nan_to_num(log_guarded_ratio(sigma))),
        "tr G": spectra.trace[at],
        "sigma_1": sigma[:, 0],
    }
    excess = {"A": _value(own) - typical}
    for other, series in others.items():
        try:
            excess[other] = _value(gain(series)) - typical
        except DataError:
            continue
    return _Gain(excess, null - typical, float(own.beyond_past.difference.n_units), pairs.lag)


def _windows(run: Run, context: Context) -> _Windows:
    """Windows that share no row where the lags reach that far: neighbouring ones make A small whatever happens."""
    window, band = context.window, run.recording.band(context.block, stride=context.stride)
    lag = window if 2 * window <= band.shape[1] else 1
    rows = np.arange(window + lag - 1, len(band))
    if window + lag > band.shape[1] or len(rows) < 3 * window:
        raise DataError(
            f"A takes {window + lag} rows within the lags and {4 * window + lag} rows in all; {run.name} has "
            f"{band.shape[1]} and {len(band)}. Record more lags or a longer run."
        )
    lr_sum, row_steps = row_rates(run.recording, context.stride)
    with np.errstate(divide="ignore", invalid="ignore"):
        lr = lr_sum[rows] / row_steps[rows]
    steps = context.spectra(run).steps[rows - (window - 1)].astype(np.float64)
    return _Windows(rows, grams_ending_at(band, window + lag, rows), steps, lr, lag)


def _value(found: Foresight) -> float:
    """Share of the squared error that the added series explains; less than 0 where it makes forecasts worse."""
    gain = 0.0 if found.beyond_past is None else float(np.nan_to_num(found.beyond_past.gain))
    # Of the larger error, so that a model that is worse by any factor is worse by 1 at most.
    return gain if gain >= 0.0 else gain / (1.0 - gain)


def _published(run: Run, context: Context) -> _Published:
    """Median A_abs in transition and before, whether they fit the cuts, and how often shifted accuracies do."""
    if run.arm == "placebo" or run.grok_step is None:
        raise DataError(f"a transition takes a run that groks; {run.name} does not. Train for longer.")
    pairs, window = _windows(run, context), context.window
    reading = adiabatic(pairs.blocks, window, rule="plain").relative["dlam"]
    a = reading / np.where(pairs.lr > 0.0, pairs.lr, np.nan)
    y = np.interp(pairs.steps, *capability_series(run.recording.metrics))
    phase = np.where(y < _LOW, 0, np.where(y <= _HIGH, 1, 2))
    if not np.isfinite(a[phase == 0]).any() or not np.isfinite(a[phase == 1]).any():
        raise DataError(
            f"A must be known before and while the accuracy rises; in {run.name} it is not. Record earlier."
        )
    shifts = np.arange(window, len(a) - window)
    if len(shifts) > 2 * context.draws:
        shifts = context.rng(273).choice(shifts, 2 * context.draws, replace=False)
    passes = [_fits(a, np.roll(phase, shift)) for shift in shifts]
    return _Published(
        float(np.nanmedian(a[phase == 1])),
        float(np.nanmedian(a[phase == 0])),
        _fits(a, phase),
        float(np.mean(passes)) if passes else float("nan"),
    )


def _fits(a: Array, phase: np.ndarray) -> bool:
    low, high = AUTHOR_CUTS
    if not np.isfinite(a[phase == 0]).any() or not np.isfinite(a[phase == 1]).any():
        return False
    return bool(np.nanmedian(a[phase == 0]) < low <= np.nanmedian(a[phase == 1]) <= high)


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "AR",
        "The adiabatic parameter A tells plateau (A << 1), transition (A ~ 1) and forgetting (A >> 1).",
        "arXiv:2603.28964v1-v3 (abstract)",
        "runs of six windows and more with held-out accuracy or loss; lags of 2 W - 1 for windows that share no row",
        "spectraledge run modular/add --seed 42 --lags 19",
        "median A = ||dG|| / (lr g^2) below 0.3 while the accuracy is below 0.1 and between 0.3 and 3 while it rises "
        "to 0.9 (the published cuts are unknown; these are ours)",
        "confirmed, without a number",
        _judge,
    ),
)
