"""The grids that come with the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from ...errors import SettingError
from ..sentences import nearest
from .cells import Cell, check_cells

SEEDS = (42, 137, 2024)
ARMS: dict[str, dict[str, object]] = {
    "decay": {},
    "no-decay": {"weight_decay": 0},
    "placebo": {"labels": "shuffled"},
}
GROKKING = ("modular/add", "modular/sub", "modular/mul", "modular/x2_y2")
UNSOLVED = ("modular/x2_xy_y2", "modular/x3_xy")

# Steps between snapshots: at least three disjoint windows of ten updates before the earliest published grok step, the
# same in all arms of an experiment. Modular 2,500; two tasks at once 9,600; three 12,300; Dyck 600; SCAN 2,500.
EVERY = {"multitask/dual": 100, "multitask/tri": 100, "dyck": 10, "scan": 50, "scan/small": 20, "lm/small": 10}
_EVERY = 25

# Controls are looked at up to the grok steps of the runs that grok, no further: by 3,800 with one operation, by
# 16,300 with two and by 30,500 with three in the published runs.
CONTROL_STEPS = {**dict.fromkeys(GROKKING, 4000), "multitask/dual": 18_000, "multitask/tri": 32_000}
UNSOLVED_STEPS = 5000

# Seeds on which rules for the announcement of grokking are made, and others on which the chosen one is judged, once.
DEVELOPMENT_SEEDS = (42, 137, 2024, 11, 12, 13)
FINAL_SEEDS = (101, 102, 103, 104, 105, 106)
# Followed as long as every negative, so that all had the same time to raise a false alarm.
PRECURSOR_STEPS = 5000


@dataclass(frozen=True)
class NamedGrid:
    """A grid by name.

    Attributes:
        name: As given on a command line.
        description: One sentence.
        cells: Makes its runs.
    """

    name: str
    description: str
    cells: Callable[[], list[Cell]]


def named_grid(name: str) -> NamedGrid:
    """The grid called ``name``.

    Raises:
        SettingError: If there is none; the nearest name is suggested.

    Example:
        >>> len(named_grid("modular-36").cells())
        36
    """
    if name not in GRIDS:
        raise SettingError(f"a grid must be known by name; got {name}. {nearest(name, GRIDS)}")
    return GRIDS[name]


def chosen_cells(
    grid: str | Sequence[Cell], settings: Mapping[str, object] | None = None, only: str | None = None
) -> tuple[str, list[Cell]]:
    """Name and cells of a grid, with settings for all of them.

    Args:
        grid: A name of ``GRIDS``, or cells.
        settings: Of all runs, over those of the grid.
        only: Pattern of folders; all where None.

    Raises:
        SettingError: If the grid is unknown, or no folder fits the pattern.
    """
    name, cells = (grid, named_grid(grid).cells()) if isinstance(grid, str) else ("the grid", list(grid))
    check_cells(cells)
    found = [cell.with_settings(settings or {}) for cell in cells if only is None or fnmatch(cell.folder, only)]
    if not found:
        raise SettingError(
            f"only must fit a run of {name}; got {only}. Its folders are {', '.join(cell.folder for cell in cells)}."
        )
    return name, found


def _cells(
    experiment: str,
    arm: str,
    settings: Mapping[str, object],
    *,
    label: str | None = None,
    seeds: Sequence[int] = SEEDS,
    **monitor: Any,
) -> list[Cell]:
    """One experiment and arm, over seeds."""
    # An operation or a set of tasks names its family; other variants do not.
    label = label or experiment.removeprefix("modular/").removeprefix("multitask/").replace("/", "-")
    every = EVERY.get(experiment, _EVERY)
    return [
        Cell(
            f"{label}-{arm}-{seed}", experiment, seed, arm, dict(settings), {"window": 10, "every": every, **monitor}
        )
        for seed in seeds
    ]


def _arm(experiment: str, arm: str) -> list[Cell]:
    """One of the arms that every grid of grokking runs has."""
    steps = CONTROL_STEPS.get(experiment) if arm != "decay" else None
    return _cells(experiment, arm, ARMS[arm] | ({} if steps is None else {"steps": steps}))


def _modular() -> list[Cell]:
    decay = [cell for name in GROKKING for cell in _arm(name, "decay")]
    unsolved = [cell for name in UNSOLVED for cell in _cells(name, "decay", {"steps": UNSOLVED_STEPS})]
    no_decay = [cell for name in GROKKING for cell in _arm(name, "no-decay")]
    placebo = [cell for name in ("modular/add", "modular/x2_y2") for cell in _arm(name, "placebo")]
    return decay + unsolved + no_decay + placebo


def _arms(experiments: Sequence[str], arms: Sequence[str]) -> list[Cell]:
    return [cell for arm in arms for name in experiments for cell in _arm(name, arm)]


def _optimizers() -> list[Cell]:
    kinds: dict[str, dict[str, object]] = {
        "adamw": {"optimizer": "adamw"},
        "muon": {"optimizer": "muon"},
        "sgd-momentum": {"optimizer": "sgd"},
        "sgd": {"optimizer": "sgd", "momentum": 0},
        "nesterov": {"optimizer": "nesterov"},
    }
    return [cell for arm, settings in kinds.items() for cell in _cells("modular/add", arm, settings)]


def _widths() -> list[Cell]:
    return [
        cell
        for width in (32, 64, 128, 256)
        for cell in _cells("modular/add", f"width{width}", {"d_model": width, "d_hidden": 2 * width})
    ]


def _language(experiment: str) -> list[Cell]:
    return [cell for name in ("adamw", "muon") for cell in _cells(experiment, name, {"optimizer": name})]


def _shift() -> list[Cell]:
    return _cells("lm/small", "shift", {"steps": 3000, "shift_step": 1500}, label="lm-small")


def _precursors(seeds: Sequence[int]) -> list[Cell]:
    """Six kinds of runs that grok and five that cannot, by seed, so that a stopped grid is balanced."""
    shuffled = ARMS["placebo"]
    kinds: list[tuple[str, str, dict[str, object]]] = [
        *((name, "decay", {}) for name in GROKKING),
        ("modular/add", "fraction40", {"train_fraction": 0.4}),
        ("modular/add", "decay50", {"weight_decay": 0.5}),
        ("modular/add", "no-decay", {"weight_decay": 0}),
        *((name, "placebo", shuffled) for name in ("modular/add", "modular/x2_y2")),
        *((name, "decay", {}) for name in UNSOLVED),
    ]
    cells = []
    for seed in seeds:
        for name, arm, settings in kinds:
            grows = name in GROKKING and arm not in ("no-decay", "placebo")
            steps = 8000 if grows else PRECURSOR_STEPS
            common: dict[str, object] = {"steps": steps, "stop_after_grok": 2, "defect_every": 0}
            cells += _cells(name, arm, settings | common, seeds=[seed])
    return cells


_PAPER = (*GROKKING, "multitask/dual", "multitask/tri", "dyck", "scan")

GRIDS: dict[str, NamedGrid] = {
    grid.name: grid
    for grid in (
        NamedGrid(
            "modular-36",
            "modular arithmetic: four operations that grok, two that do not, controls, placebos",
            _modular,
        ),
        NamedGrid(
            "precursors-development",
            "what precedes grokking: six cells that grok and five that cannot, six seeds each",
            lambda: _precursors(DEVELOPMENT_SEEDS),
        ),
        NamedGrid(
            "precursors-final",
            "the same cells on six other seeds, to be judged once",
            lambda: _precursors(FINAL_SEEDS),
        ),
        NamedGrid(
            "paper-48",
            "modular, multi-task, Dyck and SCAN, with and without decay",
            lambda: _arms(_PAPER, list(ARMS)[:2]),
        ),
        NamedGrid(
            "paper-72", "the same 48 runs and their shuffled-label placebos", lambda: _arms(_PAPER, list(ARMS))
        ),
        NamedGrid(
            "dyck-9", "Dyck-1 with decay, without, and with shuffled labels", lambda: _arms(["dyck"], list(ARMS))
        ),
        NamedGrid("scan-9", "small SCAN, decay, no decay and placebo", lambda: _arms(["scan/small"], list(ARMS))),
        NamedGrid("optimizers", "modular addition under five optimizers", _optimizers),
        NamedGrid("widths", "modular addition at four widths", _widths),
        NamedGrid("lm-6", "small language model, AdamW and Muon (--set text=FILE)", lambda: _language("lm/small")),
        NamedGrid(
            "lm-stories-6", "51M language model with key retrieval, AdamW and Muon", lambda: _language("lm/stories")
        ),
        NamedGrid("lm-shift-3", "small language model, text changes half-way (--set shift_text=FILE)", _shift),
    )
}
