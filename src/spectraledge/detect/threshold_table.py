"""Thresholds of the detectors, as ``detect.threshold_fit`` found them. Numbers only."""

from __future__ import annotations

LEVELS = (0.01, 0.05, 0.1)
"""Run-level shares of false alarms: the rows of each entry."""

HORIZONS = (50, 100, 200)
"""Judged windows of a run, at W = 10: the columns."""

TABLE: dict[str, list[list[float]]] = {
    "mode1-emergence": [[5.8, 7.5, 7.6], [4.0, 5.1, 5.8], [4.0, 4.0, 4.8]],
    "mode2-emergence": [[10.9, 10.9, 11.4], [7.2, 8.6, 8.6], [6.0, 6.8, 6.8]],
    "mode3-emergence": [[5.1, 5.5, 5.5], [4.0, 4.4, 4.6], [4.0, 4.0, 4.2]],
    "gap-opening": [[7.9, 8.7, 9.7], [5.4, 6.9, 7.7], [4.6, 5.8, 6.7]],
    "gap-collapse": [[12.2, 12.3, 12.3], [8.2, 9.3, 9.3], [7.2, 7.6, 7.6]],
    "position-change": [[6.0, 6.0, 6.1], [4.0, 4.0, 4.0], [4.0, 4.0, 4.0]],
    "coherence-gain": [[12.9, 13.9, 13.9], [4.9, 6.0, 7.3], [4.0, 4.3, 5.0]],
    "coherence-loss": [[11.9, 13.4, 13.4], [8.3, 9.6, 9.6], [6.7, 7.8, 7.8]],
    "regime-change": [[14.7, 14.7, 14.7], [8.9, 8.9, 8.9], [7.0, 7.6, 7.6]],
}
