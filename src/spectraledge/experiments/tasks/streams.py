"""Generators of the exact tasks: one for a run, and one for each replica that shares its data."""

from __future__ import annotations

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
