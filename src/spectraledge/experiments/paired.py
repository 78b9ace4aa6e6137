"""Differences paired over seeds: mean, interval, and the sign-flip test. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import SettingError
from ..theory.bootstrap import cluster_bootstrap
from ..theory.sign_flip import sign_flip_p

READINGS = ("horizon", "area")


@dataclass(frozen=True)
class Paired:
    """The mean of one difference a seed.

    Attributes:
        mean: In the outcome's unit; NaN where no seed has both sides.
        low: Lower end of the interval; NaN for fewer than 2 seeds.
        high: Upper end.
        p_value: Two-sided sign-flip p; with n seeds at least 2 / 2^n.
        n_seeds: Seeds with both sides.
    """

    mean: float
    low: float
    high: float
    p_value: float
    n_seeds: int


def paired(differences: ArrayLike, *, level: float = 0.95, n_boot: int = 2000, rng: np.random.Generator) -> Paired:
    """Whether the mean of independent differences is 0.

    Args:
        differences: (n,) one a seed; those that are not finite are left out.
        level: Of the interval.
        n_boot: Resamples of seeds, and sign patterns beyond 12 seeds.
        rng: Source of randomness.

    Returns:
        Mean, bootstrap-t interval over seeds (its standard error from resampled seeds, n - 1 degrees of freedom)
        and sign-flip p. Source: standard results.

    Example:
        >>> found = paired([1.0, 2.0, 1.5, float("nan")], rng=np.random.default_rng(0))
        >>> found.mean, found.p_value, found.n_seeds
        (1.5, 0.25, 3)
    """
    x = np.asarray(differences, dtype=np.float64)
    x = x[np.isfinite(x)]
    if not len(x):
        return Paired(np.nan, np.nan, np.nan, np.nan, 0)
    low = high = np.nan
    if len(x) > 1:
        # "t": the percentile interval of 8 seeds covers 0.89 at a nominal 0.95.
        ends = cluster_bootstrap(
            lambda draw: float(np.mean(draw)), x.tolist(), n_boot=n_boot, rng=rng, level=level, interval="t"
        )
        low, high = float(ends.low), float(ends.high)
    return Paired(float(x.mean()), low, high, sign_flip_p(x, n_draws=n_boot, rng=rng), len(x))


def curve(row: Mapping[str, Any], outcome: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps of a row and ``outcome`` at them; NaN where it was not finite.

    Raises:
        SettingError: If the outcome is unknown.
    """
    if outcome not in row:
        raise SettingError(f"outcome must be a metric of the study; got {outcome!r}. Use test_loss.")
    y = np.array([np.nan if v is None else v for v in row[outcome]], dtype=np.float64)
    return np.array(row["steps"], dtype=np.float64), y


def read_curve(row: Mapping[str, Any], outcome: str, reading: str) -> float:
    """One number of a row's curve of ``outcome`` over ``row["steps"]``.

    ``horizon``: the last evaluation. ``area``: the mean of the curve, by the trapezoid rule, in the same unit.

    Raises:
        SettingError: If the outcome or the reading is unknown.

    Example:
        >>> row = {"steps": [0, 10, 20], "test_loss": [4.0, 2.0, 1.0]}
        >>> read_curve(row, "test_loss", "horizon"), read_curve(row, "test_loss", "area")
        (1.0, 2.25)
    """
    if reading not in READINGS:
        raise SettingError(f"reading must be horizon or area; got {reading!r}. The default is horizon.")
    steps, y = curve(row, outcome)
    if reading == "horizon":
        return float(y[-1])
    return float(np.trapezoid(y, steps) / (steps[-1] - steps[0]))
