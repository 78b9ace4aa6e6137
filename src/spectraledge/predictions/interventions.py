"""Intervention studies found beside runs: the cost of the same change at k* and at other cuts, from plain files.

Reads what ``spectraledge intervene`` writes, without the code that wrote it.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..theory.bootstrap import cluster_bootstrap
from ..theory.sign_flip import sign_flip_p
from .context import Context
from .pooled import N_BOOT, ends
from .runs import Run

KINDS = ("close_gap", "momentum", "step")
"""Changes, the nearest to a collapse of the gap first."""

FIRST, LAST = 0, -1
_OUTCOME = "test_loss"
_FEWEST_SEEDS = 2


@dataclass(frozen=True)
class Intervention:
    """Cost of a change at k* and at other cuts after further training, one pair a seed.

    Attributes:
        kind: Of the change.
        difference: Mean over seeds of (cost at k* - mean cost at other cuts) [loss]; ``low``, ``high``, ``p`` of it.
        others: Mean cost at other cuts; ``others_low``, ``others_p`` of it.
        at_k: Mean cost at k*.
        span: Mean cost of a random direction in the span; NaN where there is none.
        n_seeds: Units.
        positions: Distinct k* at the forks.
        seeds: Seed to its difference.
        at_once: The same right after the change, before training makes up for it.
    """

    kind: str
    difference: float
    low: float
    high: float
    p: float
    others: float
    others_low: float
    others_p: float
    at_k: float
    span: float
    n_seeds: int
    positions: tuple[int, ...]
    seeds: dict[int, float]
    at_once: Intervention | None = None


def studies_beside(runs: Sequence[Run]) -> list[Path]:
    """Folders with an intervention study, in the folder that holds all runs or one below it."""
    folders = [run.recording.path.resolve().parent for run in runs if run.recording.path is not None]
    if not folders:
        return []
    above = Path(os.path.commonpath([str(folder.parent) for folder in folders]))
    found = [path.parent for pattern in ("study.json", "*/study.json") for path in sorted(above.glob(pattern))]
    return [folder for folder in found if _is_intervention(folder)]


def read_interventions(folders: Iterable[Path], context: Context) -> Intervention | None:
    """The change nearest to a collapse that the studies hold for two seeds; None where they hold none."""
    rows = [row for folder in folders for path in sorted(folder.glob("seed-*.jsonl")) for row in _rows(path)]
    for kind in KINDS:
        found = _contrasts(rows, kind, context, LAST)
        if found is not None:
            at_once = _contrasts(rows, kind, context, FIRST)
            return replace(found, at_once=at_once)
    return None


def _contrasts(rows: Sequence[dict[str, Any]], kind: str, context: Context, when: int) -> Intervention | None:
    untouched = {_fork(row): _cost(row, when) for row in rows if row.get("position") == "none"}
    forks: dict[tuple[Any, ...], dict[Any, float]] = defaultdict(dict)
    k_star: dict[tuple[Any, ...], int] = {}
    for row in rows:
        fork = _fork(row)
        if row.get("kind") == kind and row.get("position") != "none" and fork in untouched:
            forks[fork, row.get("amount")][row["position"]] = _cost(row, when) - untouched[fork]
            k_star[fork, row.get("amount")] = int(row.get("k_star") or 0)
    by_seed: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    positions = set()
    for (fork, amount), costs in forks.items():
        k = k_star[fork, amount]
        # Where k* is looked for: cuts up to half of the window; those behind mix noise with noise.
        half = max((x for x in costs if isinstance(x, int)), default=0) // 2 + 1
        elsewhere = [x for p, x in costs.items() if isinstance(p, int) and p != k and p <= half]
        if k in costs and elsewhere and np.isfinite([costs[k], *elsewhere]).all():
            positions.add(k)
            by_seed[int(fork[0])].append((costs[k], float(np.mean(elsewhere)), costs.get("span", np.nan)))
    if len(by_seed) < _FEWEST_SEEDS:
        return None
    table = {seed: np.mean(np.array(values), axis=0) for seed, values in by_seed.items()}
    at_k, others = (np.array([x[i] for x in table.values()]) for i in (0, 1))
    span = [x[2] for x in table.values() if np.isfinite(x[2])]
    first = cluster_bootstrap(np.mean, list(at_k - others), n_boot=N_BOOT, rng=context.rng(251), interval="t")
    second = cluster_bootstrap(np.mean, list(others), n_boot=N_BOOT, rng=context.rng(252), interval="t")
    low, high = ends(first)
    return Intervention(
        kind,
        float(first.value),
        low,
        high,
        float(sign_flip_p(at_k - others, rng=context.rng(253))),
        float(second.value),
        ends(second)[0],
        float(sign_flip_p(others, rng=context.rng(254))),
        float(at_k.mean()),
        float(np.mean(span)) if span else float("nan"),
        len(table),
        tuple(sorted(positions)),
        {seed: float(x[0] - x[1]) for seed, x in table.items()},
    )


def _fork(row: dict[str, Any]) -> tuple[Any, ...]:
    return row.get("seed"), row.get("time")


def _cost(row: dict[str, Any], when: int) -> float:
    """The first or the last evaluation after the change."""
    values = row.get(_OUTCOME) or [None]
    return float("nan") if values[when] is None else float(values[when])


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break  # cut short by a kill
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _is_intervention(folder: Path) -> bool:
    try:
        study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    named = study.get("study") if isinstance(study, dict) else None
    return isinstance(study, dict) and (named == "intervention" or (named is None and "positions" in study))
