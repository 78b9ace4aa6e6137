"""Make a record of a finished grid: compact recordings, a table and a figure.

    python records/grid_record.py GRID_FOLDER records/DATE_NAME [--layers PATTERN]

Each run's recording is merged to one block ("all"), unless its layers are asked for, and stands beside its
config.json and environment.json. table.json holds the raw values, one row a run; table.md the same by experiment
and arm; figure.png test accuracy and the two leading ratios of singular values over training.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from spectraledge.predictions import Run, find_runs
from spectraledge.theory.intervals import clopper_pearson

THRESHOLDS = (0.5, 0.9, 0.95, 0.98)
# experiments.md 2.1 and 2.4: smallest and largest published step of (>= 0.9, >= 0.95, three times >= 0.98).
PUBLISHED = {
    "modular/add": ((2500, 3200), (2600, 3200), (2800, 3400)),
    "modular/sub": ((3200, 3600), (3200, 3600), (3500, 3800)),
    "modular/mul": ((2500, 2800), (2600, 2900), (2800, 3100)),
    "modular/x2_y2": ((1800, 1900), (2000, 2100), (2500, 2700)),
    "dyck": (None, (600, 1400), None),
    "scan": (None, (2500, 4000), None),
}
ARMS = ("decay", "no-decay", "placebo")


def row(run: Run) -> dict:
    """Raw values of one run."""
    grok = {} if run.grok is None else {step.definition: step.step for step in run.grok}
    metrics = {name: values for name, (_, values) in run.recording.metrics.items()}
    crossed = {}
    if run.grok is not None:
        steps, accuracy = capability(run)
        for threshold in THRESHOLDS:
            reached = np.flatnonzero(accuracy >= threshold)
            crossed[str(threshold)] = int(steps[reached[0]]) if len(reached) else None
    return {
        "run": run.name,
        "experiment": run.experiment,
        "arm": run.arm,
        "optimizer": run.optimizer,
        "seed": run.seed,
        "last_step": int(run.recording.steps[-1]),
        "grok_steps": grok,
        "first_at": crossed,
        "last": {name: float(values[-1]) for name, values in metrics.items() if "accuracy" in name or "loss" in name},
        "best": {name: float(np.max(values)) for name, values in metrics.items() if "accuracy" in name},
    }


def capability(run: Run) -> tuple[np.ndarray, np.ndarray]:
    from spectraledge.detect.grok import capability_series

    return capability_series(run.recording.metrics)


def within(values: list, published: tuple | None) -> str:
    """Steps of the seeds beside the published range widened by 20 %."""
    known = [v for v in values if v is not None]
    text = ", ".join("never" if v is None else f"{v:.0f}" for v in values)
    if published is None:
        return text
    low, high = published
    inside = all(0.8 * low <= v <= 1.2 * high for v in known) and len(known) == len(values)
    return f"{text} (published {low} to {high}; {'within' if inside else 'NOT within'} 20 %)"


def table(rows: list[dict]) -> str:
    groups: dict[tuple[str, str, str], list[dict]] = defaultdict(list)
    for entry in rows:
        groups[entry["experiment"], entry["arm"], entry["optimizer"]].append(entry)
    lines = [
        "| experiment | arm | n | cap | first ≥ 0.9 | first ≥ 0.95 | third of three ≥ 0.98 | crossed 0.5, 0.9, 0.95 "
        "| reached 0.95 [95 %] | best test accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (experiment, arm, optimizer), members in by_arm(groups):
        members = sorted(members, key=lambda m: m["seed"])
        named = optimizer if len({r["optimizer"] for r in rows}) > 1 else ""
        n = len(members)
        cells = [f"{experiment} {named}".strip(), arm, str(n), str(max(m["last_step"] for m in members))]
        if members[0]["grok_steps"]:
            published = PUBLISHED.get(experiment, (None,) * 3) if arm == "decay" else (None,) * 3
            keys = list(members[0]["grok_steps"])  # 0.95, 3 x 0.98, 0.9, steepest
            for key, range_ in zip((keys[2], keys[0], keys[1]), published):
                cells.append(within([m["grok_steps"][key] for m in members], range_))
            counts = [sum(m["first_at"][str(t)] is not None for m in members) for t in THRESHOLDS]
            low, high = clopper_pearson(counts[2], n)
            cells += [
                ", ".join(f"{c} of {n}" for c in counts[:3]),
                f"{counts[2] / n:.2f} [{low:.2f}, {high:.2f}]",
                ", ".join(f"{m['best'].get('test_accuracy', float('nan')):.3f}" for m in members),
            ]
        else:
            cells += ["–"] * 6
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n" + others(groups)


def by_arm(groups: dict) -> list:
    """Groups in the order of arms, then of names."""
    return sorted(groups.items(), key=lambda item: (ARMS.index(item[0][1]), item[0]))


def others(groups: dict) -> str:
    """Last values of every accuracy and loss, mean over seeds with the smallest and largest."""
    found = {name for members in groups.values() for member in members for name in member["last"]}
    names = sorted(name for name in found if "batch" not in name)
    lines = [f"| experiment | arm | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 2)}"]
    for (experiment, arm, optimizer), members in by_arm(groups):
        cells = []
        for name in names:
            values = [m["last"][name] for m in members if name in m["last"]]
            cells.append(f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})" if values else "–")
        lines.append(f"| {experiment} {optimizer} | {arm} | {' | '.join(cells)} |")
    return "Last values, mean over seeds (smallest to largest):\n\n" + "\n".join(lines) + "\n"


def figure(runs: list[Run], path: Path, window: int) -> None:
    experiments = sorted({run.experiment for run in runs})
    outcome = "test accuracy" if any(run.grok for run in runs) else "test loss"
    quantities = (outcome, "σ₁/σ₂", "σ₂/σ₃", "commutator defect")
    colours = {"decay": "#0072B2", "no-decay": "#E69F00", "placebo": "#555555"}
    several = sorted({run.optimizer for run in runs})
    styles = dict(zip(several, ("-", "--", ":", "-.", (0, (1, 1)))))
    shape = (len(quantities), len(experiments))
    fig, axes = plt.subplots(*shape, figsize=(1.2 + 2.6 * shape[1], 8.5), squeeze=False, sharex="col", sharey="row")
    for run in runs:
        column = axes[:, experiments.index(run.experiment)]
        spectra = run.recording.spectra(window)
        ratios = spectra.ratios
        if run.grok is not None:
            series = capability(run)
        else:
            series = run.recording.metrics["test_loss"]
        defect = run.recording.metrics.get("commutator_defect", (np.zeros(0), np.zeros(0)))
        lines = (series, (spectra.steps, ratios[:, 0]), (spectra.steps, ratios[:, 1]), defect)
        for axis, (x, y) in zip(column, lines):
            axis.plot(x, y, color=colours[run.arm], ls=styles[run.optimizer], lw=1, alpha=0.8)
    for axis, name in zip(axes[:, 0], quantities):
        axis.set_ylabel(name)
    for row_axes, name in zip(axes, quantities):
        if name != "test accuracy":
            for axis in row_axes:
                axis.set_yscale("log")
    for axis, name in zip(axes[0], experiments):
        axis.set_title(name, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("optimizer step")
    handles = [plt.Line2D([], [], color=colours[arm], label=arm) for arm in ARMS if any(r.arm == arm for r in runs)]
    if len(several) > 1:
        handles += [plt.Line2D([], [], color="k", ls=styles[name], label=name) for name in several]
    fig.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False)
    fig.tight_layout(rect=(0, 0, 1, 0.96))
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", type=Path)
    parser.add_argument("record", type=Path)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--layers", default="$^", help="runs, by regular expression, whose layers are kept apart")
    chosen = parser.parse_args()
    runs = find_runs(chosen.grid)
    chosen.record.mkdir(parents=True, exist_ok=True)
    for run in runs:
        folder = chosen.record / "runs" / run.name
        layers = re.fullmatch(chosen.layers, run.name)
        (run.recording if layers else run.recording.merged()).save(folder, overwrite=True)
        for name in ("config.json", "environment.json"):
            shutil.copy(run.recording.path.parent / name, folder / name)
    rows = [row(run) for run in runs]
    (chosen.record / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    (chosen.record / "table.md").write_text(table(rows))
    figure(runs, chosen.record / "figure.png", chosen.window)
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
