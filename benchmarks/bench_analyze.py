"""Time and memory of analysing a series of large checkpoints, against reading it once and the same appends in memory.

    python benchmarks/bench_analyze.py [--checkpoints 20] [--megabytes 500] [--lags 19] [--folder DIR] [--cold]

Makes a series of float32 safetensors files of 12 tensors each (a fixed generator) in a temporary folder, or uses the
one in ``--folder``. The files are in the page cache for every measurement, or with ``--cold`` dropped from it before
each. The reference is one thread: every file read once into one buffer, then the appends of the same tiles from
tensors that are in memory already. Where other work is going on, the processor's seconds say more than the clock's.
Memory is RssAnon of the process, looked at every 10 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

import spectraledge as se
from spectraledge.checkpoints.parallel import make_workers
from spectraledge.checkpoints.plan import Choices, Plan, make_plan
from spectraledge.checkpoints.rows import TileRing, read_tile
from spectraledge.checkpoints.scan import scan
from spectraledge.checkpoints.series import find_series

WIDTH, N_TENSORS = 2048, 12


def make(folder: Path, n_checkpoints: int, megabytes: int) -> None:
    """Files of a random walk, written without holding more than one of them."""
    rng = np.random.default_rng(0)
    n_rows = max(1, megabytes * 1_000_000 // (4 * N_TENSORS * WIDTH))
    tensors = [0.02 * rng.standard_normal((n_rows, WIDTH), dtype=np.float32) for _ in range(N_TENSORS)]
    noise = 1e-3 * rng.standard_normal((n_rows, WIDTH), dtype=np.float32)
    table, end = {}, 0
    for i, tensor in enumerate(tensors):
        name = f"layers.{i // 2}.{'attn' if i % 2 else 'mlp'}.weight"
        table[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    for k in range(n_checkpoints):
        with open(folder / f"step-{100 * k}.safetensors", "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for i, tensor in enumerate(tensors):
                if k:
                    tensor += np.roll(noise, 7919 * k + 104729 * i)
                file.write(tensor.data)


class Memory:
    """Largest RssAnon [bytes] of this process while it is open."""

    def __enter__(self) -> Memory:
        self.before = self.peak = anonymous()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, anonymous())


def anonymous() -> int:
    """RssAnon of this process in bytes."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon"))


def prepare(files: list[Path], cold: bool) -> None:
    """Files in the page cache, or out of it."""
    for path in files:
        if cold:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            read_once([path])


def clocks() -> np.ndarray:
    """Seconds by the clock, and of processors."""
    return np.array([time.perf_counter(), time.process_time()])


def read_once(files: list[Path]) -> np.ndarray:
    """Seconds to read every byte once, in order, into one buffer."""
    buffer = bytearray(2**24)
    began = clocks()
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return clocks() - began


def append_all(plan: Plan) -> np.ndarray:
    """Seconds of all appends, the tensors of a tile being in memory before its clock starts."""
    ring, seconds = TileRing(plan.job.lags), np.zeros(2)
    readers = [member.opened() for member in plan.job.members]
    for tile in (tile for part in plan.parts for tile in part.tiles):
        data = [read_tile(reader, plan.job.entries, tile) for reader in readers]
        began = clocks()
        ring.start(tile, data[0])
        for tensors in data[1:]:
            ring.append(tile, tensors)
        seconds += clocks() - began
    for reader in readers:
        reader.close()
    return seconds


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--lags", type=int, default=19)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if options.folder is None:
            make(folder, options.checkpoints, options.megabytes)
        measure(folder, options.lags, options.cold)


def measure(folder: Path, lags: int, cold: bool) -> None:
    """The analysis with one job and two, and the reference, on one series."""
    series = find_series(folder)
    files = [checkpoint.path for checkpoint in series.checkpoints]
    size = sum(path.stat().st_size for path in files)
    where = "not in the page cache" if cold else "in the page cache"
    print(f"{len(files)} files of {size / len(files) / 1e6:.0f} MB, {where}; lags={lags}, torch {torch.__version__}")
    window = (lags + 1) // 2
    seconds = {}
    for jobs in (1, 2):
        prepare(files, cold)
        with Memory() as memory:
            began = clocks()
            recording = se.analyze(series, window=window, lags=lags, jobs=jobs)
            seconds[jobs] = clocks() - began
        print(
            f"analyze, jobs={jobs}: {told(seconds[jobs])}; RssAnon {memory.before / 1e6:.0f} MB before "
            f"and {memory.peak / 1e6:.0f} MB at most; {recording.n_updates} updates"
        )
    choices = Choices(lags, "layer", None, None, 2**31, False, make_workers(1, "local", None))
    torch.set_num_threads(1)
    plan = make_plan(scan(series, None, {}, strict=True).stretches[0], choices)
    appending = append_all(plan)
    prepare(files, cold)
    reading = read_once(files)
    print(f"reference: reading {told(reading)}; appends in memory {told(appending)}")
    for jobs, analysis in seconds.items():
        clock, processor = analysis / (reading + appending)
        print(f"analyze with jobs={jobs} takes {clock:.2f} times as long, {processor:.2f} times the processor time")


def told(seconds: np.ndarray) -> str:
    """Both times in words."""
    return f"{seconds[0]:.2f} s ({seconds[1]:.2f} s of processors)"


if __name__ == "__main__":
    main()
