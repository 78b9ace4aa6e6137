"""What a feature used to be: median and spread of the recent past, far enough back to share no update with now."""

from __future__ import annotations

import numpy as np

_TO_SD = 1.4826  # sd of a normal variable in units of its median absolute deviation


class Reference:
    """Location and scale of a feature over its M last known values that are at least W rows old.

    Rows without a value are passed over. Nothing is judged before M values are there: the burn-in.

    Args:
        window: W, the rows that two windows must lie apart to share no update.
        size: M.
        least_scale: Smallest scale [unit of the feature]: a change is never measured by less.
    """

    def __init__(self, window: int, size: int, least_scale: float) -> None:
        self.window, self.size, self.least_scale = window, size, least_scale
        self.values = np.empty(0)
        self.rows = np.empty(0, dtype=np.int64)

    def extend(self, first_row: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take in new values and say what each is to be compared with.

        Args:
            first_row: Number of the first new row; they go on from the last ones.
            x: (n) values, NaN for none.

        Returns:
            (n) median and (n) scale of the past of each row; NaN during the burn-in.
        """
        known = np.flatnonzero(np.isfinite(x))
        self.values = np.concatenate([self.values, x[known]])
        self.rows = np.concatenate([self.rows, first_row + known])
        end = np.searchsorted(self.rows, first_row + np.arange(len(x)) - self.window, side="right")
        location, scale = self._of(end)
        self.forget()
        return location, scale

    def forget(self) -> None:
        """Drop what no later row will be compared with."""
        keep = self.size + self.window
        self.values, self.rows = self.values[-keep:], self.rows[-keep:]

    def _of(self, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        location, scale = np.full(len(end), np.nan), np.full(len(end), np.nan)
        ready = np.flatnonzero(end >= self.size)
        if len(ready):
            ends, which = np.unique(end[ready], return_inverse=True)
            centre, spread = median_and_spread(past(self.values, ends, self.size))
            location[ready] = centre[which]
            scale[ready] = np.maximum(spread[which], self.least_scale)
        return location, scale


def past(values: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """``values[end - size : end]`` for each end, (n, size)."""
    if len(ends) == 1:  # a stream: a third of its time would go into the view
        return values[None, int(ends[0]) - size : int(ends[0])]
    return np.lib.stride_tricks.sliding_window_view(values, size)[ends - size]


def median_and_spread(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median, and median absolute deviation times 1.4826, of each row of (n, M).

    >>> median_and_spread(np.array([[1.0, 2.0, 3.0, 4.0, 100.0]]))
    (array([3.]), array([1.4826]))
    """
    centre = _median(samples)
    return centre, _TO_SD * _median(np.abs(samples - centre[:, None]))


def _median(samples: np.ndarray) -> np.ndarray:
    # np.median checks for NaN and takes a mean over a slice: four times the time of the partition alone.
    m = samples.shape[1]
    low, high = (m - 1) // 2, m // 2
    ordered = np.partition(samples, (low, high) if low != high else low, axis=1)
    return 0.5 * (ordered[:, low] + ordered[:, high])
