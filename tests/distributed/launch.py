"""Start one real process a rank, as torchrun does, and collect what each returns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKER = Path(__file__).parent / "rank_worker.py"


@dataclass(frozen=True)
class Outcome:
    """How one rank has ended."""

    code: int
    result: dict[str, Any]
    stderr: str


def launch(case: str, world: int, folder: Path, *, timeout: float = 90.0, **options: Any) -> list[Outcome]:
    """Run ``case`` of ``rank_worker.py`` on ``world`` ranks; none outlives ``timeout`` seconds.

    The port is free when it is chosen; rank 0 listens on it at once.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join([str(WORKER.parent), *sys.path]),
    }
    running = []
    for rank in range(world):
        with open(folder / f"{case}-{world}.{rank}.err", "w") as err:
            running.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-W",
                        "ignore::FutureWarning",
                        str(WORKER),
                        case,
                        str(folder),
                        json.dumps(options),
                    ],
                    env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=err,
                    stderr=err,
                )
            )
    outcomes = []
    try:
        for rank, process in enumerate(running):
            try:
                code = process.wait(timeout=timeout)
            except subprocess.TimeoutExpired:
                code = -999
            result = folder / f"{case}-{world}.{rank}.json"
            outcomes.append(
                Outcome(
                    code,
                    json.loads(result.read_text()) if result.exists() else {},
                    (folder / f"{case}-{world}.{rank}.err").read_text(),
                )
            )
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    return outcomes
