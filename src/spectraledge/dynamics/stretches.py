"""Stretches of a run without a hole, each with nulls fitted to its own rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..recording import Recording
from ..recording.select import BlockChoice
from ..theory.noise import momentum_row_correlation
from ..theory.surrogates import NullModel, fit_null
from .windows import grams_ending_at

NullName = Literal["norm_matched", "constant_drift"]
NULLS: tuple[NullName, ...] = ("norm_matched", "constant_drift")

_ROWS = 48  # rows of a stretch: histories of more cost their square, and few cover any run
_MOST = 6


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive rows, all there.

    Attributes:
        start: Index of the first row.
        gram: (n, n) products; NaN beyond the recorded lags [parameter^2].
        p_eff: Effective dimension of the noise: median over the windows inside.
        row_correlation: (n) correlation of rows that momentum makes.
    """

    start: int
    gram: np.ndarray
    p_eff: float
    row_correlation: np.ndarray

    def __len__(self) -> int:
        return len(self.gram)

    def null(self, kind: NullName) -> NullModel:
        """A null with these rows' norms, dimension and momentum; see ``theory.surrogates.fit_null``."""
        return fit_null(kind, self.gram, self.p_eff, self.row_correlation)


def stretches(recording: Recording, window: int, block: BlockChoice = "all", stride: int = 1) -> list[Stretch]:
    """Up to six stretches of about 48 rows (4 windows for long ones), spread evenly over the run.

    A null is drawn for whole histories, since neighbouring windows share rows; cutting a long run into
    stretches keeps that affordable and lets norms, dimension and drift change with time.

    Args:
        recording: The run.
        window: Rows W of a window.
        block: Block or union.
        stride: Updates in a row.

    Returns:
        Stretches of at least 2 W rows whose effective dimension is known; none where no such stretch is there.
    """
    band = recording.band(block, stride=stride)
    spectra = recording.spectra(window, stride, block)
    n_rows = len(band)
    steps = recording.n_steps[: n_rows * stride].reshape(n_rows, stride).sum(axis=1)
    beta = recording._momentum()[stride - 1 :: stride][:n_rows]
    found = []
    for first, last in _whole(band, np.stack([beta, steps], axis=1)):
        for part in np.array_split(np.arange(first, last), max(1, (last - first) // max(_ROWS, 4 * window))):
            if len(part) < 2 * window:
                continue
            p_eff = spectra.p_eff[part[window - 1 :] - (window - 1)]
            if not np.isfinite(p_eff).any():
                continue
            found.append(
                Stretch(
                    start=int(part[0]),
                    gram=grams_ending_at(band, len(part), part[-1:])[0],
                    p_eff=float(np.nanmedian(p_eff)),
                    row_correlation=momentum_row_correlation(float(beta[part[0]]), int(steps[part[0]]), len(part)),
                )
            )
    kept = np.unique(np.rint(np.linspace(0, len(found) - 1, min(len(found), _MOST))).astype(int))
    return [found[i] for i in kept]


def _whole(band: np.ndarray, kind: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of rows that are there, joined to one another, and of one kind."""
    there = band[:, 0] > 0.0
    joined = np.isfinite(band[:, 1]) & there if band.shape[1] > 1 else np.zeros(len(band), dtype=bool)
    out: list[tuple[int, int]] = []
    for t in np.flatnonzero(there):
        if out and out[-1][1] == t and joined[t] and np.array_equal(kind[t], kind[t - 1]):
            out[-1] = (out[-1][0], int(t) + 1)
        else:
            out.append((int(t), int(t) + 1))
    return out
