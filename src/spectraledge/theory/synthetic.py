"""Planted histories of updates whose answer is known: what a detector must find, and what it must not.

Noise has norm about 1 per update unless said otherwise, so strengths are in units of the noise norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """Updates of a planted run.

    Attributes:
        updates: (T, P), row t is delta_t [parameter].
        step: Index of the first update after the planted event; None where nothing is planted.
        kind: What was planted.
    """

    updates: Array
    step: int | None
    kind: str

    @property
    def gram(self) -> Array:
        """(T, T) inner products of all updates [parameter^2]."""
        return self.updates @ self.updates.T


def white_noise(n_updates: int, *, n_parameters: int = 400, rng: np.random.Generator) -> History:
    """Independent updates of norm about 1, nothing planted.

    >>> white_noise(5, rng=np.random.default_rng(0)).updates.shape
    (5, 400)
    """
    return History(_noise(n_updates, n_parameters, rng), None, "white_noise")


def constant_drift(
    n_updates: int, *, drift: float = 0.5, n_parameters: int = 400, rng: np.random.Generator
) -> History:
    """One constant direction of length ``drift`` plus noise, nothing planted."""
    noise = _noise(n_updates, n_parameters, rng)
    return History(noise + drift * _frame(1, n_parameters, rng)[0], None, "constant_drift")


def mode_switch_on(
    n_updates: int,
    step: int,
    *,
    strength: float = 1.5,
    drift: float = 2.0,
    n_parameters: int = 400,
    rng: np.random.Generator,
) -> History:
    """A constant drift, and from update ``step`` on a second, orthogonal direction of length ``strength``.

    The new direction shows as mode 2 of the W windows that contain the switch; a window with both directions
    constant sees one mode, their sum.
    """
    _check_step(step, n_updates)
    first, second = _frame(2, n_parameters, rng)
    on = np.arange(n_updates) >= step
    updates = _noise(n_updates, n_parameters, rng) + drift * first + strength * on[:, None] * second
    return History(updates, step, "mode_switch_on")


def avoided_crossing(
    n_updates: int,
    step: int,
    *,
    mean: float = 4.0,
    rate: float = 0.1,
    coupling: float = 0.2,
    noise: float = 0.1,
    n_parameters: int = 400,
    rng: np.random.Generator,
) -> History:
    """Two modes whose strengths would cross at update ``step`` and repel each other.

    Strengths are the eigenvalues ``mean +- sqrt((rate (t - step))^2 + coupling^2)`` of a coupled pair, their
    directions its eigenvectors, so the smallest distance is ``2 coupling``. Updates alternate between the two
    modes, which gives them independent time profiles: a window of even W sees sigma = sqrt(W / 2) times a strength
    as long as the directions turn little within it, that is, for ``rate * W`` well below ``coupling`` or
    away from the crossing.
    """
    _check_step(step, n_updates)
    t = np.arange(n_updates)
    detuning = rate * (t - step)
    half_gap = np.hypot(detuning, coupling)
    angle = 0.5 * np.arctan2(coupling, detuning)
    first, second = _frame(2, n_parameters, rng)
    upper = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    lower = -np.sin(angle)[:, None] * first + np.cos(angle)[:, None] * second
    even = (t % 2 == 0)[:, None]
    signal = np.where(even, (mean + half_gap)[:, None] * upper, (mean - half_gap)[:, None] * lower)
    return History(signal + noise * _noise(n_updates, n_parameters, rng), step, "avoided_crossing")


def coherence_loss(
    n_updates: int,
    step: int,
    *,
    before: float = 0.99,
    after: float = 0.5,
    n_parameters: int = 400,
    rng: np.random.Generator,
) -> History:
    """Unit updates that overlap with the one before by ``before``, by ``after`` from ``step`` on."""
    _check_step(step, n_updates)
    fresh = _noise(n_updates, n_parameters, rng)
    directions = np.empty_like(fresh)
    directions[0] = fresh[0] / np.linalg.norm(fresh[0])
    for t in range(1, n_updates):
        alpha = before if t < step else after
        new = fresh[t] - (fresh[t] @ directions[t - 1]) * directions[t - 1]
        # Exact overlap alpha and exact norm 1, by construction.
        directions[t] = alpha * directions[t - 1] + np.sqrt(1.0 - alpha**2) * new / np.linalg.norm(new)
    return History(directions, step, "coherence_loss")


def curvature_change(
    n_updates: int,
    step: int,
    *,
    rate: float = 0.1,
    curvature_before: float = 0.2,
    curvature_after: float = 4.0,
    noise: float = 0.02,
    n_parameters: int = 400,
    rng: np.random.Generator,
) -> History:
    """Gradient descent on a quadratic whose curvature along half of the axes changes at update ``step``."""
    _check_step(step, n_updates)
    h = np.full(n_parameters, curvature_before)
    stiff = np.arange(n_parameters) < n_parameters // 2
    theta = rng.standard_normal(n_parameters) / np.sqrt(n_parameters)
    kicks = noise * _noise(n_updates, n_parameters, rng)
    updates = np.empty((n_updates, n_parameters))
    for t in range(n_updates):
        if t == step:
            h = np.where(stiff, curvature_after, h)
        updates[t] = -rate * h * theta + kicks[t] * rate
        theta = theta + updates[t]
    return History(updates, step, "curvature_change")


def norm_decay(
    n_updates: int,
    *,
    decay: float = 0.05,
    drift: float = 0.5,
    n_parameters: int = 400,
    rng: np.random.Generator,
) -> History:
    """Constant drift plus noise, every update ``decay`` shorter than the one before: nothing must fire."""
    updates = constant_drift(n_updates, drift=drift, n_parameters=n_parameters, rng=rng).updates
    return History(updates * (1.0 - decay) ** np.arange(n_updates)[:, None], None, "norm_decay")


def _noise(n_updates: int, n_parameters: int, rng: np.random.Generator) -> Array:
    if n_updates < 1 or n_parameters < 2:
        raise SettingError(
            f"A history needs at least 1 update of 2 parameters; got {n_updates} of {n_parameters}. "
            "Use some hundred parameters, as the defaults do."
        )
    return rng.standard_normal((n_updates, n_parameters)) / np.sqrt(n_parameters)


def _frame(k: int, n_parameters: int, rng: np.random.Generator) -> Array:
    """k random orthonormal directions, (k, P)."""
    q, _ = np.linalg.qr(rng.standard_normal((n_parameters, k)))
    return q.T


def _check_step(step: int, n_updates: int) -> None:
    if not 1 <= step < n_updates:
        raise SettingError(
            f"The planted step must lie in 1..{n_updates - 1}, inside the history; got {step}. "
            "Leave at least one window before it and after it."
        )
