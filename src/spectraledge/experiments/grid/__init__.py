"""Grids of runs: many catalogued runs at once, each in a process and a folder of its own, resumable as a whole.

``spectraledge.experiments.grid.run_grid`` runs one; ``GRIDS`` names those that come with the package.
"""

from __future__ import annotations

from .cells import Cell
from .cost import Cost, plan_grid
from .engine import ENGINES, run_grid
from .named import GRIDS, NamedGrid, named_grid
from .outcome import GridResult, Outcome
from .watch import GridState

__all__ = [
    "ENGINES",
    "GRIDS",
    "Cell",
    "Cost",
    "GridResult",
    "GridState",
    "NamedGrid",
    "Outcome",
    "named_grid",
    "plan_grid",
    "run_grid",
]
