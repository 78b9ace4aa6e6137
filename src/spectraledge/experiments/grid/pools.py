"""The workers of a grid: joblib over processes of this machine, a Ray cluster or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...checkpoints.pools import POOLS as _POOLS
from .outcome import Outcome
from .worker import Task, run_cell

Submit = Callable[[Sequence[Task]], Iterator[Outcome]]


@contextmanager
def _pool(engine: str, jobs: int, address: str | None) -> Iterator[Submit]:
    """Workers that run cells."""
    with _POOLS[engine](jobs, address) as submit:
        yield lambda tasks: submit(run_cell, tasks)


POOLS: dict[str, Callable[[int, str | None], Any]] = {engine: partial(_pool, engine) for engine in _POOLS}
