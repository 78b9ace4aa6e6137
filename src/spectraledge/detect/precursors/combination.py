"""A few readings combined: the logistic hazard of an event within the next so many steps, learned on whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rules import SILENT, Form, Judging, directed, memorised_row, moving_rows, series_of, sustained
from .runs import PrecursorRun
from .statistics import STATISTICS

Reading = tuple[str, Form]
WITHIN = 1000.0  # steps ahead that the hazard looks
_PENALTY = 1e-2  # of the squared weights beside the mean log loss: tells runs apart that a line separates
_LARGEST = 4.0  # scales beyond which a reading says no more: one that explodes must not decide alone

COMBINATIONS: dict[str, tuple[Reading, ...]] = {
    "hazard of turning": (
        ("turning over 2W, head", "rise"),
        ("turning over 2W, layers", "high"),
        ("turning over 2W, all", "high"),
    ),
    "hazard of turning and norm": (
        ("turning over 2W, head", "rise"),
        ("turning over 2W, layers", "rise"),
        ("norm by part, layers", "fall"),
    ),
    "hazard of coherence": (
        ("cosine W..L apart, gradients, head", "fall"),
        ("straightness, gradients, head", "rise"),
        ("disjoint coherence, gradients, layers", "fall"),
        ("update over norm, layers", "high"),
    ),
}


@dataclass(frozen=True, eq=False)
class Hazard:
    """Weights of a combination.

    Attributes:
        readings: Up to four (statistic, form).
        centre: (k) medians of the readings over training snapshots.
        scale: (k) half of their central 68 %.
        weights: (k) of the standardised readings.
        bias: Of the log odds.
    """

    readings: tuple[Reading, ...]
    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float

    def score(self, values: np.ndarray) -> np.ndarray:
        """(T) log odds of (T, k) readings; NaN where one is missing."""
        # A sum for each row, which does not depend on how many there are, as a matrix product may.
        return (_standardised(values, self.centre, self.scale) * self.weights).sum(axis=1) + self.bias

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "readings": [list(reading) for reading in self.readings],
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "weights": self.weights.tolist(),
            "bias": self.bias,
        }

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Hazard:
        """Back from JSON."""
        return cls(
            tuple((name, form) for name, form in table["readings"]),
            np.array(table["centre"], dtype=np.float64),
            np.array(table["scale"], dtype=np.float64),
            np.array(table["weights"], dtype=np.float64),
            float(table["bias"]),
        )


def readings_of(run: PrecursorRun, readings: Sequence[Reading], judging: Judging) -> np.ndarray | None:
    """(T, k) directed readings of a run; None where one is not held."""
    columns = []
    for name, form in readings:
        values = series_of(run, STATISTICS[name])
        if values is None:
            return None
        columns.append(
            directed(
                values,
                form,
                signed=STATISTICS[name].signed,
                start=judging.start,
                memorised=memorised_row(run),
                moving=moving_rows(run, STATISTICS[name], form, judging),
            )
        )
    return np.stack(columns, axis=1)


def fit_hazard(
    readings: tuple[Reading, ...], runs: Sequence[PrecursorRun], values: Sequence[np.ndarray], judging: Judging
) -> Hazard:
    """Learn the weights: every judged snapshot before the event counts, each run as much as any other.

    A snapshot is labelled 1 where the event comes within ``WITHIN`` steps, 0 elsewhere, hence always in runs without
    it. Penalised logistic regression by Newton's method; both classes weigh the same. Source: standard result.

    Args:
        readings: Of the columns.
        runs: Training runs.
        values: Their (T, k) readings.
        judging: Burn-in and horizon.
    """
    xs, ys, ws = [], [], []
    for run, x in zip(runs, values):
        steps = run.history.steps
        event = np.inf if run.event is None else run.event
        used = np.isfinite(x).all(axis=1) & (steps < event) & (steps <= judging.horizon)
        used[: judging.burn_in] = False
        if used.any():
            xs.append(x[used])
            ys.append((event - steps[used] <= WITHIN).astype(np.float64))
            ws.append(np.full(int(used.sum()), 1.0 / used.sum()))
    x, y, w = np.concatenate(xs), np.concatenate(ys), np.concatenate(ws)
    low, centre, high = np.quantile(x, [0.16, 0.5, 0.84], axis=0)
    scale = np.maximum(0.5 * (high - low), 1e-9)
    for label in (0.0, 1.0):
        w[y == label] /= max(float(w[y == label].sum()), 1e-300)
    z = np.concatenate([_standardised(x, centre, scale), np.ones((len(x), 1))], axis=1)
    beta = np.zeros(z.shape[1])
    penalty = np.r_[np.full(len(readings), _PENALTY), 0.0]
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(z @ beta)))
        gradient = z.T @ (w * (p - y)) + penalty * beta
        curvature = (z * (w * np.maximum(p * (1.0 - p), 1e-6))[:, None]).T @ z + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        # Damped, so that early steps on separated classes do not run away.
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        beta -= step
        if np.abs(step).max() < 1e-9:
            break
    return Hazard(readings, centre, scale, beta[:-1], float(beta[-1]))


def hazard_traces(
    hazard: Hazard, runs: Sequence[PrecursorRun], values: Sequence[np.ndarray], judging: Judging
) -> np.ndarray:
    """(n, T) sustained log odds over runs, padded with -inf."""
    out = np.full((len(runs), max(len(run.history.steps) for run in runs)), SILENT)
    for row, run, x in zip(out, runs, values):
        row[: len(x)] = sustained(hazard.score(x), run.history.steps, judging)
    return out


def _standardised(x: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip((x - centre) / scale, -_LARGEST, _LARGEST)
