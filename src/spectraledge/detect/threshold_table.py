"""Thresholds of the detectors, as ``detect.threshold_fit`` found them. Numbers only."""

from __future__ import annotations

LEVELS = (0.01, 0.05, 0.1)
HORIZONS = (50, 100, 200, 400)

TABLE: dict[str, list[list[float]]] = {}
