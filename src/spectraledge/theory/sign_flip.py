"""Sign-flip test: is the mean of a few independent differences zero?"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from spectraledge.errors import SettingError

_EXACT = 12  # units up to which all 2^n sign patterns are gone through


def sign_flip_p(differences: ArrayLike, *, n_draws: int = 2000, rng: np.random.Generator) -> float:
    """Two-sided p of a mean of zero, where every difference is as likely as its negative.

    All 2^n sign patterns for n <= 12 units, random ones beyond. With n units no p is below 2 / 2^n: 0.25 for 3
    seeds, 0.0078 for 8.

    Args:
        differences: (n,) one independent difference a unit (seed, run), in any unit.
        n_draws: Random patterns beyond 12 units.
        rng: Source of randomness.

    Returns:
        The p-value; NaN where a difference is. Source: standard result (Fisher).

    Raises:
        SettingError: Without a difference.

    >>> sign_flip_p([1.0, 2.0, 1.5], rng=np.random.default_rng(0))  # 2 of 8 patterns reach the mean
    0.25
    """
    x = np.asarray(differences, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise SettingError(f"differences must be a list of at least one number; got shape {x.shape}. One a seed.")
    if not np.isfinite(x).all():
        return float("nan")
    exact = len(x) <= _EXACT
    signs = (
        np.array(list(product((1.0, -1.0), repeat=len(x)))) if exact else rng.choice([-1.0, 1.0], (n_draws, len(x)))
    )
    # A hair of slack: equal sums are equal whatever order they were added in.
    reached = np.sum(np.abs(signs @ x) >= abs(x.sum()) * (1.0 - 1e-12))
    return float(reached / len(signs) if exact else (1.0 + reached) / (1.0 + n_draws))
