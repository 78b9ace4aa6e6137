"""Grids: real workers and real children, killed for real; recordings equal to those of single runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spectraledge.errors import OutputError, SettingError
from spectraledge.experiments import catalogue
from spectraledge.experiments.config import configure
from spectraledge.experiments.grid import GRIDS, Cell, Outcome, named_grid, run_grid
from spectraledge.experiments.grid.child import only_writer
from spectraledge.experiments.grid.cost import kind_of, plan_grid, time_of
from spectraledge.experiments.grid.folders import is_half_started, to_be_replaced
from spectraledge.experiments.grid.named import EVERY
from spectraledge.experiments.grid.watch import Watched, grid_state
from spectraledge.experiments.run import run
from spectraledge.recording import Recording, load

MODULAR: dict[str, Any] = {
    "p": 7,
    "d_model": 8,
    "layers": 1,
    "heads": 2,
    "d_hidden": 8,
    "batch_size": 8,
    "steps": 120,
    "eval_every": 5,
    "weight_spectra": 0,
    "defect_every": 0,
}
MONITOR: dict[str, Any] = {"window": 3, "every": 4}
CELLS = [
    *(Cell(f"add-{seed}", "modular/add", seed, "decay", MODULAR, MONITOR) for seed in (1, 2)),
    Cell("placebo-1", "modular/add", 1, "placebo", {**MODULAR, "labels": "shuffled"}, MONITOR),
    Cell("quadratic-1", "quadratic", 1, "", {"steps": 60}, MONITOR),
]
BAD = Cell("bad", "modular/add", 1, "", {**MODULAR, "heads": 3}, MONITOR)
CHECKPOINTS = 40
KILL_AFTER = 50  # a checkpoint later than the start, and 70 steps before the end

ENGINE = """
import json, sys
from spectraledge.experiments.grid import Cell, run_grid

if __name__ == "__main__":
    cells = [Cell(**cell) for cell in json.loads(sys.argv[2])]
    result = run_grid(cells, sys.argv[1], jobs=2, engine=sys.argv[3])
    print(json.dumps(result.as_dict()))
