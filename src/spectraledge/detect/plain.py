"""Arrays as lists that JSON can hold, where NaN is no number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def to_plain(values: np.ndarray) -> list[Any]:
    """Nested lists; None for NaN.

    >>> to_plain(np.array([[1.0, np.nan]]))
    [[1.0, None]]
    """
    if values.ndim > 1:
        return [to_plain(row) for row in values]
    return [None if math.isnan(x) else x for x in values.tolist()]


def from_plain(values: list[Any], rest: tuple[int, ...] = ()) -> np.ndarray:
    """The array back; ``rest`` is the shape of one row.

    >>> from_plain([[1.0, None]], (2,))
    array([[ 1., nan]])
    """
    return np.array(values, dtype=np.float64).reshape(len(values), *rest)
