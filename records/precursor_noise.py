"""How often white noise alone passes the threshold of the shipped detector, by the number of parameters of the head.

python records/precursor_noise.py
"""

from __future__ import annotations

import sys

import numpy as np

from spectraledge.detect.precursors.rules import directed, sustained
from spectraledge.detect.precursors.shipped import shipped_rules

RULES = shipped_rules()
JUDGING, THRESHOLD = RULES.judging, RULES.rules[RULES.winner].rule.threshold
RUNS, ROWS = 60, 200


def fires(size: int, rng: np.random.Generator) -> bool:
    """One run of independent rows; they all move, so that the form asks for nothing more."""
    w = JUDGING.window
    rows = rng.standard_normal((ROWS, size))
    path = np.vstack([np.zeros(size), np.cumsum(rows, axis=0)])
    total = ((path[w:] - path[:-w]) ** 2).sum(axis=1)
    energy = np.convolve((rows**2).sum(axis=1), np.ones(w), "valid")
    straight = np.concatenate([np.full(w - 1, np.nan), total / energy / w])
    rise = directed(straight, "rise", signed=False, start=JUDGING.start)
    return bool((sustained(rise, np.zeros(ROWS), JUDGING) >= THRESHOLD).any())


def main() -> None:
    rng = np.random.default_rng(0)
    for size in (300, 1000, 1677, 2500, 4000, 6000, 8000, 12513):
        found = sum(fires(size, rng) for _ in range(RUNS))
        sys.stdout.write(f"{size} parameters: {found} of {RUNS} runs\n")


if __name__ == "__main__":
    main()
