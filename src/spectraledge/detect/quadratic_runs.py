"""Noisy descent on quadratics, many runs at a time: the optimizer's own dynamics with nothing to learn."""

from __future__ import annotations

import numpy as np

_PARAMETERS = 400
_INNER = 5  # optimizer steps of an update
_BETA1, _BETA2 = 0.9, 0.98


def quadratic_bands(
    n_runs: int, rng: np.random.Generator, *, n_updates: int, lags: int, at_minimum: bool
) -> np.ndarray:
    """Bands of SGD (momentum 0.9) and Adam, both with decoupled weight decay, half of the runs each.

    Curvatures of a run spread evenly in the logarithm over two to four decades below the largest, which relaxes
    within a few updates; gradient noise is normal, of equal size in all axes.

    Args:
        n_runs: Runs.
        rng: Source of randomness.
        n_updates: Updates N, of 5 optimizer steps.
        lags: L.
        at_minimum: Start at the minimum and leave out the first 50 updates; else start far away, 10 to 1000 times
            the noise, and record from the first update on.

    Returns:
        (n_runs, N, L+1) [parameter^2].
    """
    shape = (n_runs, _PARAMETERS)
    decades = rng.uniform(2.0, 4.0, (n_runs, 1))
    # rate * curvature of the stiffest axis: below 1, so that nothing oscillates.
    rates = rng.uniform(0.02, 0.3, (n_runs, 1)) * 10.0 ** (-decades * rng.random(shape))
    decay = 10.0 ** rng.uniform(-4.0, -2.0, (n_runs, 1))
    adam = rng.random((n_runs, 1)) < 0.5
    start = 0.0 if at_minimum else 10.0 ** rng.uniform(1.0, 3.0, (n_runs, 1))
    theta = start * rng.standard_normal(shape) * np.where(rng.random((n_runs, 1)) < 0.5, rates**0.5, 1.0)
    first, second = np.zeros(shape), np.zeros(shape)
    skipped = 50 if at_minimum else 0
    recent: list[np.ndarray] = []
    band = np.full((n_runs, n_updates, lags + 1), np.nan)
    for update in range(skipped + n_updates):
        before = theta
        for step in range(update * _INNER + 1, (update + 1) * _INNER + 1):
            # In units where the learning rate is 1: rates are curvatures, the noise has size 1.
            gradient = rates * theta + rng.standard_normal(shape)
            first = _BETA1 * first + (1.0 - _BETA1) * gradient
            second = _BETA2 * second + (1.0 - _BETA2) * gradient**2
            size = np.sqrt(second / (1.0 - _BETA2**step))
            move = first / (1.0 - _BETA1**step) / np.where(adam, size, 1.0)
            theta = (1.0 - decay) * theta - move
        recent = [theta - before, *recent][: lags + 1]
        t = update - skipped
        if t >= 0:
            for lag in range(min(t, lags) + 1):
                band[:, t, lag] = np.einsum("ij,ij->i", recent[0], recent[lag])
    return band
