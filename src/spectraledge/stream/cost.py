"""What monitoring will cost, told before the first step."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from ..errors import SettingError

if TYPE_CHECKING:
    from .probe import Probe

# Time of one append over the time to read (lags + 2) P entries at the bandwidth measured below. That sum partly comes
# out of the last-level cache; against memory alone the factors are 2 and 4 to 5 (benchmarks/bench_append.py).
_FACTOR = {"compiled": 3.0, "torch": 6.0}


@dataclass(frozen=True)
class Plan:
    """Cost of monitoring.

    Attributes:
        n_parameters: Entries P of the parameter vector.
        n_blocks: Recorded blocks B.
        lags: Stored updates L.
        ring_bytes: Memory of the ring: ``(L + 1) P`` entries and one more with decay products, less with another
            store or precision.
        append_ms: Estimated time of one snapshot, from this machine's measured memory bandwidth.
        record_bytes: Size of one record in the file.
        every: Optimizer steps between snapshots.
        device: Where the ring is kept.
        backend: ``"compiled"`` or ``"torch"``.
        store: ``"device"``, ``"host"``, ``"file"`` or ``"sketch"``.
        precision: ``"full"`` or ``"bfloat16"``.
        sketch_size: Size of the sketches, or None.
        file_bytes: Size of the ring's file; 0 without.
        probe_evaluations: Cost of one probe in gradient evaluations on its own batch; 0 without probes.
        probe_every: Optimizer steps between probes; 0 without.
        probe_bytes: Memory that a probe takes while it lasts, over that of one gradient evaluation.
    """

    n_parameters: int
    n_blocks: int
    lags: int
    ring_bytes: int
    append_ms: float
    record_bytes: int
    every: int
    device: str
    backend: str
    probe_evaluations: float = 0.0
    probe_every: int = 0
    probe_bytes: int = 0
    store: str = "device"
    precision: str = "full"
    sketch_size: int | None = None
    file_bytes: int = 0

    def __str__(self) -> str:
        return self._recording() + (f"; {self._probes()}" if self.probe_every else "")

    def _probes(self) -> str:
        return (
            f"a probe every {self.probe_every} steps at {self.probe_evaluations:.3g} gradient evaluations "
            f"({self.probe_evaluations / self.probe_every:.2g} a step) and {human_bytes(self.probe_bytes)}"
        )

    def _recording(self) -> str:
        return (
            f"{self.n_parameters:,} parameters in {self.n_blocks} blocks, {self.lags} lags: "
            f"{human_bytes(self.ring_bytes)} of memory on {self.device}{self._kept()}, "
            f"about {self.append_ms:.3g} ms a snapshot "
            f"({self.append_ms / self.every:.3g} ms a step at every={self.every}), "
            f"{human_bytes(self.record_bytes)} a record"
        )

    def _kept(self) -> str:
        as_bfloat16 = ", updates in bfloat16" if self.precision == "bfloat16" else ""
        in_file = f" and a file of {human_bytes(self.file_bytes)}" if self.file_bytes else ""
        sketched = f", updates in sketches of {self.sketch_size:,}" if self.sketch_size else ""
        return as_bfloat16 + in_file + sketched

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def make_plan(
    n_parameters: int,
    n_blocks: int,
    lags: int,
    *,
    every: int,
    decay: bool = False,
    itemsize: int = 4,
    device: torch.device | str = "cpu",
    backend: str = "compiled",
    probe: Probe | None = None,
    probe_every: int = 0,
    store: str = "device",
    precision: str = "full",
    sketch_size: int | None = None,
    append_ms: float | None = None,
) -> Plan:
    """Cost of monitoring ``n_parameters`` in ``n_blocks`` with ``lags`` lags.

    Args:
        n_parameters: P.
        n_blocks: B.
        lags: L.
        every: Steps between snapshots.
        decay: Whether decay products are kept.
        itemsize: Bytes an entry: 4, or 8 for float64 parameters.
        device: Where the ring lives; its bandwidth is measured.
        backend: "compiled" or "torch".
        probe: What is probed, if anything.
        probe_every: Steps between probes.
        store: Where updates are kept.
        precision: "full" or "bfloat16".
        sketch_size: m, for ``store="sketch"``.
        append_ms: Time of a snapshot where it has been measured; else it is estimated.
    """
    size = ring_size(
        n_parameters, n_blocks, lags, decay=decay, itemsize=itemsize, store=store, precision=precision,
        sketch_size=sketch_size,
    )  # fmt: skip
    if append_ms is None:
        # a sketch reads the parameters once, and takes about as long over them as an append of 7 lags
        passes = 9 if store == "sketch" else lags + 2
        bandwidth = read_bandwidth(torch.device(device))
        append_ms = 1e3 * _FACTOR[backend] * passes * n_parameters * itemsize / bandwidth + 0.05
    n_numbers = n_blocks * ((lags + 1) * (2 if decay else 1) + 4 + (1 if decay else 0))
    record_bytes = n_numbers * 8 * 4 // 3 + 500  # base64; the rest of the line
    evaluations, vectors = (0.0, 0) if probe is None else (probe.total_evaluations, probe.vectors)
    return Plan(
        n_parameters=n_parameters,
        n_blocks=n_blocks,
        lags=lags,
        ring_bytes=size.memory,
        append_ms=append_ms,
        record_bytes=record_bytes,
        every=every,
        device=str(device),
        backend=backend,
        probe_evaluations=evaluations + (2.0 * every if probe is not None and probe.replicate is not None else 0.0),
        probe_every=0 if probe is None else probe_every,
        probe_bytes=vectors * n_parameters * itemsize,
        store=store,
        precision=precision,
        sketch_size=sketch_size if store == "sketch" else None,
        file_bytes=size.file,
    )


@dataclass(frozen=True)
class RingSize:
    """Bytes of a ring.

    Attributes:
        memory: Where the ring lives: on the device, or in main memory.
        file: In its file.
        pinned: Room in main memory through which parameters come from an accelerator.
    """

    memory: int
    file: int = 0
    pinned: int = 0


def ring_size(
    n_parameters: int,
    n_blocks: int,
    lags: int,
    *,
    decay: bool = False,
    itemsize: int = 4,
    store: str = "device",
    precision: str = "full",
    sketch_size: int | None = None,
    accelerator: bool = False,
) -> RingSize:
    """What a ring takes, before it is made.

    Args:
        n_parameters: P, on this process.
        n_blocks: B.
        lags: L.
        decay: Whether decay products are kept.
        itemsize: Bytes of an entry of the snapshot: 4, or 8 for float64 parameters.
        store: "device", "host", "file" or "sketch".
        precision: "full" or "bfloat16".
        sketch_size: m, for "sketch".
        accelerator: Whether the parameters are on one.

    Example:
        >>> ring_size(1000, 2, 19).memory, ring_size(1000, 2, 19, precision="bfloat16").memory
        (80000, 42000)
        >>> ring_size(1000, 2, 19, store="file")
        RingSize(memory=4000, file=76000, pinned=0)
    """
    if store == "sketch":
        return RingSize(8 * n_blocks * (sketch_size or 0) * (lags + (2 if decay else 1)))
    updates = n_parameters * lags * (2 if precision == "bfloat16" else itemsize)
    rest = n_parameters * itemsize * (2 if decay else 1)
    pinned = n_parameters * itemsize if accelerator and store != "device" else 0
    return RingSize(rest, updates, pinned) if store == "file" else RingSize(updates + rest, 0, pinned)


def read_bandwidth(device: torch.device) -> float:
    """Bytes a second at which ``device`` reads memory: best of four sums over 48 MB, more than caches hold."""
    x = torch.ones(12_000_000, device=device)  # not zeros: untouched pages all share one
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        float(x.sum())  # waits for an accelerator
        best = min(best, time.perf_counter() - start)
    return x.numel() * 4 / best


def free_memory(device: torch.device) -> int | None:
    """Free bytes on ``device``; None where that cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def check_memory(n_bytes: int, device: torch.device, n_parameters: int, lags: int) -> None:
    """Refuse a ring that would take more than a quarter of the free memory.

    Raises:
        SettingError: With the figures and the cure.
    """
    free = free_memory(device)
    if free is None or n_bytes <= free / 4:
        return
    device_cure = "" if device.type == "cpu" else 'store="host", '
    raise SettingError(
        f"the ring must fit in a quarter of the free memory; {n_parameters:,} parameters with lags={lags} need "
        f"{human_bytes(n_bytes)} and {device} has {human_bytes(free)} free. "
        f'Use {device_cure}precision="bfloat16", store="file" or store="sketch" (memory= chooses), fewer lags (a '
        "smaller window), or params= to monitor part of the model."
    )


def human_bytes(n: float) -> str:
    """Bytes for people.

    Example:
        >>> human_bytes(5_800_000)
        '5.8 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
