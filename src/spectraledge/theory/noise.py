"""Estimators of update noise: energy per row, correlation in time, and the author's own forms.

Throughout, ``e = nu^2 P`` is the noise energy of one update (one row), the trace of its covariance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.dimension import effective_dimension
from spectraledge.theory.spectrum import as_grams
from spectraledge.theory.strengths import (
    critical_strength,
    debiased_strength,
    detected_strengths,
    detection_threshold,
    noise_edge,
    signal_fraction,
)

Array = NDArray[np.float64]

__all__ = [
    "author_bbp_ratio",
    "author_noise",
    "common_part_noise",
    "critical_strength",
    "debiased_strength",
    "detected_strengths",
    "detection_threshold",
    "effective_dimension",
    "momentum_row_correlation",
    "noise_edge",
    "signal_fraction",
    "von_neumann_noise",
]


def von_neumann_noise(gram: ArrayLike, row_correlation_1: ArrayLike = 0.0) -> Array:
    """Noise energy per row from successive differences: half the mean ||delta_{t+1} - delta_t||^2.

    Exact for a constant drift and uncorrelated rows. A changing drift biases it up; a correlation rho_1
    between neighbouring rows (momentum) biases it down and is divided out.

    Args:
        gram: (..., W, W) with W >= 2 [parameter^2].
        row_correlation_1: rho_1, see :func:`momentum_row_correlation`.

    Returns:
        (...) e [parameter^2]. Source: standard result (von Neumann), correction derived.
    """
    gram = _at_least_two(gram)
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    beside = np.diagonal(gram, offset=1, axis1=-2, axis2=-1)
    squared_steps = diagonal[..., :-1] + diagonal[..., 1:] - 2.0 * beside
    return 0.5 * squared_steps.mean(axis=-1) / (1.0 - np.asarray(row_correlation_1, dtype=np.float64))


def common_part_noise(gram: ArrayLike) -> Array:
    """Noise energy per row as mean diagonal minus mean off-diagonal entry; exact for one constant drift.

    Args:
        gram: (..., W, W) with W >= 2 [parameter^2].

    Returns:
        (...) e [parameter^2]. Source: derived.

    >>> float(common_part_noise([[3.0, 1.0], [1.0, 3.0]]))
    2.0
    """
    gram = _at_least_two(gram)
    window = gram.shape[-1]
    diagonal = np.trace(gram, axis1=-2, axis2=-1)
    return diagonal / window - (gram.sum(axis=(-2, -1)) - diagonal) / (window * (window - 1))


def momentum_row_correlation(beta: float, steps: int, n: int) -> Array:
    """Correlation rho_0..rho_{n-1} that momentum leaves between updates of ``steps`` optimizer steps.

    For independent gradients through an exponential average (or heavy ball) of coefficient beta:
    ``rho_1 = beta (1 - beta^s)^2 / (s (1 - beta^2) - 2 beta (1 - beta^s))`` and
    ``rho_k = rho_1 beta^(s (k-1))``. Source: derived.

    Args:
        beta: Momentum coefficient (Adam's beta_1), 0 <= beta < 1.
        steps: Optimizer steps s per update.
        n: Number of lags.

    Raises:
        SettingError: If beta, steps or n is out of range.

    >>> momentum_row_correlation(0.9, 10, 2).round(3)
    array([1.   , 0.525])
    """
    if not 0.0 <= beta < 1.0:
        raise SettingError(f"beta must lie in [0, 1); got {beta}. Pass the optimizer's momentum, 0 if it has none.")
    if steps < 1 or n < 1:
        raise SettingError(f"steps and n must be at least 1; got {steps} and {n}. Pass the steps of one update.")
    rho = np.zeros(n)
    rho[0] = 1.0
    if n > 1 and beta > 0.0:
        faded = -np.expm1(steps * np.log(beta))
        first = beta * faded**2 / (steps * (1.0 - beta**2) - 2.0 * beta * faded)
        rho[1:] = first * beta ** (steps * np.arange(n - 1))
    return rho


def author_noise(singular_values: ArrayLike, n_parameters: int) -> Array:
    """The author's noise variance nu^2 per entry: mean of the bottom half of the window's sigma^2, over P.

    Source: arXiv:2603.28964 (published script). Kept to reproduce reported numbers: it calls any spectrum
        signal.
    """
    lam = np.square(np.asarray(singular_values, dtype=np.float64))
    return lam[..., lam.shape[-1] // 2 :].mean(axis=-1) / n_parameters


def author_bbp_ratio(singular_values: ArrayLike, n_parameters: int) -> Array:
    """sigma_W over the author's d_crit = nu (P (W - 1))^(1/4).

    At most (P / (W - 1))^(1/4) whatever the data, and white noise attains that: not a test of anything. NaN
    for an all-zero window. Source: arXiv:2603.28964, bound derived.

    >>> round(float(author_bbp_ratio([1.0] * 10, 163_150_848)), 2)
    65.25
    """
    sigma = np.asarray(singular_values, dtype=np.float64)
    window = sigma.shape[-1]
    critical = np.sqrt(author_noise(sigma, n_parameters)) * (n_parameters * (window - 1.0)) ** 0.25
    with np.errstate(divide="ignore", invalid="ignore"):
        return sigma[..., -1] / critical


def _at_least_two(gram: ArrayLike) -> Array:
    gram = as_grams(gram)
    if gram.shape[-1] < 2:
        raise SettingError("A noise estimate needs at least 2 updates; got 1. Use window=10 as in the paper.")
    return gram
