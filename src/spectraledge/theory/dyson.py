"""Level repulsion as a stochastic model: the gap as a Bessel process with a pull, and its coupling kappa.

The gap here is one of eigenvalues, lambda_k - lambda_{k+1} [parameter^2], time counts snapshots, and kappa^2 has
the unit parameter^4 per snapshot. A moving window is not a diffusion: the row that entered leaves after W
snapshots and the mean square displacement saturates there. The model speaks of horizons well below W, or of an
exponentially forgetting Gram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.perturbation import cyclic_change
from spectraledge.theory.signal_flow import linear_flow

Array = NDArray[np.float64]

# Splitting pull and noise errs near zero, where the pull of one step exceeds the gap: with steps of this share
# of kappa^2 / pull^2 that is 0.05 of the most likely gap.
_STEP_SHARE = 0.1


@dataclass(frozen=True)
class Coupling:
    """Noise that the newest rows exert on pairs of neighbouring modes.

    Attributes:
        kappa2: (W - 1) kappa^2, mean square of u_k^T Delta u_{k+1} per snapshot [parameter^4].
        standard_error: (W - 1) of kappa2, from the means of blocks of W windows.
        diagonal_ratio: (W - 1) variance of u_k^T Delta u_k - u_{k+1}^T Delta u_{k+1} over 4 kappa^2: the Dyson
            model holds it to be 1. The gap's noise is this diagonal part; if the ratio is far from 1, no single
            kappa describes both noise and repulsion.
        n: (W - 1) snapshots used.
    """

    kappa2: Array
    standard_error: Array
    diagonal_ratio: Array
    n: NDArray[np.int64]


def kappa_squared(blocks: ArrayLike, time_profiles: ArrayLike) -> Coupling:
    """Estimate kappa^2 from the cyclic change of the Gram, seen by the modes of the window before.

    Signs of time profiles are arbitrary from window to window, hence so is the mean of u_k^T Delta u_{k+1}: the
    variance is taken about zero.

    Args:
        blocks: (n, W + 1, W + 1) inner products of each window and the update after it [parameter^2].
        time_profiles: (n, W, W) of each window before the update.

    Returns:
        The coupling of every pair; NaN where no window is usable. Source: derived.

    Raises:
        SettingError: For blocks that are not one more than the profiles.
    """
    u = np.asarray(time_profiles, dtype=np.float64)
    blocks = np.asarray(blocks, dtype=np.float64)
    window = u.shape[-1]
    if u.ndim != 3 or blocks.shape != (len(u), window + 1, window + 1):
        raise SettingError(
            f"blocks must be (n, W + 1, W + 1) for time profiles (n, W, W); got {blocks.shape} and {u.shape}. "
            "Leave out the last window, which has no update after it."
        )
    seen = np.swapaxes(u, -1, -2) @ cyclic_change(blocks, window) @ u
    x = np.diagonal(seen, offset=1, axis1=-2, axis2=-1)
    level = np.diagonal(seen, axis1=-2, axis2=-1)
    split = level[:, :-1] - level[:, 1:]
    known = np.isfinite(x) & np.isfinite(split)
    n = known.sum(axis=0)
    square = np.where(known, x, 0.0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa2 = square.sum(axis=0) / n
        mean_split = np.where(known, split, 0.0).sum(axis=0) / n
        ratio = (np.where(known, split - mean_split, 0.0) ** 2).sum(axis=0) / n / (4.0 * kappa2)
        n_blocks = len(x) // window
        cut = n_blocks * window
        counts = known[:cut].reshape(n_blocks, window, -1).sum(axis=1)
        sums = square[:cut].reshape(n_blocks, window, -1).sum(axis=1)
        # Error of a ratio of sums over blocks, which are close to independent.
        excess = (sums - kappa2 * counts) ** 2
        error = np.sqrt(excess.sum(axis=0) * n_blocks / (n_blocks - 1.0)) / counts.sum(axis=0)
    enough = np.full(window - 1, n_blocks >= 2)
    return Coupling(kappa2, np.where(enough, error, np.nan), ratio, n)


def simulate_gap(
    gap: ArrayLike,
    times: ArrayLike,
    *,
    kappa2: float,
    pull: float,
    damping: float = 0.0,
    n_paths: int = 1,
    rng: np.random.Generator,
    max_step: float | None = None,
) -> Array:
    """Paths of ``dg = (2 kappa^2 / g + pull - damping g) dt + 2 kappa dB``, which never reach zero.

    Without pull and damping, g is the norm of a Brownian motion in the plane, and every step is exact. Each step
    puts the pull between two halves of the noise (Strang), of weak second order away from zero. Noise comes last,
    so that no gap is ever zero.

    Args:
        gap: Scalar or (n_paths) start [parameter^2], >= 0.
        times: (n) increasing, from 0 [snapshots].
        kappa2: kappa^2 > 0 [parameter^4 per snapshot].
        pull: c, negative for a collapsing gap [parameter^2 per snapshot].
        damping: gamma >= 0 [1 / snapshot].
        n_paths: Number of paths.
        rng: Source of randomness.
        max_step: Longest step; None takes a tenth of kappa^2 / pull^2 and of 1 / damping.

    Returns:
        (n_paths, n) gaps. Source: standard result (Bessel process of dimension 2).

    Raises:
        SettingError: If kappa2 is not positive, damping is negative, or times do not increase from 0.
    """
    check_model(kappa2, damping)
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 1 or len(t) < 1 or t[0] < 0.0 or np.any(np.diff(t) <= 0.0):
        raise SettingError("times must be one series that increases from 0 or later; sort it and drop repeats.")
    limits = [np.inf if max_step is None else max_step]
    if max_step is None:
        limits += [_STEP_SHARE * kappa2 / pull**2] if pull else []
        limits += [_STEP_SHARE / damping] if damping else []
    g = np.broadcast_to(np.asarray(gap, dtype=np.float64), (n_paths,)).copy()
    path = np.empty((n_paths, len(t)))
    now = 0.0
    for i, end in enumerate(t):
        n = max(1, int(np.ceil((end - now) / min(limits)))) if end > now else 0
        h = (end - now) / max(n, 1)
        sd = 2.0 * np.sqrt(kappa2 * 0.5 * h)
        for _ in range(n):
            noise = sd * rng.standard_normal((4, n_paths))
            g = np.hypot(g + noise[0], noise[1])
            g = np.maximum(linear_flow(g, damping, pull, h), 0.0)
            g = np.hypot(g + noise[2], noise[3])
        path[:, i], now = g, end
    return path


def wishart_drift(eigenvalues: ArrayLike, noise_variance: ArrayLike, n_parameters: float) -> Array:
    """Mean growth of eigenvalues of X X^T when independent noise is added to the entries of X (Bru).

    ``nu^2 [P + sum_{i != j} (lambda_j + lambda_i) / (lambda_j - lambda_i)]`` per unit of time.

    Args:
        eigenvalues: (..., W) distinct [parameter^2].
        noise_variance: (...) nu^2 added to every entry per unit of time.
        n_parameters: P.

    Returns:
        (..., W); infinite for equal eigenvalues. Source: standard result (Bru 1989).
    """
    lam = np.asarray(eigenvalues, dtype=np.float64)
    difference = lam[..., :, None] - lam[..., None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        repulsion = (lam[..., :, None] + lam[..., None, :]) / difference
    off = ~np.eye(lam.shape[-1], dtype=bool)
    nu2 = np.asarray(noise_variance, dtype=np.float64)[..., None]
    return nu2 * (n_parameters + np.where(off, repulsion, 0.0).sum(axis=-1))


def check_model(kappa2: float, damping: float) -> None:
    """Raise SettingError unless kappa2 is positive and damping not negative."""
    if not (kappa2 > 0.0 and damping >= 0.0):
        raise SettingError(
            f"kappa2 must be positive and damping not negative; got {kappa2} and {damping}. "
            "Estimate kappa2 with kappa_squared."
        )
