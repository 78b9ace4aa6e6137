"""What one snapshot leaves behind, and how it is read off sums over entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """What one snapshot leaves behind. B blocks, L lags; NaN where a lag is not available.

    Attributes:
        products: ``<delta_t, delta_{t-l}>``, shape ``(B, L + 1)``, parameter units squared.
        theta_dot: ``<theta_t, delta_t>``, shape ``(B,)``.
        theta_norm2: ``||theta_t||^2``, shape ``(B,)``.
        unchanged: Entries of the update that are exactly zero, shape ``(B,)``; NaN where a sketch cannot tell.
        nonfinite: Entries of the snapshot that are NaN or infinite, shape ``(B,)``.
        decay_products: ``<delta_wd_t, delta_{t-l}>``, shape ``(B, L + 1)``, or None.
        decay_norm2: ``||delta_wd_t||^2``, shape ``(B,)``, or None.
        error_norm2: Squared norm of what rounding to bfloat16 took off the stored update, exactly, shape ``(B,)``;
            None where updates are stored as they are formed.
    """

    products: np.ndarray
    theta_dot: np.ndarray
    theta_norm2: np.ndarray
    unchanged: np.ndarray
    nonfinite: np.ndarray
    decay_products: np.ndarray | None = None
    decay_norm2: np.ndarray | None = None
    error_norm2: np.ndarray | None = None


def n_columns(n_old: int, *, decay: bool, half: bool) -> int:
    """Sums that make up a row with products at lags 1..n_old; see ``row_of_sums`` for their order."""
    return (2 if decay else 1) * n_old + (7 if decay else 5) + (1 if half else 0)


def row_of_sums(sums: np.ndarray, lags: int, *, decay: bool, half: bool) -> Row:
    """The row that sums over all entries make up.

    Args:
        sums: (B, C): products with the n stored updates, newest first; ``||delta||^2``, ``<theta, delta>``,
            ``||theta||^2``, unchanged entries; with decay as many products of the decay part, its product with the
            newest update and its own norm squared; with ``half`` the squared norm of the rounding; at last the
            number of entries that are not finite.
        lags: L.
        decay: Whether sums of the decay part are there.
        half: Whether updates are stored in bfloat16.
    """
    n_old = (sums.shape[1] - n_columns(0, decay=decay, half=half)) // (2 if decay else 1)
    products = np.full((len(sums), lags + 1), np.nan)
    products[:, 0] = sums[:, n_old]
    products[:, 1 : n_old + 1] = sums[:, :n_old]
    decay_products = decay_norm2 = None
    if decay:
        decay_products = np.full((len(sums), lags + 1), np.nan)
        decay_products[:, 0] = sums[:, 2 * n_old + 4]
        decay_products[:, 1 : n_old + 1] = sums[:, n_old + 4 : 2 * n_old + 4]
        decay_norm2 = finite(sums[:, 2 * n_old + 5])
        decay_products = finite(decay_products)
    return Row(
        products=finite(products),
        theta_dot=finite(sums[:, n_old + 1]),
        theta_norm2=finite(sums[:, n_old + 2]),
        unchanged=sums[:, n_old + 3].copy(),
        nonfinite=sums[:, -1].copy(),
        decay_products=decay_products,
        decay_norm2=decay_norm2,
        error_norm2=finite(sums[:, -2]) if half else None,
    )


def finite(values: np.ndarray) -> np.ndarray:
    """Infinities as NaN: a product with a non-finite update is not a number anybody can use."""
    return np.where(np.isfinite(values), values, np.nan)
