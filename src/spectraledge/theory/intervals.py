"""Exact confidence intervals of a proportion."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def clopper_pearson(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Clopper-Pearson interval of a binomial proportion.

    Args:
        successes: (...) counts.
        n: (...) trials, at least ``successes``; 0 trials give [0, 1].
        level: Confidence level in (0, 1).

    Returns:
        Lower and upper ends, (...) each. Source: standard result.

    Raises:
        SettingError: If counts or level are out of range.

    >>> low, high = clopper_pearson(1, 24)
    >>> round(float(low), 3), round(float(high), 3)
    (0.001, 0.211)
    """
    x, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if not 0.0 < level < 1.0:
        raise SettingError(f"level must lie in (0, 1); got {level}. Use 0.95.")
    if np.any(~(x >= 0)) or np.any(~(x <= n)):
        raise SettingError(
            f"successes must lie between 0 and n; got {np.asarray(successes).tolist()} of {n.tolist()}. "
            "Pass the counts, not the proportions."
        )
    tail = 0.5 * (1.0 - level)
    # The beta law has no meaning at the two ends, where the interval ends at 0 or 1.
    low = beta.ppf(tail, np.where(x > 0, x, 1.0), n - x + 1.0)
    high = beta.ppf(1.0 - tail, x + 1.0, np.where(x < n, n - x, 1.0))
    return np.where(x > 0, low, 0.0), np.where(x < n, high, 1.0)
