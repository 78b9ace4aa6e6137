"""Continuous piecewise-linear fits with 0, 1 and 2 breaks, for many series on the same times at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]

_CHUNK = 4_000_000  # numbers multiplied at once: 32 MB
_MOST_PAIRS = 60  # candidates for a break; more are thinned out evenly, since pairs grow as their square


@dataclass(frozen=True)
class PiecewiseFit:
    """Best fits of one or many series.

    Attributes:
        rss: (..., 3) residual sum of squares with 0, 1, 2 breaks.
        bic: (..., 3) Bayesian information criterion.
        n_breaks: (...) the number with the smallest.
        breakpoints: tuple of 3 arrays (..., m), m = 0, 1, 2, in the unit of the times.
        slopes: tuple of 3 arrays (..., m + 1) [unit of y / unit of the times].
    """

    rss: Array
    bic: Array
    n_breaks: NDArray[np.int64]
    breakpoints: tuple[Array, Array, Array]
    slopes: tuple[Array, Array, Array]


class PiecewiseModel:
    """All candidate breaks on given times, factorised once.

    ``y = a + b t + sum_i c_i (t - tau_i)_+``. Breaks lie on the times themselves, at least ``smallest`` points
    from each other and from the ends.

    Args:
        times: (T,) strictly increasing.
        smallest: Points in the shortest piece, at least 2; W or more for series of windows.

    Raises:
        SettingError: If times do not increase or are too few for three pieces.
    """

    def __init__(self, times: ArrayLike, *, smallest: int = 3) -> None:
        t = np.asarray(times, dtype=np.float64)
        if t.ndim != 1 or not np.isfinite(t).all() or np.any(np.diff(t) <= 0) or smallest < 2:
            raise SettingError(
                f"times must be (T,), finite and increasing, and smallest at least 2; got shape {t.shape} and "
                f"{smallest}. Sort them."
            )
        if len(t) < 3 * smallest + 1:
            raise SettingError(
                f"times must hold at least {3 * smallest + 1} points for three pieces of {smallest}; got {len(t)}. "
                "Record more windows or use a smaller piece."
            )
        self.times = t
        inner = np.arange(smallest, len(t) - smallest)
        if len(inner) > _MOST_PAIRS:
            inner = inner[np.unique(np.linspace(0, len(inner) - 1, _MOST_PAIRS).round().astype(int))]
        pairs = [(i, j) for i, j in combinations(inner, 2) if j - i >= smallest]
        self._breaks = [np.zeros((1, 0)), t[inner][:, None], t[np.array(pairs)]]
        # Centred and scaled: raw optimizer steps squared would cost digits.
        self._centre, self._scale = t.mean(), np.ptp(t)
        self._designs = [self._design(breaks) for breaks in self._breaks]
        self._bases = [np.linalg.qr(design)[0] for design in self._designs]

    def _design(self, breaks: Array) -> Array:
        u = (self.times - self._centre) / self._scale
        tau = (breaks - self._centre) / self._scale
        line = np.broadcast_to(np.stack([np.ones_like(u), u], axis=-1), (len(breaks), len(u), 2))
        return np.concatenate([line, np.maximum(u[None, :, None] - tau[:, None, :], 0.0)], axis=-1)

    def fit(self, y: ArrayLike, *, n_effective: float | None = None) -> PiecewiseFit:
        """Least squares over all candidates.

        ``BIC = n log(RSS / T) + p log n`` with p = 2, 4, 6 (a coefficient and a position for each break) and n
        the effective number of points: with T instead of T / W for overlapping windows, BIC finds breaks in
        every smooth series.

        Args:
            y: (..., T).
            n_effective: n; T where None.

        Returns:
            The fits; NaN throughout for a series with a missing value (``n_breaks`` -1).

        Raises:
            SettingError: If y has another length or n is not above 1.
        """
        y = np.asarray(y, dtype=np.float64)
        n_points = len(self.times)
        n = float(n_points) if n_effective is None else float(n_effective)
        if y.shape[-1:] != (n_points,) or not n > 1.0:
            raise SettingError(f"y must be (..., {n_points}) and n_effective above 1; got shape {y.shape} and {n}.")
        lead = y.shape[:-1]
        flat = y.reshape(-1, n_points)
        known = np.isfinite(flat).all(axis=-1)
        safe = np.where(known[:, None], flat, 0.0)
        centred = safe - safe.mean(axis=-1, keepdims=True)
        energy = np.square(centred).sum(axis=-1)
        rss, breakpoints, slopes = [], [], []
        for breaks, design, basis in zip(self._breaks, self._designs, self._bases, strict=True):
            best, best_at = np.full(len(flat), np.inf), np.zeros(len(flat), dtype=np.int64)
            rows = max(1, _CHUNK // (len(flat) * basis.shape[-1]))
            for start in range(0, len(breaks), rows):
                part = np.einsum("ctp,nt->ncp", basis[start : start + rows], centred, optimize=True)
                left = energy[:, None] - np.square(part).sum(axis=-1)
                at = np.argmin(left, axis=-1)
                value = left[np.arange(len(flat)), at]
                best_at = np.where(value < best, at + start, best_at)
                best = np.minimum(best, value)
            rss.append(np.where(known, np.maximum(best, 0.0), np.nan))
            chosen = design[best_at]
            coefficients = (np.linalg.pinv(chosen) @ centred[..., None])[..., 0]
            slope = np.cumsum(coefficients[:, 1:], axis=-1) / self._scale
            breakpoints.append(np.where(known[:, None], breaks[best_at], np.nan).reshape(*lead, breaks.shape[-1]))
            slopes.append(np.where(known[:, None], slope, np.nan).reshape(*lead, slope.shape[-1]))
        residual = np.stack(rss, axis=-1)
        # Rounding level of the energy stands for a perfect fit, whose logarithm would be -inf.
        floor = np.maximum(energy * 1e-14, np.finfo(np.float64).tiny)[:, None]
        bic = n * np.log(np.maximum(residual, floor) / n_points) + np.array([2.0, 4.0, 6.0]) * np.log(n)
        number = np.where(known, np.argmin(np.where(known[:, None], bic, 0.0), axis=-1), -1)
        return PiecewiseFit(
            residual.reshape(*lead, 3),
            bic.reshape(*lead, 3),
            number.reshape(lead),
            (breakpoints[0], breakpoints[1], breakpoints[2]),
            (slopes[0], slopes[1], slopes[2]),
        )

    def values(self, y: ArrayLike, n_breaks: int, breakpoints: ArrayLike) -> Array:
        """Fitted values (T,) of one series with given breaks."""
        y = np.asarray(y, dtype=np.float64)
        design = self._design(np.asarray(breakpoints, dtype=np.float64).reshape(1, n_breaks))[0]
        return design @ np.linalg.lstsq(design, y, rcond=None)[0]
