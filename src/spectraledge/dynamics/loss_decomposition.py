"""What each mode does to the validation loss, how much of the next change they hold, and whether alpha helps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from ..theory.alpha import AlphaKind
from ..theory.bootstrap import BootstrapInterval
from ..theory.calibration import Calibration
from ..theory.loss import LossDecomposition, in_sample_contributions
from ..theory.loss import loss_decomposition as put_together
from ..theory.projections import chance_coverage, span_coverage
from ..theory.stability import Mode, check_mode
from .columns import Table, columns, known_median, plain_interval, time_interval
from .forecasts import Forecasts, forecasts
from .loss_tests import AlphaTest, alpha_tests, calibrate_forecasts
from .probed import HINT, Probed, probed

_BOOT_COVERAGE = 1000


@dataclass(frozen=True, eq=False)
class LossReport:
    """The change of the validation loss behind N probes, split over the modes of the window before it [loss].

    Attributes:
        steps: (N) optimizer step of each probe.
        in_sample: (N, W) <v_j, g_val> <v_j, delta_t>: of the update that led to the probe.
        in_total: (N) <g_val, delta_t>.
        in_error: (N) |sum of in_sample and what unresolved modes leave - in_total| over the sum of absolute terms.
        decomposition: Of the next update: contributions (N, k), first order, second order, measured, remainder
            and coverage; see ``theory.loss_decomposition``.
        forecasts: Forecasts by mode and without modes.
        predicted: Name to (N) forecast of the measured change, k modes where it has any.
        gradient_coverage: (N) share of ||g_val||^2 inside the span of the k modes, ``chance`` (N) what an
            unrelated span has.
        calibration: Of all forecasts on the windows that have them all, in the order of ``calibrated``; None
            where no loss was measured.
        calibrated: Names of the columns of ``calibration``.
        alpha_tests: Name of a stability coefficient to what weighting by it gains.
        pooled_coverage: Least-squares share of the first-order change that the k modes hold, with interval.
        k: Modes kept.
        mode: ``strict`` or ``author``.
        notes: What is missing and why.
    """

    steps: np.ndarray
    in_sample: np.ndarray
    in_total: np.ndarray
    in_error: np.ndarray
    decomposition: LossDecomposition
    forecasts: Forecasts
    predicted: dict[str, np.ndarray]
    gradient_coverage: np.ndarray
    chance: np.ndarray
    calibration: Calibration | None
    calibrated: tuple[str, ...]
    alpha_tests: dict[AlphaKind, AlphaTest]
    pooled_coverage: BootstrapInterval
    k: int
    mode: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a probe; ``out_1`` is the contribution of v_1 to the next change."""
        d = self.decomposition
        table: Table = {
            "step": self.steps,
            "measured": d.measured,
            "first_order": d.first_order,
            "second_order": d.second_order,
            "coverage": d.coverage,
            "remainder": d.remainder,
            "gradient_coverage": self.gradient_coverage,
            "chance": self.chance,
            "in_total": self.in_total,
            "in_error": self.in_error,
        }
        table |= columns("in", self.in_sample) | columns("out", d.contributions)
        table |= {f"predicted_{name}": values for name, values in self.predicted.items()}
        for kind, alpha in self.forecasts.alpha.items():
            table |= columns(f"alpha_{kind}", alpha)
        return table

    def summary(self) -> dict[str, Any]:
        """Coverage, calibration of every forecast and what alpha adds."""
        fit = self.calibration
        by_forecast = {}
        for i, name in enumerate(self.calibrated if fit is not None else ()):
            assert fit is not None
            by_forecast[name] = {
                "slope": plain_interval(fit.slope, i),
                "slope_zero": plain_interval(fit.slope_zero, i),
                "r2_zero": plain_interval(fit.r2_zero, i),
                "r2_mean": plain_interval(fit.r2_mean, i),
                "spearman": plain_interval(fit.spearman, i),
                "advantage_of_alpha_1": plain_interval(fit.advantage, i),
            }
        return {
            "mode": self.mode,
            "k": self.k,
            "n_probes": len(self.steps),
            "in_sample_error": _largest(self.in_error),
            "coverage": plain_interval(self.pooled_coverage),
            "gradient_coverage": known_median(self.gradient_coverage),
            "chance_coverage": known_median(self.chance),
            "calibration_n": 0 if fit is None else fit.n,
            "calibration_status": "no measured change" if fit is None else fit.status,
            "forecasts": by_forecast,
            "alpha": {kind: test.summary() for kind, test in self.alpha_tests.items()},
            "notes": list(self.notes),
        }


