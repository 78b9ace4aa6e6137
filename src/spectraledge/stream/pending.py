"""Sums that an accelerator, or a thread, is still at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


class Pending:
    """The result of ``ring.start``: computed where it was left, fetched once.

    Args:
        finish: Waits and returns the sums.

    Example:
        >>> pending = Pending(lambda: np.ones((1, 5)))
        >>> pending.result().shape
        (1, 5)
    """

    def __init__(self, finish: Callable[[], np.ndarray]) -> None:
        self._finish: Callable[[], np.ndarray] | None = finish
        self._sums: np.ndarray | None = None

    @property
    def done(self) -> bool:
        """Whether the sums are here."""
        return self._sums is not None

    def result(self) -> np.ndarray:
        """(B, C) float64 sums; waits where they are not here yet."""
        if self._finish is not None:
            finish, self._finish = self._finish, None
            self._sums = finish()
        assert self._sums is not None
        return self._sums


class Fetched:
    """A tensor on its way to main memory: from CUDA through pinned memory, behind an event.

    Attributes:
        waits: Whether calling this may have to wait.
    """

    def __init__(self, tensor: torch.Tensor, owner: np.ndarray) -> None:
        self._owner = owner
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._here.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._here = tensor.cpu()
        self.waits = self._event is not None

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        """The tensor as an array, and the owners of its rows."""
        if self._event is not None:
            self._event.synchronize()
        return self._here.numpy(), self._owner
