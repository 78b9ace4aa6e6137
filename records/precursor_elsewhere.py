"""Apply the shipped detector to runs that no rule was made or judged on, and say what it does.

python records/precursor_elsewhere.py records/DATE_NAME/elsewhere
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from spectraledge import load
from spectraledge.detect.events import find_events


def last(recording, name: str, step: int) -> float:
    """Value of a metric last logged by a step."""
    steps, values = recording.metrics[name]
    return float(values[max(np.searchsorted(steps, step, side="right") - 1, 0)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    sys.stdout.write("| run | steps | first test accuracy >= 0.95 | largest | alarm | test accuracy then |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- | --- |\n")
    for file in sorted(parser.parse_args().folder.glob("*/recording.jsonl")):
        recording = load(file)
        steps, values = recording.metrics["test_accuracy"]
        crossed = np.flatnonzero(values >= 0.95)
        cells = [file.parent.name, f"{recording.steps[-1]} by {recording.n_steps[0]}"]
        cells += [str(steps[crossed[0]]) if len(crossed) else "never", f"{np.max(values):.2f}"]
        events = find_events(recording, detectors=["grokking"])
        cells += (
            [str(events[0].step), f"{last(recording, 'test_accuracy', events[0].step):.2f}"] if events else ["–", ""]
        )
        sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
