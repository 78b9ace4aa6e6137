"""Is a series monotone? A fit that may only go one way, and what noise alone would leave of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.signal_flow import check_choice

Array = NDArray[np.float64]
Direction = Literal["decreasing", "increasing"]


@dataclass(frozen=True)
class MonotoneTest:
    """How monotone a series is.

    Attributes:
        fit: (n,) isotonic regression [unit of the series].
        explained: Share of the variance that it explains.
        violation: Mean squared residual over the noise variance: small for a monotone series. Noise about a constant
            gives close to 1.
        p_not_monotone: Chance of a violation as large if the truth is monotone: small says *not* monotone.
        p_trend: Chance of as much being explained in another order of the values: small says that there is a trend.
        reversals: Steps against the direction.
        author: The published rule: at most one reversal.
        author_chance: Chance of passing that rule without any trend, of n exchangeable values.
        monotone: ``p_trend <= level`` and ``p_not_monotone > level``; in author mode ``author``.
    """

    fit: Array
    explained: float
    violation: float
    p_not_monotone: float
    p_trend: float
    reversals: int
    author: bool
    author_chance: float
    monotone: bool


def isotonic_fit(series: ArrayLike, direction: Direction = "decreasing") -> Array:
    """Monotone sequence nearest to a series in least squares (pool adjacent violators).

    Args:
        series: (n,) finite.
        direction: ``decreasing`` or ``increasing``.

    Returns:
        (n,) [unit of the series]. Source: standard result (Ayer et al. 1955).

    Raises:
        SettingError: For an empty or missing value, or another direction.

    >>> isotonic_fit([3.0, 1.0, 2.0, 0.0])
    array([3. , 1.5, 1.5, 0. ])
    """
    check_choice("direction", direction, ("decreasing", "increasing"))
    y = np.asarray(series, dtype=np.float64)
    if y.ndim != 1 or len(y) == 0 or not np.isfinite(y).all():
        raise SettingError(f"series must be (n,) and finite; got shape {y.shape}. Leave missing values out.")
    if direction == "decreasing":
        return -isotonic_fit(-y, "increasing")
    means: list[float] = []
    counts: list[int] = []
    for value in y.tolist():
        mean, count = value, 1
        while means and means[-1] > mean:
            mean = (means[-1] * counts[-1] + mean * count) / (counts[-1] + count)
            count += counts.pop()
            means.pop()
        means.append(mean)
        counts.append(count)
    return np.repeat(means, counts)


def monotone_test(
    series: ArrayLike,
    direction: Direction = "decreasing",
    *,
    mode: Literal["strict", "author"] = "strict",
    noise_sd: float | None = None,
    block: int = 1,
    level: float = 0.05,
    n_draws: int = 999,
    rng: np.random.Generator,
) -> MonotoneTest:
    """Test whether a series goes one way.

    ``author``: "monotone" if at most one step goes the other way. Of 3 to 5 windows in no order at all, 83 to 23 %
    pass. ``strict`` asks two questions. *Is there a trend?* The variance explained by the isotonic fit against its
    value in permuted order. *Is the truth monotone?* The violation, mean squared residual over noise variance,
    against Gaussian noise about a constant, the least favourable monotone truth, so that the p-value is conservative
    elsewhere.

    Without ``noise_sd`` the noise variance is half the mean squared step (von Neumann); a real trend makes it too
    large, which is conservative again, but noise that is correlated in time makes it too small: overlapping windows
    must be thinned to every W-th before, or ``noise_sd`` taken from repeated runs.

    Args:
        series: (n,) n >= 3 values of disjoint windows, in time order.
        direction: ``decreasing`` or ``increasing``.
        mode: Which rule decides ``monotone``; both are reported.
        noise_sd: Standard deviation of one value [unit of the series], from repetitions.
        block: Values that are permuted together, where neighbours depend on each other: 2 W for windows one apart.
        level: Of both tests.
        n_draws: Permutations and noise draws.
        rng: Source of randomness.

    Returns:
        The test; p-values NaN for a constant series. No p_trend is below 1/n! of the permutations that exist: with 3
        values it cannot reach 0.05. Source: standard result (Robertson, Wright and Dykstra 1988); author's rule:
        author's code (arXiv:2603.28964v1-v3).

    Raises:
        SettingError: If the series is shorter than 3 or an option out of range.

    >>> test = monotone_test([9.0, 7.5, 6.1, 4.2, 3.3, 1.8, 1.1, 0.2], rng=np.random.default_rng(0))
    >>> test.monotone, test.reversals
    (True, 0)
    """
    check_choice("mode", mode, ("strict", "author"))
    y = np.asarray(series, dtype=np.float64)
    fit = isotonic_fit(y, direction)
    if len(y) < 3 or not 1 <= block <= len(y) // 2 or n_draws < 1 or not (noise_sd is None or noise_sd > 0.0):
        raise SettingError(
            f"A test of monotony needs 3 values, a block of at most half of them and a positive noise_sd; got "
            f"{len(y)} values, block {block} and noise_sd {noise_sd}. Record more windows."
        )
    explained, violation = _explained(y, fit), _violation(y, fit, noise_sd)
    p_trend = p_violation = float("nan")
    if np.ptp(y) > 0.0:
        slack = 1.0 - 1e-12
        pieces = [y[i : i + block] for i in range(0, len(y), block)]
        reached = exceeded = 0
        for _ in range(n_draws):
            mixed = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
            reached += _explained(mixed, isotonic_fit(mixed, direction)) >= explained * slack
            noise = rng.standard_normal(len(y)) * (noise_sd or 1.0)
            exceeded += _violation(noise, isotonic_fit(noise, direction), noise_sd) >= violation * slack
        p_trend, p_violation = (1.0 + reached) / (1.0 + n_draws), (1.0 + exceeded) / (1.0 + n_draws)
    steps = np.diff(y)
    reversals = int(np.sum(steps > 0.0) if direction == "decreasing" else np.sum(steps < 0.0))
    author = reversals <= 1
    return MonotoneTest(
        fit=fit,
        explained=explained,
        violation=violation,
        p_not_monotone=p_violation,
        p_trend=p_trend,
        reversals=reversals,
        author=author,
        author_chance=one_reversal_chance(len(y)),
        monotone=author if mode == "author" else bool(p_trend <= level and p_violation > level),
    )


def one_reversal_chance(n: int, null: Literal["exchangeable", "walk"] = "exchangeable") -> float:
    """Chance that a series without trend passes "at most one step the other way".

    ``exchangeable``: ``(2^n - n) / n!``, since ``2^n - n - 1`` permutations have one descent (Eulerian number) and
    one has none. ``walk``: symmetric independent steps, ``n / 2^(n-1)``.

    Args:
        n: Values, at least 1.
        null: Of the two.

    Returns:
        The chance. Source: standard result (Eulerian numbers).

    Raises:
        SettingError: If n is below 1 or the null unknown.

    >>> [round(one_reversal_chance(n), 3) for n in (3, 4, 5, 7)]
    [0.833, 0.5, 0.225, 0.024]
    """
    check_choice("null", null, ("exchangeable", "walk"))
    if n < 1:
        raise SettingError(f"n must be at least 1; got {n}. Count the values, not the steps.")
    return float((2**n - n) / factorial(n)) if null == "exchangeable" else float(n / 2 ** (n - 1))


def _explained(y: Array, fit: Array) -> float:
    total = float(np.square(y - y.mean()).sum())
    return 1.0 - float(np.square(y - fit).sum()) / total if total > 0.0 else float("nan")


def _violation(y: Array, fit: Array, noise_sd: float | None) -> float:
    variance = noise_sd**2 if noise_sd is not None else 0.5 * float(np.square(np.diff(y)).mean())
    return float(np.square(y - fit).mean()) / variance if variance > 0.0 else float("nan")