"""


@pytest.fixture(scope="module")
def alone() -> dict[str, Recording]:
    """Each cell as a run of its own, in this process."""
    return {
        cell.folder: run(cell.experiment, seed=cell.seed, settings=cell.settings, **cell.monitor) for cell in CELLS
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid")


class Killer(threading.Thread):
    """Kills a run's process, or the worker above it, once the run is half done.

    Args:
        victims: Key of ``progress.json`` ("process" or "worker") by folder.
    """

    def __init__(self, victims: dict[Path, str]) -> None:
        super().__init__(daemon=True)
        self.due = dict(victims)
        self.over = threading.Event()

    def run(self) -> None:
        while self.due and not self.over.wait(0.005):
            for path, who in list(self.due.items()):
                try:
                    told = json.loads((path / "progress.json").read_text())
                except (OSError, ValueError):
                    continue
                if told["step"] < KILL_AFTER:
                    continue
                os.kill(told[who], signal.SIGKILL)
                del self.due[path]
                time.sleep(0.05)


def test_killed_runs_and_workers_lose_nothing(folder: Path, alone: dict[str, Recording]) -> None:
    killer = Killer({folder / "add-1": "process", folder / "add-2": "worker"})
    killer.start()
    states = []
    try:
        result = run_grid(
            [*CELLS, BAD], folder, jobs=2, checkpoint_every=CHECKPOINTS, progress=lambda state: states.append(state)
        )
    finally:
        killer.over.set()
    assert not killer.due
    assert result.rebuilds >= 1
    assert [outcome.folder for outcome in result.unfinished] == ["bad"]
    assert "d_model must be a multiple of heads; got 8 and 3" in result.unfinished[0].reason
    assert "4 of 5 runs of the grid finished; bad failed: d_model" in result.sentence
    for cell in CELLS:
        assert load(folder / cell.folder) == alone[cell.folder], cell.folder
        assert not (folder / cell.folder / "progress.json").exists()
        assert json.loads((folder / cell.folder / "environment.json").read_text())["threads"] == 1
    last = states[-1]
    assert (last.finished, last.failed, last.running, last.total, last.share) == (4, 1, 0, 5, 1.0)
    table = json.loads((folder / "grid.json").read_text())
    assert [row["state"] for row in table["cells"]] == ["finished"] * 4 + ["failed"]
    assert table["cells"][0]["command"].startswith("spectraledge run modular/add --seed 1 --window 3 --every 4")


def test_finished_runs_are_not_repeated(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    started = time.monotonic()
    result = run_grid(CELLS, folder, jobs=2)
    # Reading four small files; one start of Python with torch takes longer.
    assert time.monotonic() - started < 1
    assert all(outcome.found for outcome in result.finished)
    assert result.sentence == "all 4 runs of the grid finished"
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*")} == before


def test_a_run_of_other_settings_is_left_alone_unless_asked(folder: Path, tmp_path: Path) -> None:
    before = (folder / "quadratic-1" / "recording.jsonl").read_bytes()
    cell = CELLS[3]
    result = run_grid([cell], folder, settings={"steps": "50"})
    assert result.outcomes[0].state == "failed"
    assert "got other values of steps (60 there, 50 here)" in result.outcomes[0].reason
    assert (folder / "quadratic-1" / "recording.jsonl").read_bytes() == before
    result = run_grid([cell], folder, settings={"steps": "50"}, overwrite=True)
    assert result.outcomes[0].state == "finished", result.outcomes[0]
    assert load(folder / "quadratic-1").steps[-1] <= 50


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_recordings_do_not_depend_on_the_engine(tmp_path: Path, alone: dict[str, Recording], engine: str) -> None:
    """Nor on one of its two workers being killed."""
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[engine])
    cells = [vars(cell) for cell in (CELLS[0], CELLS[3])]
    # In a file: a worker that is started afresh reads the script again.
    script = tmp_path / "script.py"
    script.write_text(ENGINE)
    killer = Killer({tmp_path / "add-1": "worker"})
    killer.start()
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path), json.dumps(cells), engine],
            capture_output=True,
            text=True,
            timeout=600,
        )
    finally:
        killer.over.set()
    assert not killer.due, done.stderr
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout.strip().splitlines()[-1])
    assert [row["state"] for row in table["cells"]] == ["finished"] * 2, table
    assert table["engine"] == engine
    for cell in (CELLS[0], CELLS[3]):
        assert load(tmp_path / cell.folder) == alone[cell.folder]


def test_the_cost_is_measured_before_anything_is_trained(tmp_path: Path) -> None:
    cells = [CELLS[0], CELLS[0].with_settings({"steps": 240}), BAD]
    cells[1] = Cell("longer", cells[1].experiment, 2, "", cells[1].settings, MONITOR)
    cost = plan_grid(cells, tmp_path, jobs=2)
    assert (cost.runs, cost.finished, len(cost.kinds)) == (3, 0, 1)
    assert "d_model must be a multiple" in cost.refused["bad"]
    kind = cost.kinds[0]
    assert (kind.runs, kind.steps) == (2, 360)
    # Two lengths at one pace, side by side: the grid takes as long as the longer one.
    assert cost.seconds == pytest.approx(kind.seconds * 2 / 3)
    assert kind.seconds > kind.steps * kind.seconds_a_step > 0
    assert cost.memory_bytes == 2 * kind.memory_bytes > 50e6
    assert cost.disk_bytes > kind.recording_bytes > 360 / 4 * 100
    assert json.loads(json.dumps(cost.as_dict()))["jobs"] == 2
    assert list(tmp_path.iterdir()) == []


def test_one_writer_a_folder(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path, seconds=0.2),
        pytest.raises(OutputError, match="must have one writer"),
        only_writer(tmp_path, seconds=0.2),
    ):
        raise AssertionError
    with only_writer(tmp_path, seconds=0.2):
        pass


def test_a_start_killed_half_way_is_told_from_a_foreign_recording(tmp_path: Path) -> None:
    config = CELLS[0].configure()[1]
    assert not to_be_replaced(tmp_path, config)
    (tmp_path / "recording.jsonl").write_text("{}\n")
    assert to_be_replaced(tmp_path, config)
    assert not is_half_started(tmp_path)
    (tmp_path / "run.log").touch()
    assert is_half_started(tmp_path)
    assert not to_be_replaced(tmp_path, config)


def test_config_survives_the_way_to_a_child() -> None:
    for name in catalogue.names():
        config = configure(name)[1]
        sent = json.loads(json.dumps(config))
        assert configure(name, settings=sent["settings"], **sent["monitor"])[1] == config


def test_named_grids() -> None:
    sizes = {"modular-36": 36, "paper-48": 48, "paper-72": 72, "dyck-9": 9, "scan-9": 9}
    sizes |= {"optimizers": 15, "widths": 12, "lm-6": 6, "lm-stories-6": 6, "lm-shift-3": 3}
    sizes |= {"precursors-development": 66, "precursors-final": 66}
    assert {name: len(grid.cells()) for name, grid in GRIDS.items()} == sizes
    known = set(catalogue.names())
    for grid in GRIDS.values():
        cells = grid.cells()
        assert len({cell.folder for cell in cells}) == len(cells)
        strides: dict[str, set[int]] = {}
        for cell in cells:
            strides.setdefault(cell.experiment, set()).add(cell.monitor["every"])
            if cell.experiment in known and not cell.experiment.startswith("lm/"):
                cell.configure()
        assert all(len(found) == 1 for found in strides.values())  # the same in all arms
    # Earliest published grok steps: three disjoint windows of ten updates come before each.
    earliest = {"multitask/dual": 9600, "multitask/tri": 12_300, "dyck": 600, "scan": 2500, "modular/add": 2500}
    for name, step in earliest.items():
        assert 3 * 10 * EVERY.get(name, 25) < step
    arms = {cell.arm for cell in named_grid("paper-72").cells()}
    assert arms == {"decay", "no-decay", "placebo"}


def test_state_of_a_grid(tmp_path: Path) -> None:
    runs = [Watched(tmp_path / name, 100, kind) for name, kind in (("a", 1), ("b", 1), ("c", 2))]
    state = grid_state(runs, {}, 2)
    assert (state.steps_done, state.seconds_left) == (0, None)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "progress.json").write_text('{"step": 50, "steps": 100, "seconds_a_step": 2.0}')
    state = grid_state(runs, {"a": Outcome("a", "finished")}, 2)
    assert (state.finished, state.running, state.total, state.steps_done) == (1, 1, 3, 150)
    assert state.share == 0.5
    # 50 steps at 2 s and 100 of a kind not seen yet at the usual 2 s; no shorter than the longer of the two.
    assert state.seconds_left == 200
    assert grid_state(runs, {"a": Outcome("a", "finished")}, 1).seconds_left == 300


def test_kinds_and_times() -> None:
    kinds = {kind_of(cell.configure()[1]) for cell in named_grid("modular-36").cells()}
    assert len(kinds) == 6  # operations; arms and seeds take equally long a step
    assert time_of([5.0, 1.0, 1.0, 1.0, 1.0], 2) == 5.0
    assert time_of([], 3) == 0.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"grid": "modular36"}, r"a grid must be known by name; got modular36\. Did you mean modular-36"),
        ({"jobs": 0}, "jobs must be at least 1; got 0"),
        ({"engine": "rya"}, r"engine must be one of local, ray, dask; got rya\. Did you mean ray"),
        ({"grid": []}, "a grid must have a run; got none"),
        ({"grid": [CELLS[0], CELLS[0]]}, "folders of a grid must be plain names, each once; got 'add-1'"),
        ({"grid": [Cell("../x", "quadratic", 1)]}, "must be plain names"),
        ({"only": "nothing"}, "only must fit a run of the grid; got nothing"),
        ({"grid": [BAD]}, "d_model must be a multiple of heads"),
        ({"address": "localhost:1"}, "address must be given with engine ray or dask only"),
    ],
)
def test_grids_that_cannot_be(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {"grid": CELLS, "out": tmp_path, **values}
    with pytest.raises(SettingError, match=words):
        run_grid(call.pop("grid"), call.pop("out"), **call)
