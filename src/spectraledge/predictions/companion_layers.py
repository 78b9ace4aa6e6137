"""C6: the gap does the same in all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..recording.select import select_blocks
from ..theory.bootstrap import BootstrapInterval, block_bootstrap
from ..theory.lagged_correlation import polynomial_residual
from ..theory.permutation import lagged_correlations
from ..theory.phase_surrogates import phase_randomised
from ..theory.surrogates import sample_gram
from ..theory.window_series import moving_grams
from .context import Array, Context
from .counted import held_out_loss
from .phases import plain_ratio
from .pooled import author_says, each, ends, mean_draws, null_p, over_runs, shifted, some, word
from .position import log_guarded_ratio
from .registry_types import Prediction
from .runs import Run
from .verdict import Verdict

CORRELATION = 0.82  # published, with the loss
COMMON = 0.5  # between layers: below it they share less than a quarter of what they do
LAGS, DEGREE = tuple(range(-5, 8)), 3
_MOST_LAYERS, _MOST_RUNS, _MOST_ROWS, _DRAWS, _AUTHOR_DRAWS = 8, 8, 200, 39, 39


@dataclass(frozen=True)
class _Layers:
    """Of one run: (N, L) log R of the unit rows of its layers, without their line in time, and its competitors.

    Rows of unit norm, because norms follow the learning rate and the data in all layers alike: with them, layers of
    independent directions are correlated by 0.56 in runs of modular addition.

    Attributes:
        null: (draws) mean correlation of layers whose rows have directions of their own.
        trace: The mean correlation of their log energies.
        with_loss: Smallest over layers of the largest abs(r) with the loss over lags; NaN without a loss.
        author_null: (draws) the same for surrogates of the loss.
    """

    names: list[str]
    log_ratio: Array
    null: Array
    trace: float
    with_loss: float
    author_null: Array


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    # Most runs of a record are merged to one block: those that tell their layers are found first.
    apart = [run for run, _ in each(runs, layers_of)]
    found = each(some(apart, _MOST_RUNS), lambda run: _layers(run, context))
    means = [float(common(x.log_ratio)) for _, x in found]
    block = 2 * context.window

    def alone() -> BootstrapInterval:
        x = found[0][1].log_ratio
        return block_bootstrap(
            common, x, block=min(block, len(x) // 2), n_boot=499, rng=context.rng(161), vectorized=True
        )

    interval, method = over_runs(means, alone, context.rng(161))
    null = mean_draws([x.null for _, x in found if len(x.null)])
    rate = float(np.mean(null > COMMON)) if len(null) else float("nan")
    p = null_p(float(np.mean(means)), null)
    trace = float(np.mean([x.trace for _, x in found]))
    value = float(interval.value)
    more, _ = over_runs([m - x.trace for m, (_, x) in zip(means, found)], lambda: interval, context.rng(164))
    beaten = value > trace and (len(found) < 2 or float(more.low) > 0.0)
    blocks = float(sum(len(x.log_ratio) / block for _, x in found))
    outcome = word(shifted(interval, COMMON), null_rate=rate, p=p, beaten=beaten, blocks=blocks)
    tied = [x for _, x in found if np.isfinite(x.with_loss)]
    author_rate = float(np.mean([np.mean(x.author_null > CORRELATION) for x in tied])) if tied else float("nan")
    chance = float(np.median(null)) if len(null) else float("nan")
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"log R of two layers is correlated by {value:.2f} on average, that of layers with directions of "
        f"their own by {chance:.2f} (p {p:.2g}), and their energies, which share the learning rate and the data, by "
        f"{trace:.2f}.",
        statistic="mean correlation between layers of log R (guarded k*, rows of unit norm), each without its line "
        "in time",
        value=value,
        interval=ends(interval),
        interval_method=method,
        n={"runs": len(found), "layers": float(np.mean([len(x.names) for _, x in found])), "blocks": blocks},
        null="random directions, layer by layer",
        null_pass_rate=rate,
        p=p,
        baselines={"tr G": trace, "claimed at least": COMMON},
        author=author_says([x.with_loss > CORRELATION for x in tied], [x.with_loss for x in tied], author_rate),
        raw=[
            {"run": run.name, "layers": x.names, "mean_r": m, "trace": x.trace, "least_r_with_loss": x.with_loss}
            for (run, x), m in zip(found, means)
        ],
    )


def common(series: Array) -> Array:
    """(...) mean correlation between the columns of (..., N, L).

    >>> x = np.arange(4.0)
    >>> float(common(np.stack([x, 2 * x, x**0 + x], axis=1)).round(9))
    1.0
    """
    x = series - series.mean(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = x / np.sqrt(np.square(x).sum(axis=-2, keepdims=True))
    n = x.shape[-1]
    return np.asarray((np.square(x.sum(axis=-1)).sum(axis=-1) - n) / (n * (n - 1.0)))


def layers_of(run: Run) -> dict[str, list[str]]:
    """At most 8 groups of blocks: by layer where that is known, else the largest blocks themselves.

    Raises:
        DataError: If there are fewer than two.
    """
    recording = run.recording
    names = [name for name in recording.blocks if name != "all"]
    groups: dict[str, list[str]] = {}
    for name in names:
        layer = recording.block_info.get(name, {}).get("layer")
        groups.setdefault(f"layer {layer}" if layer is not None else name, []).append(name)
    numbered = {key: blocks for key, blocks in groups.items() if key.startswith("layer ")}
    groups = numbered if len(numbered) >= 2 else groups
    if len(groups) < 2:
        raise DataError(
            f"layers must be recorded apart, two or more; {run.name} has {len(groups)}. Record with blocks=layer."
        )
    energy = recording.products[..., 0]
    size = {
        key: float(np.nansum(energy[:, select_blocks(blocks, recording.blocks)])) for key, blocks in groups.items()
    }
    largest = sorted(groups, key=lambda key: -size[key])[:_MOST_LAYERS]
    return {key: groups[key] for key in groups if key in largest}


def _layers(run: Run, context: Context) -> _Layers:
    groups = layers_of(run)
    ratios, plain, traces, parts = [], [], [], []
    steps = np.empty(0)
    for i, blocks in enumerate(groups.values()):
        # Histories of one layer must not share their draws with those of another.
        part = Context(context.window, context.stride, blocks, _DRAWS, context.seed + 1000 * (i + 1))  # type: ignore[arg-type]
        spectra = part.spectra(run)
        steps = spectra.steps.astype(np.float64)
        sigma = spectra.singular_values
        unit = run.recording.spectra(context.window, context.stride, blocks, "row")
        resolved = unit.singular_values > unit.floor[:, None]
        ratios.append(log_guarded_ratio(np.where(resolved, unit.singular_values, np.nan)))
        with np.errstate(divide="ignore", invalid="ignore"):
            traces.append(np.log(spectra.trace))
        plain.append(plain_ratio(np.nan_to_num(sigma), spectra.floor))
        parts.append(part)
    log_ratio, trace = np.stack(ratios, axis=1), np.stack(traces, axis=1)
    known = np.isfinite(log_ratio).all(axis=1) & np.isfinite(trace).all(axis=1)
    if known.sum() < 4 * context.window:
        raise DataError(
            f"layers are compared over {4 * context.window} windows or more; {run.name} has {int(known.sum())}. "
            "Record "
            "more often."
        )
    null = np.empty(0)
    drawn = [_noise(part, run, int(known.sum())) for part in parts]
    if all(len(x) for x in drawn):
        null = common(_level(np.stack(drawn, axis=-1)))
    with_loss, author_null = _with_loss(run, np.stack(plain, axis=1), known, steps, context)
    return _Layers(
        list(groups), _level(log_ratio[known]), null, float(common(_level(trace[known]))), with_loss, author_null
    )


def _noise(part: Context, run: Run, n: int) -> Array:
    """(draws, n) log R of unit rows in random directions, with the layer's momentum; empty where P_eff is unknown."""
    spectra = part.spectra(run)
    known = spectra.p_eff[np.isfinite(spectra.p_eff)]
    if not len(known):
        return np.empty((0, n))
    n = min(n, _MOST_ROWS)
    rows = n + part.window - 1
    correlation = np.zeros(rows)
    m = min(rows, spectra.row_correlation.shape[1])
    correlation[:m] = spectra.row_correlation[0, :m]
    grams = sample_gram(
        np.ones(rows), float(np.median(known)), row_correlation=correlation, n_draws=_DRAWS, rng=part.rng(163)
    )
    lam = np.linalg.eigvalsh(moving_grams(grams, part.window))[..., ::-1]
    return log_guarded_ratio(np.sqrt(lam.clip(min=0.0)))


