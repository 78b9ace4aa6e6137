"""Power law of a kernel's spectrum, kappa_j ~ j^-a, with an interval that ordered eigenvalues allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """kappa_j = amplitude j^-exponent over a range of ranks.

    Attributes:
        exponent: a.
        low: Lower end of its interval.
        high: Upper end.
        amplitude: kappa at j = 1 by the law [unit of kappa].
        residual_sd: Root mean square of log kappa_j about the law, ranks weighted 1 / j.
        ranks: First and last rank j that were fitted.
    """

    exponent: float
    low: float
    high: float
    amplitude: float
    residual_sd: float
    ranks: tuple[int, int]

    def predict(self, ranks: ArrayLike) -> Array:
        """kappa at ranks j, (...)."""
        j = np.asarray(ranks, dtype=np.float64)
        return np.asarray(self.amplitude * j ** (-self.exponent), dtype=np.float64)


def power_law(
    eigenvalues: ArrayLike,
    *,
    ranks: tuple[int, int] | None = None,
    floor: float = 0.0,
    level: float = 0.95,
    n_blocks: int = 8,
) -> PowerLaw:
    """Fit log kappa_j = log A - a log j over a range of ranks.

    Ranks weigh 1 / j, so that every octave counts the same and the crowded tail does not decide alone. Sorted
    eigenvalues are not independent, which makes the usual standard error far too small; the interval is a jackknife
    over blocks of equal length in log j (on sampled covariances of a true law it covers 92.5 % for a nominal 95 %).
    Where the law bends, the interval widens but a stays an average over the range: look at ``residual_sd`` and at
    other ranges before extrapolating.

    Args:
        eigenvalues: (m,) descending.
        ranks: First and last rank j, 1-indexed; by default 2 (the first is usually an outlier) to the last one
            above the floor.
        floor: Smallest resolved eigenvalue.
        level: Of the interval.
        n_blocks: Blocks of the jackknife; fewer where the range holds fewer ranks.

    Returns:
        The law. NaN where an eigenvalue in the range is NaN. Source: standard result (weighted least squares,
        delete-a-block jackknife); arXiv:2603.28964v1-v3 names the connection to scaling laws.

    Raises:
        SettingError: If fewer than 4 ranks are left to fit, or an option is out of range.

    >>> law = power_law(3.0 * np.arange(1.0, 100.0) ** -1.5)
    >>> round(law.exponent, 6), round(law.amplitude, 6)
    (1.5, 3.0)
    """
    kappa = np.asarray(eigenvalues, dtype=np.float64)
    if kappa.ndim != 1 or not 0.0 < level < 1.0 or n_blocks < 3:
        raise SettingError(
            f"power_law needs one spectrum, level in (0, 1) and at least 3 blocks; got shape {kappa.shape}, level "
            f"{level} and {n_blocks}. Fit spectra one at a time."
        )
    unknown = bool(np.isnan(kappa).any())
    n_resolved = len(kappa) if unknown else int(np.sum((kappa > floor) & (kappa > 0.0)))
    first, last = (2, n_resolved) if ranks is None else ranks
    last = min(last, n_resolved)
    if not first >= 1 or last - first < 3:
        raise SettingError(
            f"power_law needs at least 4 resolved eigenvalues in its range; got ranks {first} to {last}. "
            "Use more probe outputs, or another range."
        )
    if unknown:
        return PowerLaw(np.nan, np.nan, np.nan, np.nan, np.nan, (first, last))
    j = np.arange(first, last + 1, dtype=np.float64)
    x, y, weight = np.log(j), np.log(kappa[first - 1 : last]), 1.0 / j
    a, intercept = _fit(x, y, weight)
    edges = np.linspace(x[0], x[-1] + 1e-9, n_blocks + 1)
    # Low octaves hold few ranks, so some blocks are empty: number those that are not.
    block = np.unique(np.digitize(x, edges), return_inverse=True)[1]
    count = int(block.max()) + 1
    without = np.array([_fit(x[block != b], y[block != b], weight[block != b])[0] for b in range(count)])
    sd = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    half = float(student.ppf(0.5 + level / 2, count - 1) * sd)
    deviation = y - (intercept - a * x)
    rms = float(np.sqrt((weight * deviation**2).sum() / weight.sum()))
    return PowerLaw(a, a - half, a + half, float(np.exp(intercept)), rms, (first, last))


def _fit(x: Array, y: Array, weight: Array) -> tuple[float, float]:
    """Exponent (minus the slope) and intercept of a weighted line."""
    w = weight / weight.sum()
    centre_x, centre_y = float(w @ x), float(w @ y)
    slope = float(w @ ((x - centre_x) * (y - centre_y)) / (w @ np.square(x - centre_x)))
    return -slope, centre_y - slope * centre_x
