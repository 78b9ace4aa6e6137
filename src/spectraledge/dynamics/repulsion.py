"""Level repulsion on a recording: spacing of levels, and avoided crossings, each against noise with the same W."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from ..recording.derive import check_window
from ..recording.select import BlockChoice
from ..theory.avoided_crossing import CrossingTest, gram_crossings
from ..theory.dyson import Coupling, kappa_squared
from ..theory.gap_law import StationaryGap, stationary_gap
from ..theory.spacing_null import SpacingTest, spacing_test
from ..theory.surrogates import NullKind, fit_null
from .columns import known_mean
from .flows import record_windows
from .stretches import NULLS, stretches

SPACING_NULLS: tuple[NullKind, ...] = ("norm_matched", "constant_drift", "smooth_drift")
_LEAST_CLOSURE = 0.5


@dataclass(frozen=True, eq=False)
class DysonTests:
    """Repulsion of neighbouring levels.

    Attributes:
        spacing: Null to the test of spacing ratios of all disjoint windows.
        crossings: Null to the test of avoided crossings at ``position``.
        position: k of the pair, the most frequent k* unless asked for; 0 for none.
        closure: Mean share of the pair's plane that is kept through a minimum; below 1/2 the pair mixes with
            others and two levels are no model of it.
        coupling: kappa^2 of every pair of neighbours over the run, and whether one kappa describes both its noise
            and its repulsion (``diagonal_ratio`` 1).
        stationary: What a gap of eigenvalues with this kappa and the mean pull of the run would settle at; None
            where nothing pulls it together.
        skip: Largest levels left out of the spacing.
        notes: What is missing or was assumed.
    """

    spacing: dict[str, SpacingTest]
    crossings: dict[str, CrossingTest]
    position: int
    closure: float
    coupling: Coupling | None
    stationary: StationaryGap | None
    skip: int
    notes: tuple[str, ...] = field(default=())

    def rows(self) -> list[dict[str, Any]]:
        """One plain row a test and null."""
        rows: list[dict[str, Any]] = [
            {
                "test": "spacing ratio",
                "null": name,
                "observed": s.observed,
                "null_mean": s.null_mean,
                "null_sd": s.null_sd,
                "p_value": s.p_value,
                "n": s.n_windows,
            }
            for name, s in self.spacing.items()
        ]
        for name, c in self.crossings.items():
            usable = c.null[np.isfinite(c.null)]
            rows.append(
                {
                    "test": "avoided crossing",
                    "null": name,
                    "observed": c.misfit,
                    "null_mean": float(usable.mean()) if len(usable) else float("nan"),
                    "null_sd": float(usable.std(ddof=1)) if len(usable) > 1 else float("nan"),
                    "p_value": c.p_value,
                    "n": c.n_minima,
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """Plain types."""
        k = self.position - 1
        known = self.coupling is not None and self.position > 0
        return {
            "tests": self.rows(),
            "k_star": self.position,
            "closure": self.closure,
            "kappa2": float(self.coupling.kappa2[k]) if known and self.coupling else float("nan"),
            "diagonal_ratio": float(self.coupling.diagonal_ratio[k]) if known and self.coupling else float("nan"),
            "stationary_median": self.stationary.median if self.stationary else float("nan"),
            "skip": self.skip,
            "notes": list(self.notes),
        }


def dyson_tests(
    recording: Recording,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    *,
    position: int | None = None,
    skip: int = 1,
    n_draws: int = 99,
    seed: int = 0,
) -> DysonTests:
    """Do levels repel as those of noise do, and does a narrow gap exchange its directions as two levels would?

    Spacing ratios of W = 10 levels have no universal value: they are compared with surrogates of the same row
    norms, effective dimension and momentum, without drift, with a constant and with a turning one, fitted to the
    mean cosines of all windows (one kernel for the run: a run whose coherence changes much departs from it for
    that reason alone). Avoided crossings: at minima of the gap at the most frequent k*, the angle by which the pair
    turned within W // 2 windows on either side against that of two coupled levels with the same gaps; noise turns
    modes through large angles too, so that only a fit better than the surrogates' counts.

    Args:
        recording: T updates.
        window: Rows W of a window, at least ``skip + 3``.
        block: Block or union.
        stride: Updates in a row.
        position: k of the pair whose crossings are tested, 1..W - 1; None takes the most frequent k*.
        skip: Largest levels left out of the spacing; 1 leaves out that of the drift.
        n_draws: Surrogates of each null.
        seed: Of the surrogates.

    Returns:
        The tests; empty where no effective dimension is known. Source: arXiv:2603.28964v1-v3 (level repulsion as
        a claim), derived (nulls).

    Raises:
        SettingError: If the band is too narrow, too few levels are left, or there is no such position.
        DataError: If no window is whole.
    """
    check_window(window, stride, recording.n_updates, recording.lags)
    if position is not None and not 1 <= position < window:
        raise SettingError(f"position must lie in 1..{window - 1}; got {position}. None takes the most frequent k*.")
    series, of_window = record_windows(recording, window, block, stride)
    if not np.isfinite(series.grams).all(axis=(-2, -1)).any():
        raise DataError("At least one window must be whole; none is. Use a smaller window.")
    spectra = recording.spectra(window, stride, block)
    notes: list[str] = []
    p_eff = spectra.p_eff
    spacing: dict[str, SpacingTest] = {}
    if np.isfinite(p_eff).any():
        norms = np.sqrt(np.diagonal(series.grams, axis1=-2, axis2=-1))
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = known_mean(series.grams / norms[:, :, None] / norms[:, None, :], axis=0)
        rho = np.median(spectra.row_correlation, axis=0)[:window]
        dimension = float(np.nanmedian(p_eff))
        for kind in SPACING_NULLS:
            spacing[kind] = spacing_test(
                series.grams,
                p_eff=dimension,
                row_correlation=rho,
                coherence=fit_null(kind, cosines, dimension, rho).kernel,
                skip=skip,
                n_draws=n_draws,
                rng=np.random.default_rng(seed),
            )
    else:
        notes.append("no effective dimension is known: no surrogates (more lags or a larger stride cure that)")
    known = of_window[of_window > 0]
    k = position if position is not None else int(np.bincount(known).argmax()) if len(known) else 0
    crossings, closure = _crossings(recording, window, block, stride, k, n_draws, seed, notes)
    coupling = stationary = None
    if series.blocks is not None and len(series) > 1:
        coupling = kappa_squared(series.blocks, series.time_profiles[:-1])
        stationary = _stationary(series.singular_values, coupling, k)
    return DysonTests(spacing, crossings, k, closure, coupling, stationary, skip, tuple(notes))


def _crossings(
    recording: Recording,
    window: int,
    block: BlockChoice,
    stride: int,
    position: int,
    n_draws: int,
    seed: int,
    notes: list[str],
) -> tuple[dict[str, CrossingTest], float]:
    """Misfits pooled over the stretches of a run, against surrogates of the same stretches."""
    half = max(1, window // 2)
    if not position or stride * (window + 2 * half) > recording.lags + 1:
        notes.append("no crossings: no resolved gap, or fewer lags than two windows side by side need")
        return {}, float("nan")
    parts = [p for p in stretches(recording, window, block, stride) if len(p) >= window + 2 * half + 1]
    if not parts:
        notes.append("no crossings: no stretch of two windows with a known effective dimension")
        return {}, float("nan")
    found = [gram_crossings(p.gram, window, position, half_width=half) for p in parts]
    error = np.concatenate([np.abs(c.measured - c.predicted) for c in found])
    kept = np.concatenate([c.closure for c in found])
    observed = float(known_mean(error, axis=0))
    closure = float(known_mean(kept, axis=0))
    if closure < _LEAST_CLOSURE:
        notes.append(f"the pair keeps {closure:.2f} of its plane through a minimum: two levels are no model of it")
    out: dict[str, CrossingTest] = {}
    for kind in NULLS:
        rng = np.random.default_rng(seed)
        total, count = np.zeros(n_draws), np.zeros(n_draws)
        for part in parts:
            for i, gram in enumerate(part.null(kind).sample(n_draws, rng)):
                drawn = gram_crossings(gram, window, position, half_width=half)
                miss = np.abs(drawn.measured - drawn.predicted)
                total[i] += np.nansum(miss)
                count[i] += np.isfinite(miss).sum()
        null = np.where(count > 0, total / np.maximum(count, 1.0), np.nan)
        usable = null[np.isfinite(null)]
        p = (1.0 + np.sum(usable <= observed)) / (1.0 + len(usable)) if np.isfinite(observed) else np.nan
        out[kind] = CrossingTest(observed, null, float(p), int(np.isfinite(error).sum()))
    return out, closure


def _stationary(sigma: np.ndarray, coupling: Coupling, position: int) -> StationaryGap | None:
    """Law of the eigenvalue gap with the run's kappa^2 and mean drift of the gap, repulsion taken off."""
    if not position:
        return None
    kappa2 = float(coupling.kappa2[position - 1])
    gap = sigma[:, position - 1] ** 2 - sigma[:, position] ** 2
    known = np.isfinite(gap[1:]) & np.isfinite(gap[:-1]) & (gap[:-1] > 0.0)
    if not known.any() or not kappa2 > 0.0:
        return None
    pull = float(np.mean(np.diff(gap)[known]) - np.mean(2.0 * kappa2 / gap[:-1][known]))
    return stationary_gap(kappa2=kappa2, pull=pull) if pull < 0.0 else None