def _level(series: Array) -> Array:
    """(..., N, L) without a line in time."""
    return np.moveaxis(polynomial_residual(np.moveaxis(series, -2, -1), 1), -1, -2)


def _with_loss(run: Run, ratio: Array, known: Array, steps: Array, context: Context) -> tuple[float, Array]:
    try:
        loss = held_out_loss(run, steps)
    except DataError:
        return float("nan"), np.empty(0)
    at = known & np.isfinite(loss) & np.isfinite(ratio).all(axis=1)
    if at.sum() < 4 * context.window or np.ptp(loss[at]) == 0.0:
        return float("nan"), np.empty(0)
    y = polynomial_residual(loss[at], DEGREE)
    x = polynomial_residual(ratio[at].T, DEGREE)
    losses = np.concatenate([y[None], phase_randomised(y, _AUTHOR_DRAWS, context.rng(162))])
    peaks = np.array([[np.max(np.abs(lagged_correlations(a, b, LAGS))) for a in x] for b in losses]).min(axis=1)
    return float(peaks[0]), peaks[1:]


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C6",
        "The gap does the same in all layers.",
        "arXiv:2603.15678 (section 4.5), cited by arXiv:2603.28964",
        "runs recorded layer by layer",
        "spectraledge run modular/add --seed 42 --blocks layer",
        "abs(r) above 0.82 of R at the plain k* and the validation loss in every layer, at the best of lags -5 to 7, "
        "both "
        "without a cubic",
        "abs(r) > 0.82 in 8 groups of layers; confirmed",
        _judge,
    ),
)
