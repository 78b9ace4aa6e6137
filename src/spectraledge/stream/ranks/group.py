"""The ranks of a run and what they tell each other: a process group of the monitor's own.

Training's collectives run in other groups, so that the two can never pair up with each other.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch

from ...errors import SettingError

T = TypeVar("T")
TIMEOUT = 600.0  # seconds; ranks meet at the end of one optimizer step, so a healthy run waits for milliseconds


class Parted(RuntimeError):
    """The other ranks were not reached: one has died, or did not come in time."""


@dataclass(frozen=True)
class Meeting:
    """What the ranks have found out about each other before a sum.

    Attributes:
        flags: For each flag, whether any rank has raised it.
        agreed: Whether the numbers that must be equal are.
    """

    flags: tuple[bool, ...]
    agreed: bool


class Alone:
    """One process: sums are what they are."""

    rank = 0
    size = 1

    def together(self, function: Callable[[], T]) -> list[T]:
        """Results of ``function`` by rank; a failure anywhere is raised everywhere."""
        return [function()]

    def gather(self, value: T) -> list[T]:
        """What every rank has given, by rank."""
        return [value]

    def first(self, value: T) -> T:
        """What rank 0 has given."""
        return value

    def meet(self, flags: Sequence[bool], numbers: Sequence[float | None]) -> Meeting:
        """Whether any rank raises a flag, and whether all that can give a number give the same.

        Args:
            flags: As many on every rank.
            numbers: As many on every rank; None where this rank has none to give.
        """
        return Meeting(tuple(map(bool, flags)), True)

    def add(self, values: np.ndarray) -> np.ndarray:
        """The sum over ranks, the same on all of them."""
        return values


class Ranks(Alone):
    """All ranks of the default process group.

    Every method is a collective: all ranks call it, in the same order. Messages go over Gloo on the host where there
    is Gloo, so that no accelerator stream is touched.

    Args:
        timeout: Seconds to wait for the other ranks.

    Raises:
        SettingError: If not all ranks come to make the group.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._dist = torch.distributed
        self._group, self._device = _own_group(timeout)
        self.rank, self.size = self._dist.get_rank(), self._dist.get_world_size()

    def together(self, function: Callable[[], T]) -> list[T]:
        error: Exception | None = None
        value: Any = None
        try:
            value = function()
        except Exception as caught:
            error = caught
        found = self.gather((value, None if error is None else f"{type(error).__name__}: {error}"))
        if error is not None:
            raise error
        for rank, (_, reason) in enumerate(found):
            if reason is not None:
                raise SettingError(f"monitoring must be possible on every rank; rank {rank} says: {reason}")
        return [value for value, _ in found]

    def gather(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.size
        with _reaching():
            self._dist.all_gather_object(found, value, group=self._group)
        return found

    def first(self, value: T) -> T:
        box: list[Any] = [value if self.rank == 0 else None]
        with _reaching():
            self._dist.broadcast_object_list(box, src=0, group=self._group, device=self._device)
        return box[0]

    def meet(self, flags: Sequence[bool], numbers: Sequence[float | None]) -> Meeting:
        # the largest of x and of -x: they add up to zero if all are equal
        low = [-math.inf if x is None else -float(x) for x in numbers]
        high = [-math.inf if x is None else float(x) for x in numbers]
        largest = self._reduce(np.array([*map(float, flags), *high, *low]), self._dist.ReduceOp.MAX)
        high_most, low_most = np.split(largest[len(flags) :], 2)
        known = np.isfinite(high_most)
        return Meeting(
            tuple(bool(flag) for flag in largest[: len(flags)]),
            bool(np.all(high_most[known] == -low_most[known])),
        )

    def add(self, values: np.ndarray) -> np.ndarray:
        return self._reduce(values, self._dist.ReduceOp.SUM)

    def _reduce(self, values: np.ndarray, operation: Any) -> np.ndarray:
        tensor = torch.from_numpy(np.array(values, dtype=np.float64)).to(self._device)
        with _reaching():
            self._dist.all_reduce(tensor, operation, group=self._group)
        return tensor.cpu().numpy()


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Parted(f"the other ranks were not reached ({error})") from error


def ranks_of_this_run(ranks: str, timeout: float | None = None) -> Alone:
    """The ranks that train together: those of the default process group.

    Args:
        ranks: ``"all"``, or ``"alone"`` where each process trains a model of its own.
        timeout: Seconds to wait for the other ranks; None means 600.
    """
    return Ranks(timeout or TIMEOUT) if world_size() > 1 and ranks == "all" else Alone()


def world_size() -> int:
    """Processes of the default process group; 1 where there is none."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


_GROUPS: weakref.WeakKeyDictionary[Any, tuple[Any, torch.device]] = weakref.WeakKeyDictionary()


def _own_group(timeout: float) -> tuple[Any, torch.device]:
    """One group for all monitors of a default process group: making one is a collective over the whole world."""
    default = torch.distributed.group.WORLD
    if default in _GROUPS:
        return _GROUPS[default]
    gloo = torch.distributed.is_gloo_available()
    device = torch.device("cpu")
    if not gloo:
        accelerator = torch.accelerator.current_accelerator()
        device = accelerator if accelerator is not None else device
    try:
        group = torch.distributed.new_group(backend="gloo" if gloo else None, timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        raise SettingError(
            f"all {torch.distributed.get_world_size()} ranks must call attach, at the same place of the program; "
            f"they did not meet within {timeout:.0f} s ({error}). Call it on every rank."
        ) from error
    _GROUPS[default] = (group, device)
    return group, device
