"""Thresholds of the detectors, as ``detect.threshold_fit`` found them. Numbers only."""

from __future__ import annotations

LEVELS = (0.01, 0.05, 0.1)
"""Run-level shares of false alarms: the rows of each entry."""

HORIZONS = (50, 100, 200)
"""Judged windows of a run, at W = 10: the columns."""

TABLE: dict[str, list[list[float]]] = {
    "mode1-emergence": [[6.3, 8.7, 8.9], [4.0, 4.9, 6.1], [4.0, 4.1, 4.9]],
    "mode2-emergence": [[9.7, 15.7, 15.7], [5.2, 6.4, 7.5], [4.6, 5.6, 6.0]],
    "mode3-emergence": [[5.1, 5.3, 5.9], [4.0, 4.4, 4.6], [4.0, 4.0, 4.2]],
    "gap-opening": [[11.1, 11.1, 11.1], [6.1, 7.3, 8.2], [4.9, 6.1, 7.2]],
    "gap-collapse": [[7.1, 10.3, 12.7], [6.4, 6.7, 7.7], [6.0, 6.4, 7.1]],
    "position-change": [[4.0, 4.0, 6.1], [4.0, 4.0, 4.0], [4.0, 4.0, 4.0]],
    "coherence-gain": [[12.9, 13.9, 13.9], [5.0, 6.0, 7.3], [4.0, 5.0, 5.2]],
    "coherence-loss": [[7.2, 8.5, 9.3], [6.1, 6.7, 7.6], [4.6, 6.2, 6.7]],
    "regime-change": [[7.4, 9.1, 9.1], [5.8, 7.9, 8.2], [5.0, 6.0, 7.4]],
}
