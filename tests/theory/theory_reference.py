"""Naive references: everything by explicit SVD of stacked rows, or by explicit sums."""

from __future__ import annotations

import numpy as np

PUBLISHED = np.array([198.58, 169.08, 122.47, 110.73, 106.22, 92.66, 78.30, 61.27, 44.58, 22.79])
"""Singular values of the published TinyStories run at step 2000."""

P_PUBLISHED = 163_150_848


def svd(rows):
    """Left vectors, singular values, right vectors (columns) of stacked rows."""
    u, s, vt = np.linalg.svd(rows, full_matrices=False)
    return u, s, vt.T


def wishart(n_draws, window, p, rng):
    """Grams of ``window`` independent normal rows of length ``p`` with unit expected norm, by Bartlett."""
    lower = np.tril(rng.standard_normal((n_draws, window, window)), -1)
    for row in range(window):
        lower[:, row, row] = np.sqrt(rng.chisquare(p - row, n_draws))
    return lower @ lower.swapaxes(-1, -2) / p


def momentum_updates_correlation(beta, steps, n):
    """Correlation of updates by summing the weights every gradient has in every update."""
    history = 400 + steps * n
    weights = np.zeros((n, history))
    for update in range(n):
        for step in range(update * steps, (update + 1) * steps):
            now = step + history - n * steps
            weights[update, : now + 1] += beta ** (now - np.arange(now + 1))
    covariance = weights @ weights.T
    return covariance[0] / covariance[0, 0]


def hankel(eta_s, n_modes=2000, window=10):
    """Noise-free Gram of gradient descent on modes kappa_j = 1/j with weights kappa_j."""
    kappa = 1.0 / np.arange(1, n_modes + 1)
    profiles = np.exp(-eta_s * kappa * np.arange(window)[:, None])
    return (profiles * kappa) @ profiles.T
