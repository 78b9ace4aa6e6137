"""Inner products of parameters, updates and their gradient parts, all derived from what a recording holds.

theta_t are the snapshots, delta_t = theta_t - theta_{t-1}. Recorded are <delta_t, delta_{t-l}>, <theta_t, delta_t>
and ||theta_t||^2; every other product of two snapshots or of a snapshot and an update follows by adding these up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import SettingError
from ...recording.derive import theta_band


@dataclass(frozen=True, eq=False)
class Products:
    """Products of one group of parameters over T updates and lags l = 0..L; NaN where one is missing [parameter^2].

    Attributes:
        updates: (T, L+1) <delta_t, delta_{t-l}>.
        forward: (T, L+1) <theta_t, delta_{t-l}>: later parameters with earlier updates.
        backward: (T, L+1) <delta_t, theta_{t-l}>: later updates with earlier parameters.
        parameters: (T, L+1) <theta_t, theta_{t-l}>.
    """

    updates: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    parameters: np.ndarray


def all_products(updates: np.ndarray, theta_dot: np.ndarray, theta_norm2: np.ndarray) -> Products:
    """Every product of parameters and updates up to L apart.

    <delta_t, theta_{t-l}> = <delta_t, theta_t> - sum_{i<l} <delta_t, delta_{t-i}>, and
    <theta_t, theta_{t-l}> = (||theta_t||^2 + ||theta_{t-l}||^2 - ||theta_t - theta_{t-l}||^2) / 2. Source: derived.

    Args:
        updates: (T, L+1) recorded band [parameter^2].
        theta_dot: (T) <theta_t, delta_t> [parameter^2].
        theta_norm2: (T) ||theta_t||^2 [parameter^2].

    >>> theta = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 3.0]])
    >>> delta = np.diff(theta, axis=0, prepend=[[0.0, 0.0]])
    >>> band = np.array([[delta[t] @ delta[t - l] if t >= l else np.nan for l in range(3)] for t in range(3)])
    >>> found = all_products(band, (theta * delta).sum(axis=1), (theta**2).sum(axis=1))
    >>> float(found.parameters[2, 1]), float(found.backward[2, 2])
    (4.0, 2.0)
    """
    backward = np.full(updates.shape, np.nan)
    backward[:, 0] = theta_dot
    for lag in range(1, updates.shape[1]):
        backward[lag:, lag] = backward[lag:, lag - 1] - updates[lag:, lag - 1]
    parameters = np.full(updates.shape, np.nan)
    parameters[:, 0] = theta_norm2
    moved = displacements(updates)
    for lag in range(1, updates.shape[1]):
        parameters[lag:, lag] = 0.5 * (theta_norm2[lag:] + theta_norm2[:-lag] - moved[lag:, lag])
    return Products(updates, theta_band(updates, theta_dot), backward, parameters)


def displacements(updates: np.ndarray) -> np.ndarray:
    """(T, L+2) ||theta_t - theta_{t-l}||^2, l = 0..L+1, of a (T, L+1) band; NaN where a product is missing.

    The last l updates added up: each lag adds one update to the sum of the lag before. Source: derived.

    >>> displacements(np.array([[1.0, np.nan], [4.0, 2.0]]))[1]
    array([0., 4., 9.])
    """
    n, width = updates.shape
    out = np.full((n, width + 1), np.nan)
    out[:, 0] = 0.0
    # Of the updates t-l+1..t the newest is added to the l - 1 before it.
    with_newest = np.cumsum(updates, axis=1)
    for lag in range(1, width + 1):
        cross = with_newest[lag - 1 :, lag - 1] - updates[lag - 1 :, 0]
        before = out[lag - 2 : n - 1, lag - 1] if lag > 1 else np.zeros(n)
        out[lag - 1 :, lag] = before + updates[lag - 1 :, 0] + 2.0 * cross
    return out


def turning(updates: np.ndarray, theta_norm2: np.ndarray, lag: int) -> np.ndarray:
    """1 - cos(theta_t, theta_{t-lag}): how far the parameters have turned over the last ``lag`` updates.

    ``(||theta_t - theta_{t-lag}||^2 - (||theta_t|| - ||theta_{t-lag}||)^2) / (2 ||theta_t|| ||theta_{t-lag}||)``:
    what the parameters moved beyond the change of their length. No scale of parameters or updates is left in it.

    Args:
        updates: (T, L+1) band [parameter^2].
        theta_norm2: (T) [parameter^2].
        lag: Updates, 1..L+1.

    Returns:
        (T), in 0..2; NaN in the first ``lag`` rows. Source: derived.

    Raises:
        SettingError: If the band is too narrow.

    >>> theta = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> delta = np.diff(theta, axis=0, prepend=[[0.0, 0.0]])
    >>> band = np.array([[delta[t] @ delta[t - l] if t >= l else np.nan for l in range(2)] for t in range(3)])
    >>> turning(band, (theta**2).sum(axis=1), 2)
    array([nan, nan,  1.])
    """
    if not 1 <= lag <= updates.shape[1]:
        raise SettingError(
            f"lag must lie in 1..lags + 1 = {updates.shape[1]}; got {lag}. Record with lags={lag - 1} or more."
        )
    out = np.full(len(updates), np.nan)
    norm = np.sqrt(theta_norm2)
    moved = displacements(updates[:, :lag])[lag:, lag]
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = moved - np.square(norm[lag:] - norm[:-lag])
        out[lag:] = np.maximum(excess, 0.0) / (2.0 * norm[lag:] * norm[:-lag])
    return out


@dataclass(frozen=True, eq=False)
class GradientPart:
    """What updates would be without decoupled weight decay, and how it stands to the parameters [parameter^2].

    Attributes:
        band: (T, L+1) <g_t, g_{t-l}>.
        with_theta: (T) <g_t, mu_t>, mu_t the mean parameters of the interval.
        theta2: (T) ||mu_t||^2.
        decay: (T) kappa_t = decay coefficient times the sum of the learning rates: delta_wd = -kappa mu.
    """

    band: np.ndarray
    with_theta: np.ndarray
    theta2: np.ndarray
    decay: np.ndarray


def gradient_part(products: Products, decay: np.ndarray, n_steps: np.ndarray) -> GradientPart:
    """Updates with the part of decoupled weight decay taken out.

    Over m steps decay moves the parameters by ``-sum_tau eta omega theta_tau``, theta_tau those *before* each step.
    On the straight line from snapshot to snapshot their sum is m mu, ``mu_t = theta_t - c delta_t``,
    c = (m+1) / (2m), so that ``g_t = delta_t + kappa_t mu_t``, kappa_t = omega sum eta. Source: derived.

    Error: the mean of the path less mu, times kappa. A path that bends by the change of the update from one interval
    to the next gives kappa ||delta_t - delta_{t-1}|| / 12; a random walk between its ends
    kappa ||delta_t|| / sqrt(12). For eta omega m = 0.025 that is at most 0.7 % of ||delta_t||. Exact for
    wd = 0, where g = delta.

    Args:
        products: Of one group of parameters.
        decay: (T) kappa_t, 0 for none.
        n_steps: (T) m of each update.
    """
    p, k = products, decay
    c = 0.5 * (n_steps + 1.0) / n_steps
    n, width = p.updates.shape
    band = np.full(p.updates.shape, np.nan)
    for lag in range(min(width, n)):
        now, then = slice(lag, n), slice(0, n - lag)
        mu_delta = p.forward[now, lag] - c[now] * p.updates[now, lag]
        delta_mu = p.backward[now, lag] - c[then] * p.updates[now, lag]
        mu_mu = (
            p.parameters[now, lag]
            - c[then] * p.forward[now, lag]
            - c[now] * p.backward[now, lag]
            + c[now] * c[then] * p.updates[now, lag]
        )
        band[now, lag] = p.updates[now, lag] + k[then] * delta_mu + k[now] * mu_delta + k[now] * k[then] * mu_mu
    theta2 = p.parameters[:, 0] - 2.0 * c * p.forward[:, 0] + np.square(c) * p.updates[:, 0]
    with_theta = p.forward[:, 0] - c * p.updates[:, 0] + k * theta2
    return GradientPart(band, with_theta, theta2, np.asarray(k, dtype=np.float64))
