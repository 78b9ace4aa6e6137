"""Does a spectral quantity change with the width of the network?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from spectraledge.errors import SettingError


@dataclass(frozen=True)
class WidthSlope:
    """Straight line of a quantity on log width.

    Attributes:
        slope: Change for a factor e in width [unit of the quantity].
        low: Lower end of its interval.
        high: Upper end.
        n: Runs.
        n_widths: Distinct widths.
    """

    slope: float
    low: float
    high: float
    n: int
    n_widths: int


def width_slope(widths: ArrayLike, values: ArrayLike, *, level: float = 0.95) -> WidthSlope:
    """Least-squares slope of a quantity (R, k*, A_rel) on log width, with Student's interval.

    Under muP the slope should be 0, under standard parametrisation not (arXiv:2603.28964v1-v3, Tensor
    Programs). An interval around 0 shows invariance only down to its own width: quote both ends.

    Args:
        widths: (n,) one run each, several seeds a width; positive.
        values: (n,) the quantity at matched steps; give log R for R, whose scatter grows with it. NaN runs are
            left out.
        level: Of the interval.

    Returns:
        The slope. Errors are taken to be equal and independent: one run counts once. Source: standard result.

    Raises:
        SettingError: For fewer than 2 widths or 3 runs.

    >>> found = width_slope([64, 64, 128, 128, 256, 256], [1.0, 1.2, 1.1, 0.9, 1.0, 1.1])
    >>> found.low < 0 < found.high
    True
    """
    w, y = np.asarray(widths, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if w.ndim != 1 or w.shape != y.shape or not np.all(w > 0.0):
        raise SettingError(f"widths must be positive and (n,) like values; got shapes {w.shape} and {y.shape}.")
    known = np.isfinite(y)
    x, y = np.log(w[known]), y[known]
    n, n_widths = len(x), len(np.unique(x))
    if n < 3 or n_widths < 2:
        raise SettingError(f"a slope needs 3 runs at 2 widths; got {n} at {n_widths}. Use 3 widths of 3 seeds.")
    centred = x - x.mean()
    from_first = y - y[0]  # a constant quantity has slope 0 exactly, not to rounding
    slope = float(centred @ from_first / (centred @ centred))
    residual = from_first - from_first.mean() - slope * centred
    error = float(np.sqrt(residual @ residual / (n - 2) / (centred @ centred)))
    reach = float(student.ppf(0.5 * (1.0 + level), n - 2)) * error
    return WidthSlope(slope, slope - reach, slope + reach, n, n_widths)
