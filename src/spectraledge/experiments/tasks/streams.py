"""Generators of a task's batches: one for a run, and one for each replica that shares its data."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np

from ...errors import SettingError

_BATCH_STREAM = 5


def noise_generator(seed: int, stream: int, *, replica: bool = False) -> np.random.Generator:
    """Generator of batches or gradient noise.

    Args:
        seed: The run's.
        stream: 0 for the run itself.
        replica: Refuse stream 0.

    Raises:
        SettingError: If stream is below 0, or below 1 for a replica.
    """
    if stream < int(replica):
        raise SettingError(
            f"stream must be at least {int(replica)}; got {stream}. Stream 0 is the run's own; replicas count from 1."
        )
    return np.random.default_rng([seed, _BATCH_STREAM, stream])


class OwnBatches:
    """The part of a task that concerns its batch generator: to be started with ``_start_batches``."""

    _seed: int
    _rng: np.random.Generator

    def _start_batches(self, seed: int, stream: int) -> None:
        self._seed, self._rng = seed, noise_generator(seed, stream)

    def replica(self, stream: int) -> Self:
        """The same data, shared, with batches or noise of its own from their beginning; ``stream`` 1 and above.

        Raises:
            SettingError: If stream is below 1.
        """
        twin = copy.copy(self)
        twin._rng = noise_generator(self._seed, stream, replica=True)
        return twin

    def state(self) -> dict[str, Any]:
        """State of the generator, as values that JSON can hold."""
        return dict(self._rng.bit_generator.state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Put the generator back."""
        self._rng.bit_generator.state = state
