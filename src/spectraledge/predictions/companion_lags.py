"""C2: the lag between gap and loss turns its sign as the window grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.verdict import LEVEL
from ..errors import DataError
from ..theory.lagged_correlation import polynomial_residual
from ..theory.permutation import lagged_correlations
from ..theory.phase_surrogates import phase_randomised
from .context import Array, Context
from .counted import counted, held_out_loss, smallest_rate
from .phases import plain_ratio
from .pooled import author_says, each, some
from .position import log_guarded_ratio
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

LAGS = tuple(range(-5, 6))
DEGREE = 3  # arXiv:2603.15678 subtracts a cubic

_FEWEST = 4  # windows' worth of the wider windows


@dataclass(frozen=True)
class _Scans:
    """Of one run, at W and 2 W: lags picked, and whether the best correlation beats surrogates of the loss."""

    lags: tuple[int, int]
    p: tuple[float, float]
    flips: bool
    null_flips: Array
    author_lags: tuple[int, int]
    author_null: Array
    trace_flips: bool


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each(some(runs), lambda run: _scans(run, context))
    window, n = context.window, len(found)
    k = sum(x.flips for _, x in found)
    rate = float(np.mean([x.null_flips.mean() for _, x in found]))
    author_rate = float(np.mean([x.author_null.mean() for _, x in found]))
    rivals = sum(x.trace_flips for _, x in found)
    outcome, interval, p = counted(k, n, smallest_rate(rate, context.draws), beaten=k > rivals)
    moved = float(np.mean([x.lags[1] - x.lags[0] for _, x in found]))
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"the gap follows the loss at W = {window} and leads it at W = {2 * window}, both beyond chance, in {k} of "
        f"{n} "
        f"runs (tr G: {rivals}); the lag moves by {moved:+.1f} rows, {-0.5 * window:+.1f} being what the later "
        "middle "
        "of a longer window makes.",
        statistic=f"share of runs whose lag turns from below 0 at W = {window} to above 0 at W = {2 * window}, each "
        "scan significant for all of its lags",
        value=k / n,
        interval=interval,
        interval_method=f"Clopper-Pearson over {n} runs",
        n={"runs": n},
        null="phases of the loss drawn anew",
        null_pass_rate=rate,
        p=p,
        baselines={"tr G": rivals / n, "rows that the lag moves": moved, "rows by geometry alone": -0.5 * window},
        author=author_says(
            [x.author_lags[0] < 0 < x.author_lags[1] for _, x in found],
            [float(x.author_lags[1] - x.author_lags[0]) for _, x in found],
            author_rate,
        ),
        raw=[
            {
                "run": run.name,
                "lag_W": x.lags[0],
                "lag_2W": x.lags[1],
                "p_W": x.p[0],
                "p_2W": x.p[1],
                "author_lag_W": x.author_lags[0],
                "author_lag_2W": x.author_lags[1],
            }
            for run, x in found
        ],
    )


def _scans(run: Run, context: Context) -> _Scans:
    window, stride = context.window, context.stride
    if 2 * window * stride > run.recording.lags + 1:
        raise DataError(
            f"windows of {2 * window} rows need {2 * window * stride - 1} lags; {run.name} has {run.recording.lags}. "
            "Record more lags, or judge a shorter window."
        )
    narrow = context.spectra(run)
    wide = context.kept(
        ("spectra", id(run), 2 * window), lambda: run.recording.spectra(2 * window, stride, context.block)
    )
    steps, at, to = np.intersect1d(narrow.steps, wide.steps, return_indices=True)
    loss = held_out_loss(run, steps.astype(np.float64))
    ours, theirs, energies = [], [], []
    for spectra, index in ((narrow, at), (wide, to)):
        sigma = spectra.singular_values[index]
        ours.append(log_guarded_ratio(sigma))
        theirs.append(plain_ratio(sigma, spectra.floor[index]))
        with np.errstate(divide="ignore"):
            energies.append(np.log(spectra.trace[index]))
    table = np.stack([loss, *ours, *theirs, *energies])
    table = table[:, np.isfinite(table).all(axis=0)]
    if table.shape[1] < _FEWEST * 2 * window or np.any(np.ptp(table[:5], axis=1) == 0.0):
        raise DataError(
            f"a lag at W = {2 * window} takes {_FEWEST * 2 * window} windows with a loss that changes; {run.name} "
            "has "
            f"{table.shape[1]}. Record a longer run."
        )
    table = polynomial_residual(table, DEGREE)
    draws = phase_randomised(table[0], context.draws, context.rng(111))
    scans = [_correlations(x, np.concatenate([table[:1], draws])) for x in table[1:]]
    constant = not np.isfinite(scans[4:]).all()  # energies that never change follow nothing
    flips, lags, p = _flips(scans[0], scans[1])
    author = [np.asarray(LAGS)[np.argmin(r, axis=1)] for r in scans[2:4]]
    return _Scans(
        lags=(int(lags[0][0]), int(lags[1][0])),
        p=p,
        flips=bool(flips[0]),
        null_flips=flips[1:].astype(np.float64),
        author_lags=(int(author[0][0]), int(author[1][0])),
        author_null=((author[0][1:] < 0) & (author[1][1:] > 0)).astype(np.float64),
        trace_flips=not constant and bool(_flips(scans[4], scans[5])[0][0]),
    )


def _correlations(x: Array, losses: Array) -> Array:
    """(D, K) correlations at all lags of x with the loss and its surrogates."""
    return np.stack([lagged_correlations(x, y, LAGS) for y in losses])


def _flips(short: Array, long: Array):  # type: ignore[no-untyped-def]
    """Of the loss (first row) and every surrogate: whether the lag turns, the lags, and p of the first row."""
    lags = [np.asarray(LAGS)[np.argmax(np.abs(r), axis=1)] for r in (short, long)]
    peaks = [np.abs(r).max(axis=1) for r in (short, long)]
    beyond = [peak > np.quantile(peak[1:], 1.0 - LEVEL) for peak in peaks]
    p = tuple(float((1.0 + np.sum(peak[1:] >= peak[0])) / len(peak)) for peak in peaks)
    return beyond[0] & beyond[1] & (lags[0] < 0) & (lags[1] > 0), lags, p


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C2",
        "The lag between gap and validation loss turns its sign with the window: the gap follows the loss in windows "
        "of W = 10 and leads it in windows of W = 20.",
        "arXiv:2603.15678 (section 3.5), cited by arXiv:2603.28964",
        "runs with a loss on held-out data, 2 W - 1 lags and eight windows' worth of rows",
        "spectraledge run modular/add --seed 42",
        "lag of the most negative correlation, both series without a cubic, below 0 at W and above 0 at 2 W",
        "lag -1 at W = 10, +1 at W = 20 (one seed); confirmed",
        _judge,
    ),
)
