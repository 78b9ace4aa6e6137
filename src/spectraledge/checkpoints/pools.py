"""Workers for many independent calls of one function, through joblib: this machine, a Ray or a Dask cluster.

Imports neither torch nor the cluster libraries before they are asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import SettingError, require

_RAY = "spectraledge-ray"

Task = TypeVar("Task")
Result = TypeVar("Result")
Submit = Callable[[Callable[[Task], Result], Sequence[Task]], Iterator[Result]]


@contextmanager
def local_pool(jobs: int, address: str | None, backend: str = "loky") -> Iterator[Submit[Any, Any]]:
    """Processes of this machine; ``backend="threading"`` takes threads of this process."""
    if address is not None:
        raise SettingError(f"address must be given with engine ray or dask only; got {address}. Leave it out.")
    yield lambda function, tasks: _parallel(function, tasks, jobs, backend=backend)


@contextmanager
def ray_pool(jobs: int, address: str | None) -> Iterator[Submit[Any, Any]]:
    """Actors of the Ray cluster at ``address``, or of one of ``jobs`` processes on this machine."""
    ray: Any = require("ray", "ray")
    import joblib

    backend: Any = require("ray.util.joblib.ray_backend", "ray")

    class Backend(backend.RayBackend):
        # Inherited from a pool of plain processes, whose own threads cannot end it; actors are ended by anyone.
        supports_return_generator = True

    joblib.register_parallel_backend(_RAY, Backend)
    mine = not ray.is_initialized()
    if mine:
        # Ray gives its workers the lowest but four of priorities, and their children would inherit it: on a machine
        # where anything else runs, they would hardly come to run at all.
        own = {"num_cpus": jobs, "include_dashboard": False, "_system_config": {"worker_niceness": 0}}
        where = own if address is None else {"address": address}
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield lambda function, tasks: _parallel(function, tasks, jobs, backend=_RAY)
    finally:
        if mine:
            ray.shutdown()


@contextmanager
def dask_pool(jobs: int, address: str | None) -> Iterator[Submit[Any, Any]]:
    """Workers of the Dask cluster at ``address``, or of one of ``jobs`` processes on this machine."""
    distributed: Any = require("distributed", "dask")
    import joblib

    if address is not None:
        with distributed.Client(address) as client, joblib.parallel_config("dask", client=client):
            yield lambda function, tasks: _parallel(function, tasks, jobs)
        return
    with (
        distributed.LocalCluster(
            n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config("dask", client=client),
    ):
        yield lambda function, tasks: _parallel(function, tasks, jobs)


POOLS: dict[str, Callable[[int, str | None], Any]] = {"local": local_pool, "ray": ray_pool, "dask": dask_pool}


def _parallel(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, **backend: Any
) -> Iterator[Result]:
    """Results as they come."""
    import joblib

    # One task a batch, sent when a worker is free: others would wait behind a long one.
    parallel = joblib.Parallel(
        n_jobs=jobs, batch_size=1, pre_dispatch="n_jobs", return_as="generator_unordered", **backend
    )
    return iter(parallel(joblib.delayed(function)(task) for task in tasks))
