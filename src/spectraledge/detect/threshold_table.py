"""Thresholds of the detectors, as ``detect.threshold_fit`` found them. Numbers only."""

from __future__ import annotations

LEVELS = (0.01, 0.05, 0.1)
"""Run-level shares of false alarms: the rows of each entry."""

HORIZONS = (50, 100, 200)
"""Judged windows of a run, at W = 10: the columns."""

TABLE: dict[str, list[list[float]]] = {
    "mode1-emergence": [[6.0, 6.9, 7.9], [4.0, 4.8, 5.6], [4.0, 4.0, 4.6]],
    "mode2-emergence": [[9.7, 10.9, 11.3], [5.5, 6.6, 8.0], [4.2, 5.2, 6.3]],
    "mode3-emergence": [[5.1, 5.2, 5.2], [4.0, 4.4, 4.6], [4.0, 4.0, 4.2]],
    "gap-opening": [[8.4, 9.4, 10.3], [6.1, 6.9, 7.9], [5.1, 5.8, 6.8]],
    "gap-collapse": [[10.4, 10.9, 11.9], [6.3, 7.2, 8.3], [5.4, 6.3, 7.2]],
    "position-change": [[4.0, 4.0, 6.1], [4.0, 4.0, 4.0], [4.0, 4.0, 4.0]],
    "coherence-gain": [[12.9, 13.9, 13.9], [4.9, 6.0, 7.3], [4.0, 4.3, 5.0]],
    "coherence-loss": [[8.9, 10.6, 10.7], [6.1, 7.0, 8.1], [5.0, 6.0, 6.8]],
    "regime-change": [[7.6, 9.3, 9.6], [6.2, 7.0, 7.8], [5.2, 6.0, 6.9]],
}
