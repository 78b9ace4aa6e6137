"""Forward-chained predictions and their errors relative to persistence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.bootstrap import block_bootstrap
from spectraledge.theory.predictors import Predictor
from spectraledge.theory.window_series import WindowSeries, check_horizon

Array = NDArray[np.float64]


def forward_chain(
    predictors: Sequence[Predictor],
    windows: WindowSeries,
    horizon: int,
    *,
    start: int,
    refit_every: int | None = None,
) -> dict[str, Array]:
    """Predictions at every window from ``start`` on, each fitted to the windows before it only.

    Args:
        predictors: With unique names.
        windows: The record.
        horizon: H >= 1 [snapshots].
        start: First window predicted from; the windows up to it are the first history.
        refit_every: Windows between fits; None takes W.

    Returns:
        name -> (N, W) singular values at n + H [parameter], NaN before ``start``. Source: standard procedure.

    Raises:
        SettingError: For names that repeat, a horizon below 1, or a start outside the record.
    """
    check_horizon(horizon)
    every = windows.window if refit_every is None else refit_every
    names = [p.name for p in predictors]
    if len(set(names)) < len(names):
        raise SettingError(
            f"Predictors must have unique names; got {', '.join(names)}. Set name= on the repeated one."
        )
    if not 1 <= start < len(windows) or every < 1:
        raise SettingError(
            f"start must lie in 1..{len(windows) - 1} and refit_every be at least 1; got {start} and {every}. "
            "Keep the first third of the record as history."
        )
    out = {}
    for predictor in predictors:
        values = np.full(windows.singular_values.shape, np.nan)
        for n in range(start, len(windows), every):
            fitted = predictor.fit(windows.head(n + 1), horizon)
            values[n : n + every] = fitted.predict(windows, horizon)[n : n + every]
            if fitted is predictor:  # nothing to learn: one call serves all windows
                values[n:] = fitted.predict(windows, horizon)[n:]
                break
        out[predictor.name] = values
    return out


@dataclass(frozen=True)
class PredictorScore:
    """Out-of-sample error of one predictor.

    Attributes:
        name: Of the predictor.
        n: Windows compared, the same for all predictors.
        mse_ratio: Mean square error over that of the reference; below 1 is better.
        low: Lower end of its interval.
        high: Upper end.
        skill: R^2 of the predicted change: 1 - MSE / variance of the realised change from the reference.
        n_blocks: Blocks that the interval rests on; with fewer than ten it is too short.
    """

    name: str
    n: int
    mse_ratio: float
    low: float
    high: float
    skill: float
    n_blocks: float


def compare_predictors(
    truth: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    *,
    reference: str = "persistence",
    block: int,
    n_boot: int = 2000,
    rng: np.random.Generator,
    level: float = 0.95,
) -> dict[str, PredictorScore]:
    """Mean square errors of predictions of one series, relative to a reference, with block-bootstrap intervals.

    Numerator and denominator are resampled together, from blocks of windows: errors of overlapping windows
    repeat each other for W + H snapshots.

    Args:
        truth: (N) realised values, see :func:`spectraledge.theory.window_series.quantity`.
        predictions: name -> (N); windows where any is NaN are left out for all.
        reference: Name of the prediction to compare with; its own ratio is 1.
        block: Length of a block; at least 2 W.
        n_boot: Number of resamples.
        rng: Source of randomness.
        level: Confidence level.

    Returns:
        name -> score. Source: standard result.

    Raises:
        SettingError: If the reference is missing, lengths differ, or fewer windows than two blocks are left.
    """
    actual = np.asarray(truth, dtype=np.float64)
    series = {name: np.asarray(values, dtype=np.float64) for name, values in predictions.items()}
    if reference not in series:
        raise SettingError(f"predictions must hold the reference {reference!r}; got {', '.join(series)}. Add it.")
    wrong = [name for name, values in series.items() if values.shape != actual.shape]
    if actual.ndim != 1 or wrong:
        raise SettingError(
            f"truth and predictions must be (N) each; got {actual.shape}, differing: {', '.join(wrong) or 'none'}. "
            "Take one quantity out of the singular values first."
        )
    known = np.isfinite(actual) & np.all([np.isfinite(values) for values in series.values()], axis=0)
    n = int(known.sum())
    if n < 2 * block:
        raise SettingError(
            f"At least 2 blocks of {block} windows must have all predictions; got {n} windows. "
            "Leave out predictors that cover few windows, or record more often."
        )
    actual = actual[known]
    base = series[reference][known]
    base_error = np.square(actual - base)
    change = actual - base
    out = {}
    for name, values in series.items():
        error = np.square(actual - values[known])
        with np.errstate(divide="ignore", invalid="ignore"):
            interval = block_bootstrap(
                lambda e, b: e.mean(axis=-1) / b.mean(axis=-1),
                error,
                base_error,
                block=block,
                n_boot=n_boot,
                rng=rng,
                level=level,
                vectorized=True,
            )
            skill = 1.0 - error.mean() / np.square(change - change.mean()).mean()
        ends = (float(interval.value), float(interval.low), float(interval.high))
        out[name] = PredictorScore(name, n, *ends, float(skill), interval.n_units)
    return out
