"""What a random linear sketch of the updates does to their products and singular values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]

__all__ = ["product_sd", "relative_error", "single_value_sd"]

# A largest singular value of a W x m Gaussian matrix over sqrt(m) exceeds 1 + sqrt(W / m) + t / sqrt(m) with
# probability at most exp(-t^2 / 2): 1.1 % for t = 3.
_TAIL = 3.0


def relative_error(window: int, size: int | None) -> float:
    """Bound on the relative error of every singular value of W sketched rows, all at once.

    The sketch S changes ``X X^T`` into ``X S S^T X^T``; on the span of the rows ``S S^T`` is the identity up to a
    factor between ``(1 - e)^2`` and ``(1 + e)^2``, and by Ostrowski's theorem so is every eigenvalue. For Gaussian S
    ``e <= (sqrt(W) + 3) / sqrt(m)`` in 99 % of sketches (Davidson and Szarek); a sketch with one nonzero a column
    follows the same law where no few entries hold most of an update.

    Args:
        window: W, rows.
        size: m, dimension of the sketch; None for updates that were kept whole.

    Returns:
        e, at most 1. Source: standard result.

    >>> relative_error(10, None), round(relative_error(10, 16384), 3)
    (0.0, 0.048)
    """
    if size is None:
        return 0.0
    if size < 1:
        raise SettingError(f"the size of a sketch must be at least 1; got {size}. Use 16384.")
    return float(min(1.0, (np.sqrt(window) + _TAIL) / np.sqrt(size)))


def single_value_sd(size: int) -> float:
    """Relative standard deviation of one well separated singular value, ``(2 m)^(-1/2)``. Source: derived.

    >>> round(single_value_sd(100), 4)
    0.0707
    """
    return float(np.sqrt(0.5 / size))


def product_sd(norm2_a: ArrayLike, norm2_b: ArrayLike, product: ArrayLike, size: int) -> Array:
    """Standard deviation of a sketched inner product: ``sqrt((||a||^2 ||b||^2 + <a, b>^2) / m)``, or less.

    Exact for Gaussian sketches; for one nonzero a column ``2 sum_i a_i^2 b_i^2 / m`` comes off the variance.

    Args:
        norm2_a: (...) ``||a||^2``.
        norm2_b: (...) ``||b||^2``.
        product: (...) ``<a, b>``.
        size: m.

    Returns:
        (...) Source: standard result.

    >>> float(product_sd(1.0, 1.0, 0.0, 100))
    0.1
    """
    a, b, c = (np.asarray(x, dtype=np.float64) for x in (norm2_a, norm2_b, product))
    return np.sqrt((a * b + c**2) / size)
