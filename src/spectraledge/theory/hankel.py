"""Windows made of decaying exponentials: the Gram of gradient descent, its spectrum, and how fast it must fall."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import factorial

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def hankel_gram(weights: ArrayLike, rates: ArrayLike, window: int) -> Array:
    """G_ab = sum_j w_j rho_j^(a+b), a, b = 0..W-1: a window of updates along decaying modes [parameter^2].

    Args:
        weights: (..., n) w_j >= 0, squared first update of each mode [parameter^2].
        rates: (..., n) rho_j, factor from one update to the next; negative where a mode alternates.
        window: W.

    Returns:
        (..., W, W), oldest update first; NaN where a weight or rate is NaN. Source: derived.

    Raises:
        SettingError: If the window is below 1 or a weight negative.

    >>> hankel_gram([4.0], [0.5], 2)
    array([[4., 2.],
           [2., 1.]])
    """
    rows = hankel_rows(weights, rates, window)
    return rows @ np.swapaxes(rows, -1, -2)


def hankel_rows(weights: ArrayLike, rates: ArrayLike, window: int) -> Array:
    """The updates themselves, sqrt(w_j) rho_j^a, in the basis of the modes; (..., W, n) [parameter].

    Raises:
        SettingError: If the window is below 1 or a weight negative.
    """
    w, rho = np.broadcast_arrays(np.asarray(weights, dtype=np.float64), np.asarray(rates, dtype=np.float64))
    if window < 1:
        raise SettingError(f"window must be at least 1; got {window}. Use window=10 as in the paper.")
    if np.any(w < 0.0):
        raise SettingError(f"weights must not be negative; got {np.nanmin(w):g}. Pass squared updates.")
    return np.sqrt(w)[..., None, :] * rho[..., None, :] ** np.arange(window)[:, None]


def hankel_singular_values(weights: ArrayLike, rates: ArrayLike, window: int) -> Array:
    """sigma_1..sigma_W of `hankel_rows`, from the rows and not from their Gram [parameter].

    Through the Gram everything below 1e-8 sigma_1 is rounding; from the rows it is below 1e-16.

    Returns:
        (..., W) descending, NaN where a weight or rate is NaN. Source: derived.

    Raises:
        SettingError: If the window is below 1 or a weight negative.

    kappa_j = 1/j, the ratios of consecutive singular values:

    >>> kappa = 1 / np.arange(1, 2001)
    >>> sigma = hankel_singular_values(kappa, np.exp(-0.2 * kappa), 10)
    >>> (sigma[:4] / sigma[1:5]).round(3)
    array([ 8.789, 13.576, 33.661, 65.545])
    """
    rows = hankel_rows(weights, rates, window)
    lead, n = rows.shape[:-2], rows.shape[-1]
    usable = np.asarray(np.isfinite(rows).all(axis=(-2, -1)))
    safe = np.asarray(np.where(usable[..., None, None], rows, 0.0), dtype=np.float64)
    found = np.linalg.svd(safe, full_matrices=False, compute_uv=False)
    sigma = np.concatenate([found, np.zeros((*lead, max(0, window - n)))], axis=-1)
    return np.where(usable[..., None], sigma, np.nan)


def lazy_profiles(kappa: ArrayLike, residuals: ArrayLike, lr: ArrayLike, stride: int) -> tuple[Array, Array]:
    """Weights and rates of a frozen tangent kernel under squared loss and gradient descent.

    rho_j = (1 - eta kappa_j)^s and w_j = kappa_j c_j^2 [(1 - rho_j) / kappa_j]^2, for `hankel_gram`: the
    window that a network in the lazy limit produces. kappa_j = 0 moves no parameter: w_j = 0.

    Args:
        kappa: (..., n) eigenvalues of K = J J^T with the loss's 1/n taken in [1 / lr].
        residuals: (..., n) c_j, the residual at the window's start along the kernel's eigenvectors.
        lr: (...) eta of plain gradient descent.
        stride: s, steps per update.

    Returns:
        (weights, rates), (..., n) each. Source: derived (arXiv:2603.28964 characterises k* by the kernel).
    """
    k = np.asarray(kappa, dtype=np.float64)
    x = np.asarray(lr, dtype=np.float64)[..., None] * k
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(k != 0.0, one_minus_power(x, stride) ** 2 / k, k)
    return lost * np.square(np.asarray(residuals, dtype=np.float64)), (1.0 - x) ** stride


def one_minus_power(x: ArrayLike, n: int) -> Array:
    """1 - (1 - x)^n without cancellation for small x; (...). Source: standard result."""
    x = np.asarray(x, dtype=np.float64)
    small = np.abs(x) < 0.5
    precise = -np.expm1(n * np.log1p(-np.where(small, x, 0.0)))
    return np.where(small, precise, 1.0 - (1.0 - x) ** n)


def slow_modes(rates: ArrayLike, window: int) -> NDArray[np.bool_]:
    """Whether a mode decays by less than e over the window: (W - 1) |log rho_j| <= 1, rho_j <= 1; (..., n)."""
    rho = np.asarray(rates, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (rho > 0.0) & (rho <= 1.0) & (-(window - 1) * np.log(rho) <= 1.0)


def profile_bound(weights: ArrayLike, rates: ArrayLike, window: int) -> Array:
    """Upper bounds on sigma_1..sigma_W of any such window [parameter].

    The profiles rho^a of the slow modes lie within 2 * 4^-q / q! of polynomials of degree q - 1 (Chebyshev),
    so with K fast modes sigma_{K+q+1} <= (2 * 4^-q / q!) sqrt(W sum_slow w_j) for q >= 1; at q = 0 and above,
    the Frobenius norm. Fast are the modes that `slow_modes` leaves out. A bound that falls this fast holds
    without any learnt structure: it is why large ratios at a small k* prove nothing.

    Returns:
        (..., W); NaN where a weight or rate is NaN. Source: derived (arXiv:2603.28964 states k* <= 1 + K_s,
        which does not follow).

    Raises:
        SettingError: If the window is below 1 or a weight negative.
    """
    rows = hankel_rows(weights, rates, window)
    slow = np.broadcast_to(slow_modes(rates, window), (*rows.shape[:-2], rows.shape[-1]))
    total = np.sqrt(np.square(rows).sum(axis=(-2, -1)))[..., None]
    drift = np.sqrt(window * np.where(slow, np.square(rows[..., 0, :]), 0.0).sum(axis=-1))[..., None]
    q = np.arange(window) - (~slow).sum(axis=-1)[..., None]
    bound = np.where(q >= 1, 2.0 * 4.0 ** -np.maximum(q, 0) / factorial(np.maximum(q, 0)) * drift, np.inf)
    # sigma_j^2 is at most a j-th of the trace.
    return np.where(np.isnan(total), np.nan, np.minimum(bound, total / np.sqrt(np.arange(1, window + 1))))


def effective_rank_bound(n_fast: ArrayLike, level: float) -> NDArray[np.int64]:
    """Largest number of singular values above ``level`` times sqrt(W sum_slow w_j): K_s + q(level); (...).

    q(level) is the smallest q >= 1 with 2 * 4^-q / q! <= level: 1 at 0.5, 2 at 0.0625, 3 at 0.0052083.

    Raises:
        SettingError: If the level is not above 0.

    >>> [int(effective_rank_bound(2, level)) for level in (0.5, 0.0625, 0.01)]
    [3, 4, 5]
    """
    if not level > 0.0:
        raise SettingError(f"level must be greater than 0; got {level}. Use a share such as 0.05.")
    q, factor = 1, 0.5
    while factor > level:
        q, factor = q + 1, factor / (4.0 * (q + 1))
    return np.asarray(n_fast, dtype=np.int64) + q
