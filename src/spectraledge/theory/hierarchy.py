"""Whether flat directions carry the larger strengths: the slope of log d_j on log curvature, and what to expect."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from spectraledge.errors import SettingError
from spectraledge.theory.hankel import one_minus_power

Array = NDArray[np.float64]


class Slope(NamedTuple):
    """A slope with its interval; (...) each."""

    value: Array
    low: Array
    high: Array


def inverted_hierarchy_slope(
    strengths: ArrayLike, h: ArrayLike, weight_decay: float = 0.0, *, level: float = 0.95
) -> Slope:
    """Least-squares slope of log d_j on log(h_j + omega) over the modes of one window.

    The published steady state d_j ~ |G_j| / sqrt(h_j + omega) is a slope of -1/2 where |G_j| is the same for
    all modes. Modes with d_j = 0 or h_j + omega <= 0 are left out. The interval is Student's t of independent
    modes; modes of one window are not quite that, so resample windows or runs where it matters.

    Args:
        strengths: (..., n) d_j [parameter].
        h: (..., n) v_j^T H v_j, preconditioned for Adam.
        weight_decay: omega.
        level: Of the interval.

    Returns:
        Value and ends; NaN with fewer than three usable modes or a NaN among them. Source: arXiv:2603.28964
        (the statement), standard result (the fit).

    Raises:
        SettingError: If level is not in (0, 1).

    >>> h = np.array([1.0, 4.0, 16.0, 64.0])
    >>> round(float(inverted_hierarchy_slope(3 / np.sqrt(h), h).value), 12)
    -0.5
    """
    if not 0.0 < level < 1.0:
        raise SettingError(f"level must lie in (0, 1); got {level}. Use 0.95.")
    d, total = np.broadcast_arrays(
        np.asarray(strengths, dtype=np.float64), np.asarray(h, dtype=np.float64) + weight_decay
    )
    used = ((d > 0.0) & (total > 0.0)) | np.isnan(d + total)
    n = used.sum(axis=-1)
    x, y = np.log(np.where(used, total, 1.0)), np.log(np.where(used, d, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.where(n >= 3, n, np.nan)[..., None]
        x = np.where(used, x - x.sum(axis=-1, keepdims=True) / count, 0.0)
        y = np.where(used, y - y.sum(axis=-1, keepdims=True) / count, 0.0)
        sxx = (x * x).sum(axis=-1)
        slope = np.where(n >= 3, (x * y).sum(axis=-1) / sxx, np.nan)
        scatter = np.sqrt(np.square(y - slope[..., None] * x).sum(axis=-1) / (n - 2) / sxx)
        reach = student.ppf(0.5 + 0.5 * level, np.maximum(n - 2, 1)) * scatter
    return Slope(slope, slope - reach, slope + reach)


def hierarchy_exponent(
    h: ArrayLike, lr: float, stride: int, *, weight_decay: float = 0.0, noise_exponent: float = 0.0
) -> Array:
    """d log d_j / d log(h_j + omega) of SGD at rest, noise variance going as (h + omega)^p: the expected slope.

    With r = 1 - eta (h + omega): [p - 1 + s r^(s-1) (1 - r) / (1 - r^s) + (1 - r) / (1 + r)] / 2. Three
    regimes of eta h s: far above 1 it is (p - 1) / 2, the inverted hierarchy at p = 0 and none at p = 1; far
    below 1 it is p / 2, so that at small strides white noise shows no hierarchy; between them it passes from
    one to the other. The last term matters near the stability limit only. The statement therefore depends on
    the stride and on the noise, and is one on diffusion.

    Args:
        h: (...) curvatures, h + omega > 0.
        lr: eta of SGD without momentum.
        stride: s.
        weight_decay: omega.
        noise_exponent: p.

    Returns:
        (...); NaN outside 0 < eta (h + omega) < 2. Source: derived.

    Raises:
        SettingError: If the stride is below 1.

    >>> hierarchy_exponent([1e-6, 0.05], 0.1, 2000).round(3)
    array([-0.   , -0.499])
    """
    if stride < 1:
        raise SettingError(f"stride must be at least 1; got {stride}. Use that of the run.")
    x = lr * (np.asarray(h, dtype=np.float64) + weight_decay)
    with np.errstate(divide="ignore", invalid="ignore"):
        memory = stride * (1.0 - x) ** (stride - 1) * x / one_minus_power(x, stride)
        slope = 0.5 * (noise_exponent - 1.0 + memory + x / (2.0 - x))
    return np.where((x > 0.0) & (x < 2.0), slope, np.nan)
