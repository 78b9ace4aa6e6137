"""Studies of many seeds: one design a folder, one file of JSON lines a seed, stopped ones go on.

Knows nothing about what a seed does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ..errors import DataError, SettingError
from .files import read_json, write_json
from .intervene_files import read_rows, seed_file
from .parent import end_with

STUDY = "study.json"


def claim_folder(folder: Path, design: Mapping[str, Any]) -> None:
    """Write the design into ``study.json``, or check that the one there is the same.

    Raises:
        SettingError: If the folder holds a study of another design; the differing keys are named.
        OutputError: If the folder cannot be written.
    """
    table = json.loads(json.dumps(design))
    path = folder / STUDY
    if not path.exists():
        write_json(path, table)
        return
    there = read_json(path)
    other = sorted(key for key in table.keys() | there.keys() if table.get(key) != there.get(key))
    if other:
        raise SettingError(
            f"a study must keep its design; got other values of {', '.join(other)} than {path} has. "
            "Give those, or choose another folder."
        )


def distinct_seeds(seeds: Sequence[int], settings: Mapping[str, object], jobs: int) -> list[int]:
    """Seeds in the order given, once each.

    Raises:
        SettingError: If there is no seed or no process, or the settings hold a seed of their own.
    """
    if "seed" in settings:
        raise SettingError(f"seeds must be given by seeds=; got seed={settings['seed']} in settings. Leave it out.")
    found = list(dict.fromkeys(int(seed) for seed in seeds))
    if not found or jobs < 1:
        raise SettingError(f"a study needs a seed and a process; got {len(found)} and {jobs}. Use 8 seeds, jobs=1.")
    return found


def run_seeds(
    work: Callable[[Any, int, Path], None],
    design: Any,
    seeds: Sequence[int],
    folder: Path,
    *,
    rows_per_seed: int,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run ``work(design, seed, folder)`` for every seed whose file is not full, and return all rows.

    Args:
        work: A function of a module, so that another process can find it; appends to ``seed_file``.
        design: Passed on; can be pickled.
        seeds: Distinct.
        folder: Of the study.
        rows_per_seed: Rows of a finished seed.
        jobs: Processes; with more than one, the calling script needs its ``__main__`` guard.
        progress: Called as ``progress(seeds finished, seeds)``.
    """
    due = [seed for seed in seeds if len(read_rows(seed_file(folder, seed))) < rows_per_seed]
    finished = len(seeds) - len(due)

    def tell() -> None:
        nonlocal finished
        finished += 1
        if progress is not None:
            progress(finished, len(seeds))

    if jobs == 1 or len(due) <= 1:
        for seed in due:
            work(design, seed, folder)
            tell()
    else:
        # spawn: a forked process would inherit torch's threads in an unknown state
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            min(jobs, len(due)), mp_context=context, initializer=end_with, initargs=(os.getpid(),)
        ) as pool:
            for future in as_completed([pool.submit(work, design, seed, folder) for seed in due]):
                future.result()
                tell()
    return [row for seed in seeds for row in read_rows(seed_file(folder, seed))]


def read_seeds(out: str | os.PathLike[str], study: str) -> list[dict[str, Any]]:
    """All finished rows of a study's folder, seed by seed.

    Args:
        out: The folder.
        study: What ``study.json`` must call it.

    Raises:
        DataError: If the folder holds no such study, or no finished row.
    """
    folder = Path(out)
    found = read_json(folder / STUDY).get("study")
    if found != study:
        raise DataError(f"{folder} must hold a study of {study}; got one of {found}. Give the folder of that study.")
    files = sorted(folder.glob("seed-*.jsonl"), key=lambda path: int(path.stem[5:]))
    rows = [row for path in files for row in read_rows(path)]
    if not rows:
        raise DataError(f"{folder} must hold finished rows; got none. Let the study finish a row.")
    return rows
