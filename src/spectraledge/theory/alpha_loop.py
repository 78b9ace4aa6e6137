"""Feedback between coherence and gap: coherent directions widen the gap, a wide gap keeps directions coherent.

A model, not a measurement: alpha that is computed from the gap makes the loop true by definition. What data can
refute is its hysteresis, see :mod:`spectraledge.theory.hysteresis`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def loop_spectrum(alpha: ArrayLike, window: int = 10) -> Array:
    """Eigenvalues of ``G_ab = alpha^|a - b|``, unit updates whose successive overlap is alpha.

    Args:
        alpha: (...) in [0, 1].
        window: W.

    Returns:
        (..., W) descending, sum W. Source: derived.

    Raises:
        SettingError: If alpha is not in [0, 1] or window is below 2.

    >>> lam = loop_spectrum(0.9)
    >>> float(lam[0].round(3)), float(np.sqrt(lam[0] / lam[1]).round(3))
    (7.307, 2.247)
    """
    alpha = np.asarray(alpha, dtype=np.float64)
    if window < 2 or np.any((alpha < 0.0) | (alpha > 1.0)):
        raise SettingError(
            f"alpha must lie in [0, 1] and window be at least 2; got window {window}. Pass an overlap."
        )
    index = np.arange(window)
    lag = np.abs(index[:, None] - index)
    known = np.isfinite(alpha)[..., None, None]
    matrix = np.where(known, alpha[..., None, None], 0.0) ** lag
    return np.where(known[..., 0], np.linalg.eigvalsh(matrix)[..., ::-1], np.nan)


def loop_gap(alpha: ArrayLike, window: int = 10) -> Array:
    """gamma(alpha) = lambda_1 - lambda_2 of :func:`loop_spectrum` (...), in energies of one update."""
    lam = loop_spectrum(alpha, window)
    return lam[..., 0] - lam[..., 1]


def loop_map(alpha: ArrayLike, epsilon: ArrayLike, window: int = 10, *, background: float = 0.0) -> Array:
    """Next alpha = max(background, 1 - epsilon^2 / gamma(alpha)^2).

    Args:
        alpha: (...) in [0, 1].
        epsilon: (...) change ||Delta M|| of the window in energies of one update.
        window: W.
        background: Coherence that is there without the loop (a steady drift, momentum).

    Returns:
        (...) in [background, 1]. Source: derived from the paper's stability coefficient (arXiv:2603.28964).
    """
    gap, eps = loop_gap(alpha, window), np.asarray(epsilon, dtype=np.float64)
    gap, eps = np.broadcast_arrays(gap, eps)
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(eps == 0.0, 0.0, eps**2 / gap**2)
    return np.where(np.isnan(lost), np.nan, np.maximum(background, 1.0 - lost))


@dataclass(frozen=True)
class FixedPoint:
    """A value of alpha that the map keeps: ``slope`` of the map there, stable if below 1 in size."""

    alpha: float
    slope: float

    @property
    def stable(self) -> bool:
        """Whether small deviations shrink."""
        return abs(self.slope) < 1.0


def saddle_node(window: int = 10) -> tuple[float, float]:
    """Largest epsilon with a coherent state, and its alpha: above it the gap must collapse.

    Nonzero fixed points solve ``epsilon = gamma(alpha) sqrt(1 - alpha)``, whose maximum this is. Source: derived.

    >>> [round(x, 3) for x in saddle_node()]
    [1.855, 0.906]
    """
    best = minimize_scalar(
        lambda a: -_level(a, window), bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12}
    )
    return float(-best.fun), float(best.x)


def fixed_points(epsilon: float, window: int = 10) -> list[FixedPoint]:
    """All fixed points of :func:`loop_map` without background, ascending: 0, and up to two more.

    Args:
        epsilon: > 0.
        window: W.

    Raises:
        SettingError: If epsilon is not positive.

    >>> [(round(p.alpha, 2), p.stable) for p in fixed_points(1.0)]
    [(0.0, True), (0.68, False), (0.99, True)]
    """
    if not epsilon > 0.0:
        raise SettingError(f"epsilon must be positive; got {epsilon}. Without change every alpha becomes 1.")
    top, at = saddle_node(window)
    points = [FixedPoint(0.0, 0.0)]
    if epsilon < top:
        for low, high in ((0.0, at), (at, 1.0)):
            alpha = float(brentq(lambda a: _level(a, window) - epsilon, low, high, xtol=1e-14))
            points.append(FixedPoint(alpha, _slope(alpha, epsilon, window)))
    return points


def _level(alpha: float, window: int) -> float:
    return float(loop_gap(alpha, window)) * np.sqrt(1.0 - alpha)


def _slope(alpha: float, epsilon: float, window: int) -> float:
    """2 epsilon^2 gamma' / gamma^3, with gamma' = u_1^T G' u_1 - u_2^T G' u_2."""
    index = np.arange(window)
    lag = np.abs(index[:, None] - index)
    lam, u = np.linalg.eigh(alpha**lag)
    derivative = lag * alpha ** np.maximum(lag - 1, 0)
    rates = np.einsum("aj,ab,bj->j", u[:, -2:], derivative, u[:, -2:])
    return float(2.0 * epsilon**2 * (rates[1] - rates[0]) / (lam[-1] - lam[-2]) ** 3)
