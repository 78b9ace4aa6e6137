"""The numbers that a tracker shows, from the records of a run as they are written.

Every value is that of the recording: ``recording.spectra(window)`` and its gaps give the same at the same step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import SettingError
from ..recording import Recording
from ..recording.derive import check_window
from ..theory import gap as gap_theory
from ..theory.spectrum import gram_spectrum
from .keys import HEALTH, ROOT, STEP, key_parts
from .rows import RecentRows

logger = logging.getLogger("spectraledge")


class TrackedValues:
    """Numbers of every row, given only the records.

    Keys below ``spectral_edge/``: ``k_star`` (rule "guarded"), ``k_star_plain``, ``gap`` (sigma_k - sigma_{k+1},
    [parameter]), ``gap_ratio``, ``sigma_1`` ... [parameter], ``update_norm``, ``theta_norm`` [parameter],
    ``layer/<group>/k_star`` and ``layer/<group>/gap_ratio``, ``health/unchanged_share``, ``health/floor``
    [parameter], ``health/ms_per_snapshot``, ``health/nonfinite`` (entries), ``health/missing`` and ``step``.

    What is not finite or not resolved has no value at that step: its key is left out, and ``health/missing`` counts
    the values left out so far. Nothing that rounding made is sent as if it were measured.

    Args:
        window: W.
        lags: L of the run, at least W - 1.
        recording: So far.
        history: Gives the recording again, after a rewind.
        singular_values: How many are sent.
        groups: Largest number of blocks with keys of their own; the largest blocks are taken, how many are not is
            logged once. 0 for none.

    Raises:
        SettingError: If the window does not fit the lags, or a number is negative.
    """

    def __init__(
        self,
        window: int,
        lags: int,
        recording: Recording,
        history: Callable[[], Recording],
        *,
        singular_values: int = 5,
        groups: int = 32,
    ) -> None:
        check_window(window, 1, window, lags)
        if singular_values < 0 or groups < 0:
            raise SettingError(
                f"singular_values and groups must be at least 0; got {singular_values} and {groups}. "
                "Use 0 to send none."
            )
        self.missing = 0
        self._n_sigma = min(singular_values, window)
        self._rows = RecentRows(window, groups, recording, history)
        self._said = False

    def take(self, kind: str, fields: Mapping[str, Any]) -> tuple[int, dict[str, float]] | None:
        """Take a record; the step and the values if it was a row."""
        if not self._rows.take(kind, fields):
            return None
        self._say_left_out()
        values = {**self._spectral(), **self._sizes(fields), **self._health(fields)}
        present = {key: value for key, value in values.items() if math.isfinite(value)}
        self.missing += len(values) - len(present)
        step = int(fields["step"])
        return step, {**present, f"{HEALTH}/missing": float(self.missing), STEP: float(step)}

    def _spectral(self) -> dict[str, float]:
        grams = self._rows.grams()
        if grams is None:
            return {}  # the first W - 1 rows of a stretch have no window: nothing is missing there
        spectrum = gram_spectrum(grams, update_eps=self._rows.update_eps, error_norm2=self._rows.error_norm2)
        sigma, floor = spectrum.singular_values, spectrum.floor
        guarded = gap_theory.gap_position(sigma, floor=floor)
        plain = gap_theory.gap_position(sigma[0], rule="plain", floor=floor[0])
        ratio = gap_theory.gap_ratio(sigma, guarded)
        values = {
            f"{ROOT}/k_star": _position(guarded[0]),
            f"{ROOT}/k_star_plain": _position(plain),
            f"{ROOT}/gap": float(gap_theory.width(sigma[0], guarded[0])),
            f"{ROOT}/gap_ratio": float(ratio[0]),
            f"{HEALTH}/floor": float(floor[0]),
        }
        for j in range(self._n_sigma):
            values[f"{ROOT}/sigma_{j + 1}"] = float(sigma[0, j]) if spectrum.resolved[0, j] else math.nan
        for g, part in enumerate(key_parts(self._rows.groups).values(), start=1):
            values[f"{ROOT}/layer/{part}/k_star"] = _position(guarded[g])
            values[f"{ROOT}/layer/{part}/gap_ratio"] = float(ratio[g])
        return values

    def _sizes(self, fields: Mapping[str, Any]) -> dict[str, float]:
        with np.errstate(invalid="ignore"):
            return {
                f"{ROOT}/update_norm": float(np.sqrt(np.sum(fields["products"], axis=0)[0])),
                f"{ROOT}/theta_norm": float(np.sqrt(np.sum(fields["theta_norm2"]))),
            }

    def _health(self, fields: Mapping[str, Any]) -> dict[str, float]:
        values = {}
        if fields.get("unchanged") is not None and self._rows.n_parameters:
            share = float(np.sum(fields["unchanged"])) / self._rows.n_parameters
            values[f"{HEALTH}/unchanged_share"] = share
        if fields.get("nonfinite") is not None:
            values[f"{HEALTH}/nonfinite"] = float(np.sum(fields["nonfinite"]))
        if fields.get("seconds") is not None:
            values[f"{HEALTH}/ms_per_snapshot"] = 1e3 * float(fields["seconds"])
        return values

    def _say_left_out(self) -> None:
        if self._rows.n_left_out and not self._said:
            self._said = True
            logger.warning(
                "trackers show the %d largest blocks one by one and leave out %d; groups=... shows more",
                len(self._rows.groups),
                self._rows.n_left_out,
            )


def _position(k: Any) -> float:
    return float(k) if k > 0 else math.nan
