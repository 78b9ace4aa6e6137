"""Predictors of the spectrum ``horizon`` snapshots ahead, with one interface.

Row n of a prediction speaks of window n + horizon and uses windows up to n only, except for oracles, which are
given the updates that came and show how much of the future is in them. Those with parameters learn them
in ``fit`` from the history that they are handed. See :mod:`spectraledge.theory.forecast` for the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.rank_two import ExactRankTwo, RankTwo
from spectraledge.theory.signal_flow import linear_flow
from spectraledge.theory.window_series import WindowSeries, check_horizon, future

Array = NDArray[np.float64]

__all__ = ["Ar1", "Drift", "ExactRankTwo", "GapFlow", "Persistence", "Predictor", "RankTwo", "SignalFlow"]


class Predictor(Protocol):
    """What every predictor offers."""

    @property
    def name(self) -> str:
        """Short name, unique in a comparison."""

    @property
    def oracle(self) -> bool:
        """Whether it is given updates that come after the window it predicts from."""

    def fit(self, history: WindowSeries, horizon: int) -> Predictor:
        """A copy that has learned its parameters from ``history``; itself if it has none."""

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """(N, W) singular values of window n + horizon [parameter]; NaN where there is no prediction."""


@dataclass(frozen=True)
class Persistence:
    """Nothing changes."""

    name: str = "persistence"
    oracle: bool = False

    def fit(self, history: WindowSeries, horizon: int) -> Persistence:
        """Nothing to learn."""
        return self

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """sigma of now."""
        check_horizon(horizon)
        return windows.singular_values.copy()


@dataclass(frozen=True)
class Ar1:
    """Every sigma_j returns to its mean: ``mean + phi^H (sigma - mean)``, phi of successive windows in [-1, 1]."""

    mean: Array | None = None
    phi: Array | None = None
    name: str = "ar1"
    oracle: bool = False

    def fit(self, history: WindowSeries, horizon: int) -> Ar1:
        """Least squares on successive windows of the history, one mode at a time; phi = 1 without enough of them."""
        x, y = history.singular_values, future(history.singular_values, 1)
        known = np.isfinite(x) & np.isfinite(y)
        n = np.maximum(known.sum(axis=0), 1)
        mean_x, mean_y = (np.where(known, z, 0.0).sum(axis=0) / n for z in (x, y))
        a, b = np.where(known, x - mean_x, 0.0), np.where(known, y - mean_y, 0.0)
        scatter = np.square(a).sum(axis=0)
        usable = (known.sum(axis=0) >= 3) & (scatter > 0.0)
        phi = np.where(usable, (a * b).sum(axis=0) / np.where(usable, scatter, 1.0), 1.0)
        phi = np.clip(phi, -1.0, 1.0)
        # The level that y = mean_y + phi (x - mean_x) keeps; none for phi = 1, where it is not used.
        level = np.where(phi < 1.0, (mean_y - phi * mean_x) / np.where(phi < 1.0, 1.0 - phi, 1.0), mean_x)
        return replace(self, mean=level, phi=phi)

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """The conditional mean."""
        check_horizon(horizon)
        if self.mean is None or self.phi is None:
            raise SettingError("ar1 must be fitted before it predicts; it has no parameters. Call fit on the past.")
        return np.maximum(self.mean + self.phi**horizon * (windows.singular_values - self.mean), 0.0)


@dataclass(frozen=True)
class Drift:
    """Each sigma_j goes on along its straight line over the last ``length`` windows (None: W)."""

    length: int | None = None
    name: str = "drift"
    oracle: bool = False

    def fit(self, history: WindowSeries, horizon: int) -> Drift:
        """Nothing to learn."""
        return self

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """Least-squares line through the last windows, from today's value on; at least 0."""
        check_horizon(horizon)
        length = windows.window if self.length is None else self.length
        if length < 2:
            raise SettingError(f"length must be at least 2; got {length}. A line needs two windows.")
        sigma = windows.singular_values
        out = np.full(sigma.shape, np.nan)
        if len(sigma) >= length:
            weights = np.arange(length) - 0.5 * (length - 1)
            weights /= np.square(weights).sum()
            past = np.lib.stride_tricks.sliding_window_view(sigma, length, axis=0)
            out[length - 1 :] = np.maximum(sigma[length - 1 :] + horizon * (past @ weights), 0.0)
        return out


