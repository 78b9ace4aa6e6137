"""Calibration of loss forecasts, and whether a stability coefficient earns its place in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SettingError
from ..theory.alpha import AlphaKind
from ..theory.bootstrap import BootstrapInterval
from ..theory.calibration import Calibration, calibrate
from ..theory.nested import NestedTest, nested_test
from .columns import plain_interval, time_interval
from .forecasts import Forecasts
from .verdict import FEWEST_BLOCKS, Outcome


@dataclass(frozen=True, eq=False)
class AlphaTest:
    """What weighting by one stability coefficient does to the forecast of alpha = 1.

    Attributes:
        kind: Which coefficient.
        r2_gain: R^2 with alpha minus R^2 without, against no change, each forecast at its best scale: raw
            gradients have the optimizer's scale in no one's units but SGD's.
        nested: Fit of the measured change on the plain sum against plain and weighted sum, ahead of the fit;
            None where there are too few probes.
        verdict: On "alpha improves the decomposition".
        reason: Why there is no nested test; empty if there is one.
    """

    kind: AlphaKind
    r2_gain: BootstrapInterval
    nested: NestedTest | None
    verdict: Outcome
    reason: str

    def summary(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "r2_gain": plain_interval(self.r2_gain),
            "nested_difference": None if self.nested is None else plain_interval(self.nested.difference),
            "nested_gain": None if self.nested is None else self.nested.gain,
            "wald_p": None if self.nested is None else self.nested.wald_p,
            "n_test": 0 if self.nested is None else self.nested.n_test,
            "verdict": self.verdict,
            "reason": self.reason,
        }


def calibrate_forecasts(
    predicted: Mapping[str, np.ndarray], measured: np.ndarray, *, block: int, n_boot: int, seed: int
) -> Calibration:
    """All forecasts against the measured change on the same probes; the first is the one compared with the rest.

    Args:
        predicted: Name to (N).
        measured: (N).
        block: Probes in a block; cut to N where there are fewer.
        n_boot: Resamples.
        seed: Of the resamples.
    """
    return calibrate(
        np.stack(list(predicted.values()), axis=1),
        measured,
        block=min(block, len(measured)),
        n_boot=n_boot,
        rng=np.random.default_rng(seed),
    )


def alpha_tests(
    found: Forecasts,
    predicted: Mapping[str, np.ndarray],
    measured: np.ndarray,
    block: int,
    n_boot: int,
    seed: int,
) -> dict[AlphaKind, AlphaTest]:
    """Whether each coefficient improves on alpha = 1.

    ``supported`` takes both: the weighted sum follows the changes better than the plain one, each at its best
    scale, and adding it to the plain one improves a fit ahead of time. ``contradicted``: the plain sum follows
    them better over at least 10 blocks, and adding the weighted one does not help.

    Args:
        found: Forecasts by mode.
        predicted: Totals by name; ``alpha_1`` is the plain one.
        measured: (N) changes.
        block: Probes in a block.
        n_boot: Resamples.
        seed: Of the resamples.
    """
    out: dict[AlphaKind, AlphaTest] = {}
    for kind in found.weighted:
        plain, weighted = predicted["alpha_1"], predicted[kind]
        known = np.isfinite(measured) & np.isfinite(plain) & np.isfinite(weighted)
        if not known.any():
            unknown = np.array(np.nan)
            nothing = BootstrapInterval(unknown, unknown, unknown, 0.95, 0.0)
            out[kind] = AlphaTest(kind, nothing, None, "not identifiable", "not known at any probe")
            continue
        rng = np.random.default_rng(seed)
        gain = time_interval(_gain, measured, plain, weighted, block=block, n_boot=n_boot, rng=rng)
        nested, reason = _nested(measured, plain, weighted, block, n_boot, seed)
        helps = nested is not None and nested.improves
        verdict: Outcome = "not identifiable"
        if gain.low > 0.0 and helps:
            verdict = "supported"
        elif gain.high < 0.0 and gain.n_units >= FEWEST_BLOCKS and not helps:
            verdict = "contradicted"
        out[kind] = AlphaTest(kind, gain, nested, verdict, reason)
    return out


def _gain(y: np.ndarray, plain: np.ndarray, weighted: np.ndarray) -> np.ndarray:
    """(...) cos^2(weighted, y) - cos^2(plain, y): R^2 against no change, each forecast scaled to fit best."""
    known = np.isfinite(y) & np.isfinite(plain) & np.isfinite(weighted)
    y, plain, weighted = (np.where(known, x, 0.0) for x in (y, plain, weighted))

    def share(x: np.ndarray) -> np.ndarray:
        energy = np.square(x).sum(axis=-1) * np.square(y).sum(axis=-1)
        return np.where(energy > 0.0, np.square((x * y).sum(axis=-1)) / np.where(energy > 0.0, energy, 1.0), 0.0)

    return share(weighted) - share(plain)


def _nested(
    measured: np.ndarray, plain: np.ndarray, weighted: np.ndarray, block: int, n_boot: int, seed: int
) -> tuple[NestedTest | None, str]:
    known = np.isfinite(measured) & np.isfinite(plain) & np.isfinite(weighted)
    if known.any() and np.ptp(weighted[known]) == 0.0:
        return None, "alpha is 0 for all modes: nothing to add"
    # The small model is scaled to units of 1: changes of a loss can be 1e-9, and a fit should not care.
    scale = float(np.nanstd(plain[known])) if known.any() else 0.0
    if not scale > 0.0:
        return None, "the plain forecast does not vary"
    try:
        test = nested_test(
            measured[known] / scale,
            plain[known] / scale,
            np.stack([plain[known], weighted[known]], axis=1) / scale,
            block=block,
            n_boot=n_boot,
            rng=np.random.default_rng(seed),
        )
    except SettingError as error:
        return None, str(error)
    return test, ""
