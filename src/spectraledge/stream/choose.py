"""Ways to keep the ring within a budget of memory: what each takes, how long it takes, and which to choose."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ..errors import OutputError, SettingError
from ..theory.sketch import relative_error
from .blocks import make_blocks
from .cost import human_bytes, ring_size
from .sketch import DEFAULT_SIZE
from .store import make_ring

_LEAST_SKETCH = 1024
_TRIED = 500_000  # parameters of the rings that are timed: with 19 lags 40 MB, more than caches hold


@dataclass(frozen=True)
class Candidate:
    """One way to keep the ring.

    Attributes:
        store: "device", "host", "file" or "sketch".
        precision: "full" or "bfloat16".
        sketch_size: m, or None.
        memory_bytes: Memory it takes, on the device or in main memory, pinned room included.
        file_bytes: Size of its file.
        error: What it does to the products, in words.
        fits: Whether it fits into the budget, and its file onto the disk; None without a budget.
        append_ms: Time of one snapshot on this machine, scaled from a small ring; None where not measured.
    """

    store: str
    precision: str
    sketch_size: int | None
    memory_bytes: int
    file_bytes: int
    error: str
    fits: bool | None = None
    append_ms: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        if self.store == "sketch":
            return f"sketch of {self.sketch_size:,}"
        return f"{self.store}, {self.precision}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"name": self.name, **asdict(self)}


def candidates(
    n_parameters: int,
    n_blocks: int,
    lags: int,
    *,
    memory: float | None = None,
    window: int = 10,
    decay: bool = False,
    itemsize: int = 4,
    device: torch.device | str = "cpu",
    sketch_size: int = DEFAULT_SIZE,
    folder: str | os.PathLike[str] | None = None,
    probes: bool = False,
) -> list[Candidate]:
    """All ways, in order of preference: exact ones in memory, bfloat16, exact in a file, a sketch.

    A sketch that would not fit is halved down to 1024 numbers. What fits is told from sizes alone, so that ranks
    with the same arguments choose alike.

    Args:
        n_parameters: P.
        n_blocks: B.
        lags: L.
        memory: Budget [bytes] for the ring; None for no budget.
        window: W, for the error of a sketch.
        decay: Whether decay products are kept.
        itemsize: Bytes of an entry: 4, or 8 for float64 parameters.
        device: Where the parameters are.
        sketch_size: Largest m.
        folder: Where a file would be; without it there is none.
        probes: Whether probes need the updates themselves, which a sketch does not keep.
    """
    device = torch.device(device)
    accelerator = device.type != "cpu"
    limit = float("inf") if memory is None else memory

    def kept(store: str, precision: str) -> Candidate:
        size = ring_size(
            n_parameters, n_blocks, lags, decay=decay, itemsize=itemsize, store=store, precision=precision,
            accelerator=accelerator,
        )  # fmt: skip
        error = "none" if precision == "full" else "at most 2^-8 of each update, measured"
        return Candidate(store, precision, None, size.memory + size.pinned, size.file, error)

    found = [kept("device", "full")]
    found += [kept("host", "full")] if accelerator else []
    found += [kept("device", "bfloat16")]
    found += [kept("host", "bfloat16")] if accelerator else []
    found += [kept("file", precision) for precision in ("full", "bfloat16")] if folder is not None else []
    if not probes:
        m = sketch_size
        while m > _LEAST_SKETCH and 8 * n_blocks * m * (lags + (2 if decay else 1)) > limit:
            m //= 2
        size = ring_size(n_parameters, n_blocks, lags, decay=decay, store="sketch", sketch_size=m)
        error = f"{100 * relative_error(window, m):.2g} % of each sigma"
        found.append(Candidate("sketch", "full", m, size.memory, 0, error))
    if memory is None:
        return found
    room = _room(folder)
    return [replace(c, fits=c.memory_bytes <= memory and (room is None or c.file_bytes <= room)) for c in found]


def pick(found: Sequence[Candidate], memory: float) -> Candidate:
    """The first that fits.

    Args:
        found: As ``candidates`` gives with a budget.
        memory: The budget [bytes].

    Raises:
        SettingError: If none fits.

    Example:
        >>> pick(candidates(124_000_000, 13, 19, memory=6e9), 6e9).name
        'device, bfloat16'
    """
    for candidate in found:
        if candidate.fits:
            return candidate
    least = min(found, key=lambda c: c.memory_bytes)
    raise SettingError(
        f"memory must hold the ring; got {human_bytes(memory)}, and the least is {least.name} with "
        f"{human_bytes(least.memory_bytes)}{_of_file(least)}. Give more, or use fewer lags or blocks."
    )


def reason(chosen: Candidate, found: Sequence[Candidate], memory: float) -> str:
    """What was chosen and why, in one line."""
    better = found[: list(found).index(chosen)]
    why = f"; {better[0].name} would take {human_bytes(better[0].memory_bytes)}" if better else ""
    return (
        f"ring within {human_bytes(memory)}: {chosen.name}, {human_bytes(chosen.memory_bytes)}{_of_file(chosen)}, "
        f"error {chosen.error}{why}"
    )


def timed(
    found: Sequence[Candidate],
    n_parameters: int,
    lags: int,
    *,
    decay: bool = False,
    device: torch.device | str = "cpu",
    itemsize: int = 4,
    folder: str | os.PathLike[str] | None = None,
) -> list[Candidate]:
    """Candidates with the time of a snapshot, from full rings of at most half a million parameters, scaled up.

    The file of a small ring stays in the system's cache; a large one that does not is as slow as its disk.

    Args:
        found: As ``candidates`` gives.
        n_parameters: P.
        lags: L.
        decay: Whether decay products are kept.
        device: Where the parameters would be.
        itemsize: 4 or 8.
        folder: Where a file would be.
    """
    n = min(n_parameters, _TRIED)
    dtype = torch.float64 if itemsize == 8 else torch.float32
    tensors = {"w": torch.randn(n, dtype=dtype, generator=torch.Generator().manual_seed(0)).to(device)}
    blocks = make_blocks({"w": (n,)}, "all")
    out = []
    for candidate in found:
        with tempfile.TemporaryDirectory(dir=_existing(folder)) as place:
            options = {"sketch_size": candidate.sketch_size} if candidate.sketch_size else {}
            try:
                ring = make_ring(
                    blocks,
                    tensors,
                    lags,
                    decay=decay,
                    store=candidate.store,
                    precision=candidate.precision,
                    folder=place,
                    **options,  # type: ignore[arg-type]
                )
            except (SettingError, OutputError):  # a file where files are kept in memory
                out.append(candidate)
                continue
            for buffer in ring.state_tensors().values():
                buffer.fill_(1e-3)  # not zeros: untouched pages all share one
            ring.n_appended = lags
            best = float("inf")
            for _ in range(3):
                began = time.perf_counter()
                ring.append(tensors)
                best = min(best, time.perf_counter() - began)
            out.append(replace(candidate, append_ms=1e3 * best * n_parameters / n))
    return out


def _existing(folder: str | os.PathLike[str] | None) -> Path | None:
    """The folder, or the nearest above it that is there."""
    if folder is None:
        return None
    path = Path(folder).absolute()
    return next((p for p in (path, *path.parents) if p.is_dir()), None)


def _room(folder: str | os.PathLike[str] | None) -> int | None:
    place = _existing(folder)
    try:
        return None if place is None else shutil.disk_usage(place).free
    except OSError:
        return None


def _of_file(candidate: Candidate) -> str:
    return f" and a file of {human_bytes(candidate.file_bytes)}" if candidate.file_bytes else ""