def loss_decomposition(
    recording: Recording, k: int | None = None, mode: Mode = "strict", *, n_boot: int = 1000, seed: int = 0
) -> LossReport:
    """Split the change of the validation loss over modes, and compare forecasts with what came about.

    In sample the split of <g_val, delta_t> is an identity. Out of sample, with the modes of the window before
    the update, it holds what the past span holds (``coverage``). The published form -lr_sum alpha_j G_j^train
    G_j^val is a forecast of the same; along v_j(t-) the product at alpha = 1 already is the first-order change
    of plain SGD, so that alpha has no derivation there and is tested for what it adds. ``strict`` weights by
    ``overlap2_lagW``, ``overlap2_lag1`` and ``dk``, ``author`` by the published readings ``dk_dlam``, ``dk_f``
    and ``half_cos``; all of them are known at the probe. Learning rates are those of the next update.

    Args:
        recording: With probes that have a validation loss.
        k: Modes kept, all W by default.
        mode: ``strict`` or ``author``.
        n_boot: Resamples of blocks of probes that share no update.
        seed: Of the resamples.

    Returns:
        Arrays over probes, coverage, calibration and tests. Source: arXiv:2603.28964v1-v3 (the weighted form),
        derived (identities, coverage, tests).

    Raises:
        SettingError: If the mode is unknown or k is not in 1..W.
        DataError: If no probe has a validation loss and a next update.
    """
    check_mode(mode)
    at = probed(recording, followed=True)
    if not any("val" in probe.vectors for probe in at.probes):
        raise DataError(f"A loss decomposition needs a validation loss at the probes; none was given. {HINT}")
    k = at.window if k is None else k
    if not 1 <= k <= at.window:
        raise SettingError(f"k must lie in 1..{at.window}, the number of modes; got {k}. Use k*, or leave it out.")
    on_window = at.on_window(np.stack([p.on_updates("val")[: at.window] for p in at.probes]))
    inside, rest = in_sample_contributions(on_window, at.gram, update_eps=recording.update_eps)
    total = on_window[:, -1]
    found = forecasts(recording, at, mode)
    first = np.array([p.on_next("val") for p in at.probes])
    later = np.array([_next_gradient(p.next_gradient_products) for p in at.probes])
    measured = np.array([p.next_val_loss - p.val_loss for p in at.probes])
    parts = put_together(found.out, first, curvature=later - first, measured=measured, k=k)
    predicted = _predicted(found, parts, k)
    norm2 = np.array([p.dot("val", "val") for p in at.probes])
    notes = [f"{name}: not known at any probe" for name, x in predicted.items() if not np.isfinite(x).any()]
    if not np.isfinite(measured).any():
        notes.append("no change of the validation loss was measured: no calibration")
    usable = {name: x for name, x in predicted.items() if np.isfinite(x).any()}
    calibration = None
    if np.isfinite(measured).any() and usable:
        calibration = calibrate_forecasts(usable, measured, block=at.block, n_boot=n_boot, seed=seed)
    if calibration is not None and calibration.status != "ok":
        notes.append(f"{calibration.n} probes in blocks of {at.block} that share no update: {calibration.status}")
    return LossReport(
        steps=at.steps(),
        in_sample=inside,
        in_total=total,
        in_error=_identity_error(inside, rest, total),
        decomposition=parts,
        forecasts=found,
        predicted=predicted,
        gradient_coverage=span_coverage(found.val, norm2, k),
        chance=chance_coverage(k, _p_eff(recording, at)),
        calibration=calibration,
        calibrated=tuple(usable),
        alpha_tests=alpha_tests(found, predicted, measured, at.block, n_boot, seed),
        pooled_coverage=time_interval(
            _pooled,
            parts.captured,
            first,
            block=at.block,
            n_boot=_BOOT_COVERAGE,
            rng=np.random.default_rng(seed),
        ),
        k=k,
        mode=mode,
        notes=tuple(notes),
    )


def _predicted(found: Forecasts, parts: LossDecomposition, k: int) -> dict[str, np.ndarray]:
    """Forecasts as totals, alpha = 1 first: the calibration compares the others with it."""

    def over_modes(x: np.ndarray) -> np.ndarray:
        known = np.isfinite(x[:, :k])
        return np.where(known.any(axis=1), np.where(known, x[:, :k], 0.0).sum(axis=1), np.nan)

    return {
        "alpha_1": over_modes(found.plain),
        **{kind: over_modes(x) for kind, x in found.weighted.items()},
        "direction": over_modes(found.direction),
        "contributions": parts.captured,
        "gradients": found.gradients,
        "preconditioned": found.preconditioned,
        "optimizer": found.optimizer,
        "first_order": parts.first_order,
        "second_order": parts.first_order + parts.second_order,
    }


def _pooled(captured: np.ndarray, total: np.ndarray) -> np.ndarray:
    known = np.isfinite(captured) & np.isfinite(total)
    x, y = np.where(known, captured, 0.0), np.where(known, total, 0.0)
    energy = np.square(y).sum(axis=-1)
    return (x * y).sum(axis=-1) / np.where(energy > 0.0, energy, np.nan)


def _identity_error(inside: np.ndarray, rest: np.ndarray, total: np.ndarray) -> np.ndarray:
    known = np.isfinite(inside)
    terms = np.where(known, inside, 0.0)
    scale = np.abs(terms).sum(axis=1) + np.abs(rest)
    error = np.abs(terms.sum(axis=1) + rest - total)
    return np.where(known.any(axis=1), error / np.where(scale > 0.0, scale, np.nan), np.nan)


def _next_gradient(products: np.ndarray | None) -> float:
    return float("nan") if products is None else float(products[1].sum())


def _p_eff(recording: Recording, at: Probed) -> np.ndarray:
    """(N) effective dimension at the probed windows; NaN before the first whole window."""
    p_eff = recording.spectra(at.window).p_eff
    place = at.t - (at.window - 1)
    return np.where(place >= 0, p_eff[np.maximum(place, 0)], np.nan)


def _largest(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else float("nan")
