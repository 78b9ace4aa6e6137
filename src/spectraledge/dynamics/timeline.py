"""Learning rates and metrics of a recording at the ends of its rows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..recording import Recording
from ..recording.probe import ProbeRecord
from .optimizer import block_rates

OUTCOMES = ("test_accuracy", "val_accuracy", "test_loss", "val_loss")
"""Metrics that say how well a run does on data it was not trained on, in order of preference."""


def rises_with_skill(name: str) -> bool:
    """Whether more of a metric is better.

    >>> rises_with_skill("test_accuracy"), rises_with_skill("test_loss")
    (True, False)
    """
    return "loss" not in name and "error" not in name


def row_rates(recording: Recording, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates and optimizer steps of every row, summed over ``stride`` updates.

    Args:
        recording: T updates; the mean over parameter groups is taken where their rates differ.
        stride: Updates in a row.

    Returns:
        (T // stride) sums of learning rates, NaN where none was recorded, and (T // stride) optimizer steps.
    """
    rates = recording.lr_sum
    total = rates.mean(axis=1) if rates.shape[1] else np.full(recording.n_updates, np.nan)
    n = recording.n_updates // stride
    lr, steps = (
        np.asarray(x, dtype=np.float64)[: n * stride].reshape(n, stride).sum(axis=1)
        for x in (total, recording.n_steps)
    )
    return lr, steps


def metric_at(
    recording: Recording, name: str, steps: np.ndarray, *, how: Literal["linear", "last"] = "linear"
) -> np.ndarray:
    """A logged metric at given steps.

    Args:
        recording: With the metric.
        name: Of the metric.
        steps: (N) optimizer steps.
        how: ``linear`` between evaluations, for outcomes; ``last`` takes the last evaluation at or before each
            step, so that a predictor knows nothing of the future.

    Returns:
        (N); NaN before the first evaluation, beyond the last one, and where the metric was never logged.
    """
    at, values = recording.metrics.get(name, (np.empty(0), np.empty(0)))
    at, values = np.asarray(at, dtype=np.float64), np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    at, values = at[known], values[known]
    order = np.argsort(at, kind="stable")
    at, values = at[order], values[order]
    steps = np.asarray(steps, dtype=np.float64)
    if not len(at):
        return np.full(steps.shape, np.nan)
    if how == "linear":
        found = np.interp(steps, at, values)
        return np.where((steps >= at[0]) & (steps <= at[-1]), found, np.nan)
    index = np.searchsorted(at, steps, side="right") - 1
    return np.where(index >= 0, values[np.maximum(index, 0)], np.nan)


def outcome_names(recording: Recording) -> list[str]:
    """Those of ``OUTCOMES`` that were logged at three steps or more."""
    return [name for name in OUTCOMES if len(recording.metrics.get(name, ((),))[0]) >= 3]


def step_rate(recording: Recording, probe: ProbeRecord) -> float:
    """Learning rate of one optimizer step at a probe, common to all blocks; NaN where blocks differ."""
    rates = block_rates(recording, probe, probe.t) / max(int(recording.n_steps[probe.t]), 1)
    return float(rates[0]) if len(rates) and np.all(rates == rates[0]) else float("nan")
