"""Stationary law of a gap that is pulled together and pushed apart by its own noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erfcx

from spectraledge.errors import SettingError
from spectraledge.theory.dyson import check_model

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StationaryGap:
    """Mode, median and mean of the stationary gap [parameter^2]; scale is 2 kappa^2 / |pull|."""

    mode: float
    median: float
    mean: float
    scale: float


def stationary_density(gap: ArrayLike, *, kappa2: float, pull: float, damping: float = 0.0) -> Array:
    """Stationary density ``~ g exp(pull g / (2 kappa^2) - damping g^2 / (4 kappa^2))`` of the gap.

    Args:
        gap: (...) g [parameter^2]; below 0 the density is 0.
        kappa2: kappa^2 > 0 [parameter^4 per snapshot].
        pull: c; negative if there is no damping.
        damping: gamma >= 0.

    Returns:
        (...) [1 / parameter^2], normalised. Source: derived (zero probability flux).

    Raises:
        SettingError: If there is no stationary law, for neither damping nor a negative pull.
    """
    _check_stationary(kappa2, pull, damping)
    g = np.asarray(gap, dtype=np.float64)
    slope, bend = pull / (2.0 * kappa2), damping / (4.0 * kappa2)
    if bend == 0.0:
        log_norm = -2.0 * np.log(-slope)
    else:
        x = slope / (2.0 * np.sqrt(bend))
        if x < -1e3:  # sqrt(pi) |x| erfcx(|x|) -> 1 - 1 / (2 x^2) + ...: the damping is a small correction
            log_norm = -np.log(2.0 * bend) + np.log(0.5 / x**2 - 0.75 / x**4)
        elif x <= 0.0:
            log_norm = -np.log(2.0 * bend) + np.log1p(np.sqrt(np.pi) * x * erfcx(-x))
        else:
            inner = np.exp(-(x**2)) + np.sqrt(np.pi) * x * (2.0 - np.exp(-(x**2)) * erfcx(x))
            log_norm = -np.log(2.0 * bend) + x**2 + np.log(inner)
    # With the norm's own exponent inside, a strong pull outwards does not overflow.
    return np.where(g > 0.0, g * np.exp(slope * np.maximum(g, 0.0) - bend * g**2 - log_norm), 0.0)


def stationary_gap(*, kappa2: float, pull: float, damping: float = 0.0) -> StationaryGap:
    """Where the stationary gap lies; without damping mode 2, median 3.36, mean 4 times kappa^2 / |pull|.

    Raises:
        SettingError: As :func:`stationary_density`.

    >>> law = stationary_gap(kappa2=1.0, pull=-1.0)
    >>> round(law.mode, 6), round(law.median, 3), round(law.mean, 6)
    (2.0, 3.357, 4.0)
    """
    _check_stationary(kappa2, pull, damping)
    mode = _mode(kappa2, pull, damping)

    def density(g: float) -> float:
        return float(stationary_density(g, kappa2=kappa2, pull=pull, damping=damping))

    # The narrower of the two widths that bound the law, about the mode; 60 of them hold all but rounding.
    widths = [2.0 * kappa2 / -pull] if pull < 0.0 else []
    widths += [np.sqrt(2.0 * kappa2 / damping)] if damping > 0.0 else []
    width = min(widths)
    low, high = max(0.0, mode - 60.0 * width), mode + 60.0 * width
    options = {"limit": 400, "epsabs": 0.0, "epsrel": 1e-10}
    mean = sum(quad(lambda g: g * density(g), *part, **options)[0] for part in ((low, mode), (mode, high)))
    below = quad(density, low, mode, **options)[0]

    def excess(g: float) -> float:
        return below + quad(density, mode, g, limit=400)[0] - 0.5

    median = brentq(excess, low, high, xtol=1e-12 * high, rtol=1e-10)
    return StationaryGap(mode, float(median), float(mean), 2.0 * kappa2 / abs(pull) if pull else np.inf)


def _mode(kappa2: float, pull: float, damping: float) -> float:
    # Root of 2 kappa^2 / g + pull - damping g, in the form that does not cancel.
    root = np.sqrt(pull**2 + 8.0 * kappa2 * damping)
    return float((pull + root) / (2.0 * damping)) if pull > 0.0 else float(4.0 * kappa2 / (root - pull))


def _check_stationary(kappa2: float, pull: float, damping: float) -> None:
    check_model(kappa2, damping)
    if damping == 0.0 and not pull < 0.0:
        raise SettingError(f"Without damping the pull must be negative; got {pull}. Else the gap grows for ever.")
