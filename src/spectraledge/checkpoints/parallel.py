"""Do the parts of a stretch, some at a time. Which worker does which part changes nothing in any sum."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..errors import SettingError
from .groups import Part
from .pools import POOLS, local_pool
from .rows import Job, Sums, Tick, part_sums
from .scan import Unreadable

ENGINES = tuple(POOLS)

Result = tuple[int, "Sums | Unreadable | None"]


class Abandoned(Exception):
    """Raised by a tick, in a worker whose part nobody waits for any more."""


@dataclass(frozen=True)
class Workers:
    """Who does the parts.

    Attributes:
        jobs: Parts at a time.
        engine: "local" (threads of this process: reading and arithmetic let go of the interpreter), "ray" or "dask".
        address: Of a running cluster.
    """

    jobs: int
    engine: str = "local"
    address: str | None = None


def make_workers(jobs: int | None, engine: str, address: str | None) -> Workers:
    """Workers, their number by default that of torch's threads.

    Raises:
        SettingError: If there is no such engine, or fewer than one job.
    """
    if engine not in ENGINES:
        raise SettingError(f"engine must be one of {', '.join(ENGINES)}; got {engine}. local takes this machine.")
    if jobs is not None and (type(jobs) is not int or jobs < 1):
        raise SettingError(f"jobs must be a whole number of at least 1; got {jobs}. Use the number of cores.")
    if address is not None and engine == "local":
        raise SettingError(f"address must be given with engine ray or dask only; got {address}. Leave it out.")
    return Workers(torch.get_num_threads() if jobs is None else jobs, engine, address)


def do_parts(
    job: Job, parts: Sequence[tuple[int, Part]], workers: Workers, tick: Tick
) -> Generator[tuple[int, Sums], None, None]:
    """Each part's number and sums, in the order in which they get done.

    Args:
        job: The stretch.
        parts: Their numbers and what is in them.
        workers: Who does them.
        tick: Called for each member of each tile; in batches where workers are other processes.

    Raises:
        Unreadable: If a checkpoint cannot be read. Parts that are under way are given up.
    """
    jobs = min(workers.jobs, len(parts))
    if workers.engine == "local" and jobs <= 1:
        with _one_thread():
            for number, part in parts:
                yield number, part_sums(job, part, tick)
        return
    local = workers.engine == "local"
    share = 0.5 / jobs if local else 0.5  # threads share the descriptors of one process
    tasks = [_Task(number, part, job, tick if local else None, share) for number, part in parts]
    by_number = dict(parts)
    pool = local_pool(jobs, None, "threading") if local else POOLS[workers.engine](jobs, workers.address)
    with _one_thread(), pool as submit, _given_up(submit(_do, tasks)) as results:
        for number, result in results:
            if isinstance(result, Unreadable):
                raise result
            if not local:
                for _ in by_number[number].tiles:
                    for member in job.members:
                        tick(member)
            if result is not None:
                yield number, result


@dataclass(frozen=True)
class _Task:
    number: int
    part: Part
    job: Job
    tick: Tick | None
    share: float


def _do(task: _Task) -> Result:
    # a worker has one core, whatever torch thinks; and sums of torch's own kernels depend on their number of threads
    torch.set_num_threads(1)
    try:
        return task.number, part_sums(task.job, task.part, task.tick, share=task.share)
    except Unreadable as error:  # as a value: an engine may wrap what is raised
        return task.number, error
    except Abandoned:
        return task.number, None


@contextmanager
def _given_up(results: Iterator[Result]) -> Iterator[Iterator[Result]]:
    """Results, the rest of which is given up where not all are taken: joblib would warn of that."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*tasks which were still being processed", category=UserWarning
            )
            warnings.filterwarnings("ignore", message=".*tasks have been successfully executed", category=UserWarning)
            close = getattr(results, "close", None)
            if close is not None:
                close()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread a part, as parts are done side by side; the number is the caller's again behind it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
