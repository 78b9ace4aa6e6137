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
        ring_bytes: Memory of the ring, ``(L + 1) P`` entries and one more with decay products.
        append_ms: Estimated time of one snapshot, from this machine's measured memory bandwidth.
        record_bytes: Size of one record in the file.
        every: Optimizer steps between snapshots.
        device: Where the ring is kept.
        backend: ``"compiled"`` or ``"torch"``.
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
            f"{human_bytes(self.ring_bytes)} of memory on {self.device}, about {self.append_ms:.3g} ms a snapshot "
            f"({self.append_ms / self.every:.3g} ms a step at every={self.every}), "
            f"{human_bytes(self.record_bytes)} a record"
        )

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
    """
    ring_bytes = n_parameters * itemsize * (lags + (2 if decay else 1))
    bandwidth = read_bandwidth(torch.device(device))
    append_ms = 1e3 * _FACTOR[backend] * (lags + 2) * n_parameters * itemsize / bandwidth + 0.05
    n_numbers = n_blocks * ((lags + 1) * (2 if decay else 1) + 4 + (1 if decay else 0))
    record_bytes = n_numbers * 8 * 4 // 3 + 500  # base64; the rest of the line
    evaluations, vectors = (0.0, 0) if probe is None else (probe.total_evaluations, probe.vectors)
    return Plan(
        n_parameters=n_parameters,
        n_blocks=n_blocks,
        lags=lags,
        ring_bytes=ring_bytes,
        append_ms=append_ms,
        record_bytes=record_bytes,
        every=every,
        device=str(device),
        backend=backend,
        probe_evaluations=evaluations + (2.0 * every if probe is not None and probe.replicate is not None else 0.0),
        probe_every=0 if probe is None else probe_every,
        probe_bytes=vectors * n_parameters * itemsize,
    )


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
    cure = "" if device.type == "cpu" else 'Keep it in main memory with store="host", or use '
    raise SettingError(
        f"the ring must fit in a quarter of the free memory; {n_parameters:,} parameters with lags={lags} need "
        f"{human_bytes(n_bytes)} and {device} has {human_bytes(free)} free. "
        f"{cure or 'Use '}fewer lags (a smaller window), or params= to monitor part of the model."
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
