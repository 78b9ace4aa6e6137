"""Predictors from the change of the Gram itself: exact, and by perturbation theory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.perturbation import second_order_eigenvalues, shifted_spectrum
from spectraledge.theory.window_series import WindowSeries, check_horizon

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExactRankTwo:
    """Oracle: the exact effect of the updates that came, from one (W + 1)-dimensional eigenproblem.

    Equal to the truth up to rounding, for any optimizer: the change of the spectrum has no other cause. The
    yardstick of what a flow equation could at best explain, not a competitor.
    """

    name: str = "exact_rank2"
    oracle: bool = True

    def fit(self, history: WindowSeries, horizon: int) -> ExactRankTwo:
        """Nothing to learn."""
        return self

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """The window before the horizon, shifted by the last realised update."""
        check_horizon(horizon)
        if windows.blocks is None:
            raise SettingError("exact_rank2 needs the blocks of each window and its next update; pass blocks.")
        w = windows.window
        out = np.full(windows.singular_values.shape, np.nan)
        if len(windows) > horizon:
            last = windows.blocks[horizon - 1 :]
            out[:-horizon] = shifted_spectrum(last[:, :w, :w], last[:, w, :w], last[:, w, w])
        return out


@dataclass(frozen=True)
class RankTwo:
    """Perturbation theory with the cyclic change of the Gram: ``lambda_j + u_j^T Delta u_j (+ repulsion)``.

    ``rows="realised"`` (oracle) puts in the updates that came. ``rows="expected"`` (causal) puts in their
    expectation if the window's drift goes on: the product of a new update with row c is the mean of that of c
    with the other rows, that of two new ones the mean of all pairs, its energy that of the rows. (The mean of
    the rows themselves would count the noise of row c in its product, and miss the noise in the energy.)

    Order 2 adds level repulsion; order 0 diagonalises the changed Gram. The series holds for modes whose gap
    exceeds twice the size of the change: for the drift of strength 1 in noise of norm 1 (W = 10, next window)
    realised rows leave 0.4 % of the square error of persistence, but for noise modes both orders are worse than
    persistence. Expected rows of order 0 lack the noise of the rows to come, which spreads levels: too flat a
    spectrum beyond a few snapshots.
    """

    rows: Literal["realised", "expected"] = "expected"
    order: Literal[0, 1, 2] = 1
    name: str = "rank2_first_order"

    @property
    def oracle(self) -> bool:
        """True for realised rows."""
        return self.rows == "realised"

    def fit(self, history: WindowSeries, horizon: int) -> RankTwo:
        """Nothing to learn."""
        return self

    def predict(self, windows: WindowSeries, horizon: int) -> Array:
        """The perturbed spectrum; descending for order 0, else in the order of the modes of now."""
        check_horizon(horizon)
        after = _realised(windows, horizon) if self.oracle else _expected(windows, horizon)
        known = np.asarray(np.isfinite(after).all(axis=(-2, -1)))[:, None]
        change = np.where(known[..., None], after - windows.grams, 0.0)
        if self.order == 0:
            lam = np.linalg.eigvalsh(np.where(known[..., None], after, 0.0))[:, ::-1]
        elif self.order == 2:
            lam = second_order_eigenvalues(windows.singular_values, windows.time_profiles, change)
        else:
            u = windows.time_profiles
            lam = windows.singular_values**2 + np.einsum("naj,nab,nbj->nj", u, change, u)
        return np.where(known, np.sqrt(np.maximum(lam, 0.0)), np.nan)


def _realised(windows: WindowSeries, horizon: int) -> Array:
    """Grams of the windows ``horizon`` later, with each new row in the place of an old one."""
    grams = windows.grams
    out = np.full(grams.shape, np.nan)
    if len(grams) > horizon:
        # Row a of the window ends up behind the kept ones: turn the later window back into cyclic order.
        order = np.roll(np.arange(windows.window), horizon % windows.window)
        out[:-horizon] = grams[horizon:][:, order[:, None], order]
    return out


def _expected(windows: WindowSeries, horizon: int) -> Array:
    """The same for new rows as expected if the drift goes on."""
    grams, w = windows.grams, windows.window
    if w < 2:
        raise SettingError("window must be at least 2 to tell drift from noise; got 1. Use window=10.")
    energy = np.diagonal(grams, axis1=-2, axis2=-1)
    common = (grams.sum(axis=-1) - energy) / (w - 1.0)
    new = np.arange(w) < min(horizon, w)
    pair = common.mean(axis=-1)[:, None, None]
    out = np.where(new[:, None] & new, pair, np.where(new[:, None], common[:, None, :], grams))
    out = np.where(~new[:, None] & new, common[:, :, None], out)
    index = np.flatnonzero(new)
    out[:, index, index] = energy.mean(axis=-1)[:, None]
    return out
