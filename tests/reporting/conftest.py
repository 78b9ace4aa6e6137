"""The recordings of the figures' tests, and one report that several tests look at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "plots"))

from plot_runs import Run

from spectraledge.reporting import report

COMMAND = "spectraledge run modular/add --seed 42 --set weight_decay=1.0"


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that groks and one of another length that does not, both with a drift."""
    folder = tmp_path_factory.mktemp("runs")
    Run(drift=0.6, seam_at=30).save(folder / "learns")
    (folder / "learns" / "config.json").write_text(
        json.dumps(
            {
                "experiment": "modular/add",
                "settings": {"seed": 42, "weight_decay": 1.0, "labels": "true", "p": 97},
                "monitor": {"window": 10, "every": 10},
                "command": COMMAND,
            }
        )
    )
    meta = {"window": 10, "settings": {"labels": "shuffled", "p": 97}, "command": ["python", "train.py"]}
    Run(drift=0.2, n_updates=33, seed=1, nan_rows=(20,), decay=False, meta=meta).save(folder / "placebo")
    return folder


@pytest.fixture(scope="session")
def page(two_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both."""
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return report(two_runs, out, summary=["Both have a drift.", "Only one learns <anything>."])