@dataclass(frozen=True)
class SignalFlow:
    """The signal flow with the coefficients measured at each window held constant over the horizon.

    Attributes:
        rate: (N, k) of d^2 for the first k modes, from
            :func:`spectraledge.theory.signal_flow.flow_coefficients` (strict or author) [1 / step].
        source: (N, k) [parameter^2 / step]. Row n must not use what came after window n: take the injection N
            of the interval before.
        stride: Optimizer steps per snapshot.
    """

    rate: ArrayLike
    source: ArrayLike
    stride: int = 1
    name: str = "signal_flow"
    oracle: bool = False

    def fit(self, history: WindowSeries, horizon: int) -> SignalFlow:
        """Nothing to learn: all coefficients are measured."""
        return self

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """Closed form for constant coefficients; NaN for modes beyond k."""
        check_horizon(horizon)
        a, b = (np.asarray(x, dtype=np.float64) for x in (self.rate, self.source))
        sigma = windows.singular_values
        if a.ndim != 2 or a.shape != b.shape or len(a) != len(sigma) or a.shape[1] > sigma.shape[1]:
            raise SettingError(
                f"rate and source must be (N, k) for {sigma.shape} windows; got {a.shape} and {b.shape}. "
                "Give NaN where nothing was measured."
            )
        out = np.full(sigma.shape, np.nan)
        k = a.shape[1]
        out[:, :k] = np.sqrt(np.maximum(linear_flow(sigma[:, :k] ** 2, a, b, horizon * self.stride), 0.0))
        return out


@dataclass(frozen=True)
class GapFlow:
    """The gap flow with constant pull and damping; the mean of the two modes stays.

    Attributes:
        position: (N) k of each window, 0 for none.
        pull: (N) c of dg/dt = c - gamma g, from :func:`spectraledge.theory.gap_flow.gap_terms`
            (``terms.pull``, plus ``terms.repulsion`` if wanted) [parameter / step].
        rate: (N) gamma [1 / step].
        stride: Optimizer steps per snapshot.
    """

    position: ArrayLike
    pull: ArrayLike
    rate: ArrayLike
    stride: int = 1
    name: str = "gap_flow"
    oracle: bool = False

    def fit(self, history: WindowSeries, horizon: int) -> GapFlow:
        """Nothing to learn: all coefficients are measured."""
        return self

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """sigma_k and sigma_{k+1}, at least 0 and in order; NaN for the other modes."""
        check_horizon(horizon)
        sigma = windows.singular_values
        k = np.asarray(self.position, dtype=np.int64)
        c, gamma = (np.broadcast_to(np.asarray(x, dtype=np.float64), (len(sigma),)) for x in (self.pull, self.rate))
        if k.shape != (len(sigma),) or np.any((k < 0) | (k >= sigma.shape[1])):
            raise SettingError(
                f"position must hold {len(sigma)} values in 0..{sigma.shape[1] - 1}; got shape {k.shape}. "
                "Use gap_position of each window."
            )
        out = np.full(sigma.shape, np.nan)
        n = np.flatnonzero(k > 0)
        upper, lower = sigma[n, k[n] - 1], sigma[n, k[n]]
        g = np.maximum(linear_flow(upper - lower, gamma[n], c[n], horizon * self.stride), 0.0)
        middle = 0.5 * (upper + lower)
        g = np.minimum(g, 2.0 * middle)
        out[n, k[n] - 1], out[n, k[n]] = middle + 0.5 * g, middle - 0.5 * g
        return out
