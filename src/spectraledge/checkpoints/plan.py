"""What an analysis will do, settled before any weight is read: partitions, parts, and the memory they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import SettingError
from ..stream.blocks import Blocks, BlockScheme, make_blocks
from ..stream.cost import free_memory, human_bytes
from ..stream.kernel import load_kernel
from ..stream.parameters import ParameterFilter
from .groups import Part, make_parts
from .parallel import Workers
from .rows import Job, find_updates
from .scan import Stretch
from .structure import Structure
from .tied import tied_names


@dataclass(frozen=True)
class Choices:
    """How to analyse, whatever the series."""

    lags: int
    scheme: BlockScheme
    params: ParameterFilter | None
    heads: int | Mapping[str, int] | None
    memory_bytes: int
    strict: bool
    workers: Workers


@dataclass(frozen=True)
class Plan:
    """The work on one stretch.

    Attributes:
        stretch: Its checkpoints.
        structure: Its tensors, tied ones once.
        blocks: The partition.
        tied: Kept name to the others that are the same weights.
        job: What is the same for all parts.
        parts: What is done one by one.
    """

    stretch: Stretch
    structure: Structure
    blocks: Blocks
    tied: dict[str, list[str]]
    job: Job
    parts: list[Part]

    @property
    def n_readings(self) -> int:
        """Checkpoints times tiles: what progress counts."""
        if not self.job.updates:
            return 0
        return len(self.job.members) * sum(len(part.tiles) for part in self.parts)

    @property
    def tile_bytes(self) -> int:
        """Memory of a worker."""
        return max(tile.n_bytes for part in self.parts for tile in part.tiles)


def make_plan(stretch: Stretch, choices: Choices) -> Plan:
    """Settle the work on a stretch; its ends are read to find tied weights.

    Raises:
        SettingError: If a choice cannot be, or the memory does not suffice.
        Unreadable: If one of the ends cannot be read.
    """
    tied = tied_names(stretch)
    once = stretch.structure.without({name for names in tied.values() for name in names})
    shapes = {name: entry.shape for name, entry in once.entries.items()}
    blocks = make_blocks(shapes, choices.scheme, choices.heads)
    parts = make_parts(blocks, once.entries, choices.lags, choices.memory_bytes)
    job = Job(stretch.members, once.entries, find_updates(stretch.members), choices.lags)
    return Plan(stretch, once, blocks, tied, job, parts)


def fitting_workers(plans: Sequence[Plan], choices: Choices) -> Workers:
    """As many workers as the memory has room for; their number changes no result.

    Raises:
        SettingError: If even one would take more than a quarter of what is free.
    """
    tile_bytes = max(plan.tile_bytes for plan in plans)
    workers = choices.workers
    jobs = max(1, min(workers.jobs, choices.memory_bytes // tile_bytes))
    free = free_memory(torch.device("cpu"))
    if free is not None and workers.address is None:
        if tile_bytes > free / 4:
            raise SettingError(
                f"the ring must fit in a quarter of the free memory; with lags={choices.lags} it would take "
                f"{human_bytes(tile_bytes)} and {human_bytes(free)} are free. "
                f"Set memory_bytes={free // 4} or less: the parameters are then taken in smaller parts."
            )
        jobs = max(1, min(jobs, free // 4 // tile_bytes))
    return Workers(jobs, workers.engine, workers.address)


def dependencies(plans: Sequence[Plan]) -> dict[str, Any]:
    """What the sums of parts depend on, by name; plain values."""
    from .. import __version__

    return {
        "the series": [[(m.step, m.index, m.mark) for m in plan.job.members] for plan in plans],
        "the tensors": [[asdict(entry) for entry in plan.structure.entries.values()] for plan in plans],
        "the blocks": [
            (plan.blocks.names, [[asdict(atom) for atom in block] for block in plan.blocks.atoms]) for plan in plans
        ],
        "the lags": [plan.job.lags for plan in plans],
        "the parts": [[[tile.n_bytes for tile in part.tiles] for part in plan.parts] for plan in plans],
        "the program": [__version__, load_kernel() is not None],
    }
