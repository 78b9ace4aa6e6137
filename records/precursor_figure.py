"""Draw what precedes grokking: straightness of the head's and of all updates beside test accuracy, a panel a cell.

python records/precursor_figure.py records/DATE_NAME/SPLIT FIGURE.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from spectraledge.detect.precursors.runs import load_runs
from spectraledge.detect.precursors.statistics import STATISTICS

WINDOW = 10
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
TITLES = {
    "add-decay": "add",
    "sub-decay": "sub",
    "mul-decay": "mul",
    "x2_y2-decay": "x² + y²",
    "add-fraction40": "add, 40 % of the pairs",
    "add-decay50": "add, decay 0.5",
    "add-placebo": "add, shuffled labels",
    "x2_y2-placebo": "x² + y², shuffled labels",
    "add-no-decay": "add, no decay",
    "x2_xy_y2-decay": "x² + xy + y²",
    "x3_xy-decay": "x³ + xy",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("figure", type=Path)
    chosen = parser.parse_args()
    runs, _ = load_runs(chosen.record, horizon=5000, window=WINDOW)
    fig, axes = plt.subplots(3, 4, figsize=(12, 7.5), sharey=True, layout="constrained")
    for ax, (cell, title) in zip(axes.flat, TITLES.items()):
        for run in (run for run in runs if run.cell == cell):
            steps, accuracy = run.history.recording.metrics["test_accuracy"]
            ax.plot(steps, accuracy, color=GREY, lw=0.8, alpha=0.7)
            for part, color in (("all", ORANGE), ("head", BLUE)):
                s = STATISTICS[f"straightness, updates, {part}"].compute(run.history)
                ax.plot(run.history.steps, s, color=color, lw=0.9, alpha=0.7)
        ax.axhline(1 / WINDOW, color="k", ls=":", lw=1)
        ax.set_title(title, fontsize=10)
        ax.set_ylim(-0.02, 1.02)
    for ax in axes[-1]:
        ax.set_xlabel("optimizer step")
    last = axes.flat[-1]
    last.axis("off")
    lines = [
        (BLUE, "-", f"straightness of {WINDOW} updates, head"),
        (ORANGE, "-", "the same, all parameters"),
        ("k", ":", f"independent updates: 1/{WINDOW}"),
        (GREY, "-", "test accuracy"),
    ]
    handles = [plt.Line2D([], [], color=color, ls=style, label=words) for color, style, words in lines]
    last.legend(handles=handles, loc="center", frameon=False)
    fig.savefig(chosen.figure, dpi=110)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
