"""All detectors on the rows of one block: the one piece of code behind the stream and behind finished recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from .charts import Chart
from .detectors import AT_FLOOR, DETECTORS, LEAST_SCALE, DetectorSpec, make_chart
from .features import WindowFeatures, check_window, window_features
from .plain import from_plain, to_plain
from .reference import Reference
from .reference_position import PositionReference
from .thresholds import threshold

PAST = 4
"""The reference holds PAST * W windows: 40 at the W = 10 of the paper."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What one detector made of n rows; NaN where nothing was judged.

    Attributes:
        spec: The detector.
        deviation: (n) how many scales the feature lies above its median in the past.
        statistic: (n) of the chart.
        alarms: (n).
        value: (n) the feature.
        location: (n) its median in the past.
    """

    spec: DetectorSpec
    deviation: np.ndarray
    statistic: np.ndarray
    alarms: np.ndarray
    value: np.ndarray
    location: np.ndarray


class Judge:
    """Features, references and charts of one block.

    Args:
        window: W.
        detectors: Names, or None for all.
        level: Accepted share of runs of ``horizon`` windows with a false alarm, per detector.
        horizon: Windows.
        thresholds: Imposes thresholds by name, for calibration.
    """

    def __init__(
        self,
        window: int = 10,
        detectors: Sequence[str] | None = None,
        level: float = 0.05,
        horizon: int = 400,
        *,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        check_window(window, 2 * window)
        self.window = window
        self.specs = chosen(detectors)
        self.thresholds = {
            s.name: thresholds[s.name] if thresholds else threshold(s.name, window, level, horizon)
            for s in self.specs
        }
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new stretch begins, and with it a new burn-in."""
        self.row = 0
        self.rows = np.empty((0, 2 * self.window))
        self.references: dict[str, Reference | PositionReference] = {}
        self.charts: dict[str, Chart] = {}
        size = PAST * self.window
        for spec in self.specs:
            kind = PositionReference if spec.feature == "position" else Reference
            self.references.setdefault(spec.feature, kind(self.window, size, LEAST_SCALE[spec.feature]))
            self.charts[spec.name] = make_chart(spec, self.thresholds[spec.name], cooldown=self.window)

    def extend(self, band: np.ndarray) -> list[Judged]:
        """Judge the rows of a band that go on from those before; the same whether they come singly or all at once.

        Args:
            band: (n, L+1) products [parameter^2], L >= W - 1; lags from 2W on are not looked at.

        Raises:
            DataError: If the band is too narrow for the window.
        """
        n = len(band)
        rows = np.concatenate([self.rows, self._fitted(band)])
        features = window_features(rows, self.window, last=n)
        standardised = {name: self._standardise(name, features) for name in self.references}
        self.row += n
        self.rows = rows[max(len(rows) - (2 * self.window - 1), 0) :]
        out = []
        for spec in self.specs:
            value, location, z = standardised[spec.feature]
            statistic, alarms = self.charts[spec.name].run(z.tolist())
            out.append(Judged(spec, z, np.array(statistic), np.array(alarms, dtype=bool), value, location))
        return out

    def state(self) -> dict[str, Any]:
        """All that is remembered, JSON-able."""
        return {
            "row": self.row,
            "rows": to_plain(self.rows),
            "references": {
                name: {"values": to_plain(r.values), "rows": r.rows.tolist()} for name, r in self.references.items()
            },
            "charts": {name: chart.state() for name, chart in self.charts.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``.

        Raises:
            DataError: If it is the state of other detectors.
        """
        self.reset()
        if set(state["charts"]) != set(self.charts):
            raise DataError(
                f"a state must belong to the same detectors; got one of {', '.join(state['charts'])}. "
                "Give the stream the detectors that it was saved with."
            )
        self.row = int(state["row"])
        self.rows = from_plain(state["rows"], self.rows.shape[1:])
        for name, saved in state["references"].items():
            reference = self.references[name]
            reference.values = from_plain(saved["values"], reference.values.shape[1:])
            reference.rows = np.array(saved["rows"], dtype=np.int64)
        for name, saved in state["charts"].items():
            self.charts[name].load_state(saved)

    def _fitted(self, band: np.ndarray) -> np.ndarray:
        """The lags that are used, NaN where there are fewer."""
        if band.ndim != 2 or band.shape[1] < self.window:
            raise DataError(
                f"a row must hold the products of at least window = {self.window} lags; got shape {band.shape}. "
                f"Record with lags={2 * self.window - 1}."
            )
        wide = np.full((len(band), 2 * self.window), np.nan)
        used = min(band.shape[1], wide.shape[1])
        wide[:, :used] = band[:, :used]
        return wide

    def _standardise(self, name: str, features: WindowFeatures) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Feature, its median in the past, and how many scales it lies above that."""
        reference = self.references[name]
        if isinstance(reference, PositionReference):
            value, location, scale = reference.extend(self.row, features.log_ratios)
            z = (value - location) / scale
            return value, location, np.where(value > 0.0, z, np.minimum(z, 0.0))
        value = getattr(features, name)
        location, scale = reference.extend(self.row, value)
        z = (value - location) / scale
        if name.startswith("excess"):
            # What was not at the floor cannot leave it.
            z = np.where(location > AT_FLOOR, np.minimum(z, 0.0), z)
        return value, location, z


def chosen(detectors: Sequence[str] | None) -> list[DetectorSpec]:
    """Detectors of changes by name, in the order of ``DETECTORS``; all for None.

    Raises:
        SettingError: If there is no such detector.
    """
    if detectors is None:
        return list(DETECTORS.values())
    unknown = [name for name in detectors if name not in DETECTORS]
    if unknown or isinstance(detectors, str):
        raise SettingError(
            f"detectors must be a list of names out of {', '.join(DETECTORS)}; got {detectors!r}. "
            "Leave it out for all."
        )
    return [spec for name, spec in DETECTORS.items() if name in detectors]
