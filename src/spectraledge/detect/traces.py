"""A causal series of one run, and what it says by a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

SILENT = float("-inf")


@dataclass(frozen=True, eq=False)
class Trace:
    """Values that are each known from their step on.

    Attributes:
        steps: (n) ascending.
        values: (n) no NaN.
    """

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, steps: ArrayLike, values: ArrayLike) -> Trace | None:
        """The trace without missing values; None where nothing is left."""
        at, x = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        known = ~np.isnan(x)
        at, x = at[known], x[known]
        order = np.argsort(at, kind="stable")
        return cls(at[order], x[order]) if len(at) else None

    def present(self, cuts: np.ndarray) -> np.ndarray:
        """(c) last value at or before each cut; NaN before the first.

        >>> Trace(np.array([10.0, 20.0]), np.array([1.0, 2.0])).present(np.array([5.0, 10.0, 99.0]))
        array([nan,  1.,  2.])
        """
        return self._looked_up(self.values, cuts, np.nan)

    def largest(self, cuts: np.ndarray, sign: float = 1.0) -> np.ndarray:
        """(c) largest ``sign * value`` at or before each cut; -inf before the first."""
        return self._looked_up(np.maximum.accumulate(sign * self.values), cuts, SILENT)

    def largest_between(self, start: float, cut: float, sign: float = 1.0, *, before: bool = False) -> float:
        """Largest ``sign * value`` from ``start`` to ``cut``, or strictly before it; -inf for none."""
        end = np.searchsorted(self.steps, cut, side="left" if before else "right")
        x = self.values[np.searchsorted(self.steps, start) : end]
        return float(np.max(sign * x)) if len(x) else SILENT

    def first_alarm(self, threshold: float, start: float, sign: float = 1.0) -> float:
        """First step from ``start`` on with ``sign * value >= threshold``; NaN for none."""
        hits = np.flatnonzero((sign * self.values >= threshold) & (self.steps >= start))
        return float(self.steps[hits[0]]) if len(hits) else float("nan")

    def _looked_up(self, values: np.ndarray, cuts: np.ndarray, otherwise: float) -> np.ndarray:
        at = np.searchsorted(self.steps, cuts, side="right") - 1
        return np.where(at >= 0, values[np.maximum(at, 0)], otherwise)
