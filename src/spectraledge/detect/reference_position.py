"""Where the gap used to be, and by how much another position leads it now."""

from __future__ import annotations

import numpy as np

from .reference import median_and_spread, past


class PositionReference:
    """The usual position k of the gap, and how another position's lead over it compares with the past.

    k is the commonest position of the largest ratio among the last M known windows that are at least W rows old (the
    smaller one of two equally common). The lead is ``max over j != k of log r_j - log r_k``: below 0 while k holds
    the largest ratio. Its median and spread over the same M windows are what the present lead is compared with.

    Args:
        window: W.
        size: M.
        least_scale: Smallest scale of the lead.
    """

    def __init__(self, window: int, size: int, least_scale: float) -> None:
        self.window, self.size, self.least_scale = window, size, least_scale
        self.values = np.empty((0, window // 2))
        self.rows = np.empty(0, dtype=np.int64)

    def extend(self, first_row: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take in new log ratios.

        Args:
            first_row: Number of the first new row.
            x: (n, W // 2) log ratios; a row with a NaN is passed over.

        Returns:
            (n) lead, (n) its median and (n) scale; NaN during the burn-in and where the row is passed over.
        """
        usable = np.isfinite(x).all(axis=1)
        known = np.flatnonzero(usable)
        self.values = np.concatenate([self.values, x[known]])
        self.rows = np.concatenate([self.rows, first_row + known])
        end = np.searchsorted(self.rows, first_row + np.arange(len(x)) - self.window, side="right")
        lead, location, scale = (np.full(len(x), np.nan) for _ in range(3))
        # One position only (W = 3) has no other that could lead it.
        ready = np.flatnonzero(usable & (end >= self.size)) if x.shape[1] > 1 else np.empty(0, dtype=np.int64)
        if len(ready):
            usual = self._usual(end[ready])
            for k in np.unique(usual):
                at = ready[usual == k]
                history = _lead(self.values, k)
                centre, spread = median_and_spread(past(history, end[at], self.size))
                lead[at], location[at] = _lead(x[at], k), centre
                scale[at] = np.maximum(spread, self.least_scale)
        self.forget()
        return lead, location, scale

    def forget(self) -> None:
        """Drop what no later row will be compared with."""
        keep = self.size + self.window
        self.values, self.rows = self.values[-keep:], self.rows[-keep:]

    def _usual(self, end: np.ndarray) -> np.ndarray:
        positions = np.argmax(self.values, axis=1)
        held = np.zeros((len(positions) + 1, self.values.shape[1]), dtype=np.int64)
        np.cumsum(positions[:, None] == np.arange(self.values.shape[1]), axis=0, out=held[1:])
        return np.argmax(held[end] - held[end - self.size], axis=1)


def _lead(log_ratios: np.ndarray, k: int) -> np.ndarray:
    others = np.delete(log_ratios, k, axis=1)
    return np.asarray(others.max(axis=1) - log_ratios[:, k])
