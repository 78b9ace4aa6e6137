"""Runs in which nothing happens, as bands of inner products: what detectors must stay silent on.

Letters as in the protocol: A white noise, B noise of uneven norms, C constant drift, D smoothly turning drift, E its
rows shuffled within blocks, F its Fourier phases drawn anew, H schedules of the learning rate, I noise at a minimum.
(G, a circular shift of the capability, leaves the updates alone: it belongs to the comparison of events and is
``theory.phase_surrogates.circular_shifts``.) R is a run that comes down from its start: no null, but a mode that
falls to the floor must never pass for one that leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.linalg import cholesky, toeplitz

from ..errors import SettingError
from ..theory.noise import momentum_row_correlation
from ..theory.phase_surrogates import phase_randomised_gram
from ..theory.unit_rows import UnitRowDraws
from .quadratic_runs import quadratic_bands

Array = np.ndarray

_MOMENTA = (None, None, (0.9, 100), (0.9, 25), (0.9, 10))  # no momentum in two runs of five


def band_of_rows(rows: Array, lags: int) -> Array:
    """Band (N, lags + 1) of explicit updates (N, P).

    >>> band_of_rows(np.array([[1.0, 0.0], [1.0, 2.0]]), 1)
    array([[ 1., nan],
           [ 5.,  1.]])
    """
    band = np.full((len(rows), lags + 1), np.nan)
    for lag in range(min(lags, len(rows) - 1) + 1):
        band[lag:, lag] = np.einsum("ij,ij->i", rows[lag:], rows[: len(rows) - lag])
    return band


def band_of_gram(gram: Array, lags: int) -> Array:
    """Band (N, lags + 1) of a full Gram (N, N)."""
    band = np.full((len(gram), lags + 1), np.nan)
    for lag in range(min(lags, len(gram) - 1) + 1):
        band[lag:, lag] = np.diagonal(gram, lag)
    return band


def null_bands(
    null: str,
    n_runs: int,
    rng: np.random.Generator,
    *,
    n_updates: int = 200,
    lags: int = 19,
    p_eff: float | None = None,
    momentum: tuple[float, int] | str | None = "any",
) -> Array:
    """Bands of runs of one null.

    Args:
        null: A key of ``NULLS``.
        n_runs: Runs.
        rng: Source of randomness; every run draws its own setting.
        n_updates: Updates N of a run.
        lags: L.
        p_eff: Effective dimension of the noise; None draws it between 100 and 1e4, evenly in the logarithm (I and R
            have 400 parameters of unequal curvature).
        momentum: (beta, optimizer steps of an update), None for independent noise, "any" to draw it.

    Returns:
        (n_runs, N, L+1) [parameter^2].

    Raises:
        SettingError: For an unknown null.

    >>> null_bands("A", 2, np.random.default_rng(0), n_updates=30).shape
    (2, 30, 20)
    """
    if null not in NULLS:
        raise SettingError(f"null must be one of {', '.join(NULLS)}; got {null!r}. A is white noise.")
    if null in ("I", "R"):
        return quadratic_bands(n_runs, rng, n_updates=n_updates, lags=lags, at_minimum=null == "I")
    out = np.empty((n_runs, n_updates, lags + 1))
    for run in range(n_runs):
        q = float(np.exp(rng.uniform(np.log(100.0), np.log(1e4)))) if p_eff is None else p_eff
        setting = _MOMENTA[rng.integers(len(_MOMENTA))] if momentum == "any" else momentum
        noise = correlated_noise(n_updates, q, setting, rng)  # type: ignore[arg-type]
        out[run] = NULLS[null](noise, rng, lags)
    return out


def correlated_noise(n: int, p_eff: float, momentum: tuple[float, int] | None, rng: np.random.Generator) -> Array:
    """Rows of noise (n, *) of norm about 1 in an effective dimension, correlated by momentum."""
    rows = UnitRowDraws(n, 1, rng).factor(p_eff)[0]
    return rows if momentum is None else _momentum_factor(n, *momentum) @ rows


@lru_cache(maxsize=8)
def _momentum_factor(n: int, beta: float, steps: int) -> Array:
    return np.asarray(cholesky(toeplitz(momentum_row_correlation(beta, steps, n)), lower=True))


def turning_directions(n: int, memory: float) -> Array:
    """Unit rows (n, n) with cosines ``phi^|lag|``, phi = exp(-1 / memory), exactly."""
    phi = np.exp(-1.0 / memory)
    lag = np.arange(n)[:, None] - np.arange(n)
    factor = np.where(lag >= 0, phi ** np.maximum(lag, 0), 0.0)
    factor[:, 1:] *= np.sqrt(1.0 - phi**2)
    return factor


def jittered(n: int, rng: np.random.Generator) -> Array:
    """Log-normal row norms (n, 1) of a spread between 0.05 and 0.5."""
    return np.exp(rng.uniform(0.05, 0.5) * rng.standard_normal((n, 1)))


def schedule(n: int, rng: np.random.Generator) -> Array:
    """Learning rates (n, 1): warm-up and cosine, or shrinking by up to 5 % an update."""
    t = np.arange(n)
    if rng.random() < 0.5:
        warm = rng.integers(1, max(n // 5, 2))
        down = 0.5 * (1.0 + np.cos(np.pi * np.maximum(t - warm, 0) / max(n - warm, 1)))
        return np.asarray((np.minimum((t + 1) / warm, 1.0) * np.maximum(down, 1e-3))[:, None])
    return np.asarray(((1.0 - rng.uniform(0.0, 0.05)) ** t)[:, None])


def _white(noise: Array, rng: np.random.Generator, lags: int) -> Array:
    return band_of_rows(noise, lags)


def _uneven(noise: Array, rng: np.random.Generator, lags: int) -> Array:
    return band_of_rows(noise * jittered(len(noise), rng), lags)


def _constant(noise: Array, rng: np.random.Generator, lags: int) -> Array:
    return band_of_rows(_with_drift(noise, np.ones((len(noise), 1)), rng) * jittered(len(noise), rng), lags)


def _turning_rows(noise: Array, rng: np.random.Generator) -> Array:
    """One to three directions that turn with memories of 3 to 300 updates, and noise."""
    memories = np.exp(rng.uniform(np.log(3.0), np.log(300.0), rng.integers(1, 4)))
    shares = rng.dirichlet(np.ones(len(memories)))
    parts = [np.sqrt(w) * turning_directions(len(noise), m) for w, m in zip(shares, memories)]
    return _with_drift(noise, np.concatenate(parts, axis=1), rng)


def _with_drift(noise: Array, drift: Array, rng: np.random.Generator) -> Array:
    """Signal rows of a random share of the energy, and noise beside it (orthogonal up to 1 / sqrt(P_eff))."""
    share = rng.uniform(0.05, 0.95)
    return np.concatenate([np.sqrt(share) * drift, np.sqrt(1.0 - share) * noise], axis=1)


def _turning(noise: Array, rng: np.random.Generator, lags: int) -> Array:
    return band_of_rows(_turning_rows(noise, rng) * jittered(len(noise), rng), lags)


def _shuffled(noise: Array, rng: np.random.Generator, lags: int) -> Array:
    """Rows of a turning drift in random order within blocks of 5 to 40, or throughout."""
    rows = _turning_rows(noise, rng)
    length = int(rng.choice([5, 10, 20, 40, len(rows)]))
    order = np.arange(len(rows))
    for start in range(0, len(rows), length):
        rng.shuffle(order[start : start + length])
    return band_of_rows(rows[order], lags)


def _phases(noise: Array, rng: np.random.Generator, lags: int) -> Array:
    rows = _turning_rows(noise, rng)
    return band_of_gram(phase_randomised_gram(rows @ rows.T, 1, rng)[0], lags)


def _scheduled(noise: Array, rng: np.random.Generator, lags: int) -> Array:
    kind = rng.integers(3)
    if kind == 0:
        rows = noise
    elif kind == 1:
        rows = _with_drift(noise, np.ones((len(noise), 1)), rng)
    else:
        rows = _turning_rows(noise, rng)
    return band_of_rows(rows * schedule(len(noise), rng), lags)


NULLS: dict[str, Callable[[Array, np.random.Generator, int], Array]] = {
    "A": _white,
    "B": _uneven,
    "C": _constant,
    "D": _turning,
    "E": _shuffled,
    "F": _phases,
    "H": _scheduled,
    "I": _white,  # replaced by quadratic_bands: all runs of these are stepped together
    "R": _white,
}
"""Letter to the maker of one band."""
