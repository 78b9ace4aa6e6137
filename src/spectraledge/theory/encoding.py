"""Where a change lives: its rank in function space, its density and ranks in parameter space.

The claim is that an event is of rank one in the outputs and dense in the parameters. Any smooth change over a short
window is close to rank one, and any direction that nobody chose is dense, so both figures need their comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.spectrum import participation_ratio

Array = NDArray[np.float64]

GAUSSIAN_DENSITY = 1.0 / 3.0
"""Participation ratio over P of a random direction, as P grows."""


def rank_one_share(changes: ArrayLike) -> Array:
    """Share of ||F||_F^2 that the top singular value of F holds; 1 for a change along one direction of outputs.

    Args:
        changes: (..., T, N): F, rows f(theta_t) - f(theta_{t-1}) on N probe outputs over a window of T updates.

    Returns:
        (...) in [1 / min(T, N), 1]; NaN for F = 0 or non-finite. Source: derived.

    >>> float(rank_one_share([[3.0, 0.0], [0.0, 4.0]]))
    0.64
    """
    f = np.asarray(changes, dtype=np.float64)
    if f.ndim < 2:
        raise SettingError(f"changes must be (..., T, N), updates by outputs; got shape {f.shape}.")
    finite = np.asarray(np.isfinite(f).all(axis=(-2, -1)))
    squares = np.square(np.linalg.svd(np.where(finite[..., None, None], f, 0.0), compute_uv=False))
    total = squares.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite & (total > 0.0), squares[..., 0] / total, np.nan)


def coordinate_density(direction: ArrayLike) -> Array:
    """(sum v^2)^2 / (P sum v^4) over the last axis: 1 for equal entries, 1/3 for Gaussian ones, 1/P for one entry.

    Args:
        direction: (..., P).

    Returns:
        (...), NaN for v = 0. Source: standard result (participation ratio over P).

    >>> float(coordinate_density([1.0, 1.0, 0.0, 0.0]))
    0.5
    """
    v = np.asarray(direction, dtype=np.float64)
    return np.asarray(participation_ratio(v) / v.shape[-1])


def top_share(direction: ArrayLike, fraction: float = 0.01) -> Array:
    """Share of sum v^2 in the largest ``fraction`` of coordinates, at least one; (...).

    For Gaussian entries 0.0845 at 1 %. Source: derived.

    Raises:
        SettingError: If ``fraction`` is not in (0, 1].

    >>> float(top_share([2.0, 1.0, 1.0, 1.0, 1.0], fraction=0.2))
    0.5
    """
    if not 0.0 < fraction <= 1.0:
        raise SettingError(f"fraction must lie in (0, 1]; got {fraction}. Use 0.01.")
    v2 = np.square(np.asarray(direction, dtype=np.float64))
    count = max(1, math.ceil(fraction * v2.shape[-1] - 1e-9))
    largest = np.partition(v2, v2.shape[-1] - count, axis=-1)[..., -count:].sum(axis=-1)
    total = v2.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0.0, largest / total, np.nan)


def stable_rank(matrix: ArrayLike) -> Array:
    """||A||_F^2 / ||A||_2^2 over the last two axes: 1 for a rank-one block, min(m, n) for an orthogonal one.

    Args:
        matrix: (..., m, n).

    Returns:
        (...), NaN for A = 0 or non-finite. Source: standard result.

    >>> float(stable_rank(np.diag([1.0, 1.0, 0.0])))
    2.0
    """
    return 1.0 / rank_one_share(matrix)


@dataclass(frozen=True)
class DirectionProfile:
    """How one direction in parameter space is spread over parameters, tensors and ranks.

    Attributes:
        density: :func:`coordinate_density` of the whole direction; 1/3 for Gaussian entries.
        top_share: Share of its energy in the top 1 % of coordinates; 0.0845 for Gaussian entries.
        energy: By tensor, the share of sum v^2; sums to 1.
        size: By tensor, the share of P: the energy a direction without preference has there.
        stable_rank: By tensor with two or more dimensions, the first against the rest flattened.
    """

    density: float
    top_share: float
    energy: dict[str, float]
    size: dict[str, float]
    stable_rank: dict[str, float]


def direction_profile(direction: Mapping[str, ArrayLike], *, fraction: float = 0.01) -> DirectionProfile:
    """Density, energy by tensor and stable ranks of a direction, for instance v_1 or J^T q.

    Args:
        direction: Arrays by parameter name, in the parameters' shapes.
        fraction: Of coordinates, for ``top_share``.

    Returns:
        The profile; NaN where the direction is 0. Source: arXiv:2603.28964v1-v3 (dense encoding, claimed), derived.

    Raises:
        SettingError: If no tensor is given.
    """
    arrays = {name: np.asarray(a, dtype=np.float64) for name, a in direction.items()}
    if not arrays:
        raise SettingError("direction must hold at least one tensor; got none. Pass arrays by parameter name.")
    flat = np.concatenate([a.reshape(-1) for a in arrays.values()])
    total = float(np.square(flat).sum())
    return DirectionProfile(
        density=float(coordinate_density(flat)),
        top_share=float(top_share(flat, fraction)),
        energy={name: float(np.square(a).sum()) / total if total else np.nan for name, a in arrays.items()},
        size={name: a.size / flat.size for name, a in arrays.items()},
        stable_rank={name: float(stable_rank(a.reshape(len(a), -1))) for name, a in arrays.items() if a.ndim >= 2},
    )
