"""Colours that stay apart for colour-blind eyes and on paper."""

from __future__ import annotations

import numpy as np

# Okabe and Ito's set, without its yellow, which is too pale on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#b35a8c", "#c98a00", "#3d9bd1"
GREY, INK, GRID = "#7a808a", "#1f2933", "#e3e7ec"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)

# Viridis up to three quarters: what lies above is too pale for a line.
_ORDERED = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (76, 175, 80))


def ordered(n: int) -> list[str]:
    """``n`` colours from dark to light for an ordered family of lines, such as sigma_1 to sigma_W.

    >>> ordered(2)
    ['#440154', '#4caf50']
    """
    anchors = np.array(_ORDERED, dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, n) if n > 1 else np.zeros(n)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return ["#" + "".join(f"{round(v):02x}" for v in rgb) for rgb in zip(*channels)]
