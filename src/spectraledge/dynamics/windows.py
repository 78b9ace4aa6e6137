"""Inner products of the updates around chosen rows of a band."""

from __future__ import annotations

import numpy as np


def grams_ending_at(band: np.ndarray, size: int, ends: np.ndarray) -> np.ndarray:
    """Gram matrices of the ``size`` rows that end at each of ``ends``.

    Args:
        band: (T, L+1) products, ``band[t, l] = <row t, row t-l>`` [parameter^2].
        size: Rows in a block.
        ends: (N) indices of the last rows.

    Returns:
        (N, size, size), oldest row first; NaN where the band does not reach: before the start, or beyond lag L.

    >>> band = np.array([[1.0, np.nan], [4.0, 2.0], [9.0, 6.0]])
    >>> grams_ending_at(band, 2, np.array([2]))
    array([[[4., 6.],
            [6., 9.]]])
    """
    ends = np.asarray(ends, dtype=np.int64)
    i = np.arange(size)
    newer = ends[:, None, None] - size + 1 + np.maximum(i[:, None], i)
    lag = np.abs(i[:, None] - i)
    known = (newer >= 0) & (newer < len(band)) & (lag < band.shape[1]) & (ends >= size - 1)[:, None, None]
    return np.where(known, band[np.where(known, newer, 0), np.where(known, lag, 0)], np.nan)
