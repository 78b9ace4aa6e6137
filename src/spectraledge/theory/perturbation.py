"""How much the window changed when m new updates replaced its m oldest, from inner products alone.

Every function takes the *block* of both windows: the inner products of the W + m updates that either holds,
in order of time, so that ``block[..., :W, :W]`` is the Gram before and ``block[..., m:, m:]`` the Gram
after. For m >= W give the 2 W updates of the two disjoint windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.spectrum import as_grams

Array = NDArray[np.float64]
Reading = Literal["dlam", "shift", "aligned", "operator"]

_EPS = float(np.finfo(np.float64).eps)


def gram_change(block: ArrayLike, window: int, *, reading: Reading = "operator") -> Array:
    """Size of the change between two windows, in one of four inequivalent readings.

    Args:
        block: (..., W + m, W + m) inner products [parameter^2], 1 <= m <= W.
        window: W.
        reading: ``operator`` (default): ||Delta M||_F of M = X^T X, the one that bounds rotations of the
            directions v_j. ``aligned``: ||Delta G||_F with every new row in the place of an old one; bounds
            rotations of time profiles. ``shift``: ||G(t) - G(t - m)||_F entry by entry; large even for a
            steady path. ``dlam``: l2 norm of the change of eigenvalues, the author's; a lower bound of all
            others (Hoffman-Wielandt).

    Returns:
        (...) [parameter^2]. Source: arXiv:2603.28964 (dlam), derived (others).

    Raises:
        SettingError: For an unknown reading or a block of the wrong size.
    """
    block, m = _block(block, window)
    if reading not in get_args(Reading):
        raise SettingError(
            f"reading must be one of {', '.join(get_args(Reading))}; got {reading!r}. The default is operator."
        )
    before, after = block[..., :window, :window], block[..., m:, m:]
    if reading == "dlam":
        finite = np.asarray(np.isfinite(block).all(axis=(-2, -1)))
        safe = [np.where(finite[..., None, None], g, 0.0) for g in (before, after)]
        change = np.linalg.eigvalsh(safe[1]) - np.linalg.eigvalsh(safe[0])
        return np.where(finite, np.linalg.norm(change, axis=-1), np.nan)
    if reading == "shift":
        return np.linalg.norm(after - before, axis=(-2, -1))
    if reading == "aligned":
        return np.linalg.norm(cyclic_change(block, window), axis=(-2, -1))
    return np.sqrt(np.maximum(_operator_norm2(block, window, m), 0.0))


@dataclass(frozen=True)
class OperatorChange:
    """The change Delta M = sum of new delta delta^T - sum of old delta delta^T of M = X^T X.

    Attributes:
        eigenvalues: (..., 2 m) nonzero eigenvalues of Delta M, descending [parameter^2].
        frobenius: (...) their l2 norm, from the block formula.
        spectral: (...) the largest absolute one.
        spread: (...) largest minus smallest: the quantity that bounds rotations with constant 1.
        lost_digits: (...) True where new and old rows agree so closely that the figures are mostly rounding
            (absolute error about 1e-8 of the rows' energy).
    """

    eigenvalues: Array
    frobenius: Array
    spectral: Array
    spread: Array
    lost_digits: NDArray[np.bool_]


def operator_change(block: ArrayLike, window: int) -> OperatorChange:
    """Exact spectrum of Delta M for m replaced rows.

    For one row the eigenvalues are ``(n - o +- sqrt((n + o)^2 - 4 p^2)) / 2`` with n, o the energies of the
    new and the old row and p their product. For m rows they are those of ``B^(1/2) diag(1, -1) B^(1/2)``, B
    the Gram of new and old rows. Source: derived.

    Args:
        block: (..., W + m, W + m) [parameter^2], 1 <= m <= W.
        window: W.

    Raises:
        SettingError: If the block has the wrong size.

    >>> change = operator_change(np.diag([4.0, 1.0, 9.0]), 2)  # energy 4 leaves, 9 enters, all orthogonal
    >>> change.eigenvalues, float(change.spread)
    (array([ 9., -4.]), 13.0)
    """
    block, m = _block(block, window)
    finite = np.asarray(np.isfinite(block).all(axis=(-2, -1)))
    block = np.where(finite[..., None, None], block, 0.0)
    index = np.r_[window : window + m, 0:m]
    pair = block[..., index[:, None], index]
    if m == 1:
        n, o, p = pair[..., 0, 0], pair[..., 1, 1], pair[..., 0, 1]
        root = np.sqrt(np.maximum((n + o) ** 2 - 4.0 * p**2, 0.0))
        eigenvalues = 0.5 * np.stack([n - o + root, n - o - root], axis=-1)
    else:
        lam, q = np.linalg.eigh(pair)
        half = q * np.sqrt(np.maximum(lam, 0.0))[..., None, :]
        sign = np.r_[np.ones(m), -np.ones(m)]
        eigenvalues = np.linalg.eigvalsh(np.swapaxes(half, -1, -2) @ (sign[:, None] * half))[..., ::-1]
    norm2 = _operator_norm2(block, window, m)
    energy2 = np.square(block[..., window:, window:]).sum(axis=(-2, -1))
    energy2 = energy2 + np.square(block[..., :m, :m]).sum(axis=(-2, -1))
    # norm2 is a difference of sums with an error of some eps * energy2: 64 of them leave about 3 digits...
    # or none.
    lost = finite & (norm2 <= 64.0 * m * _EPS * energy2)
    mask = finite[..., None]
    eigenvalues = np.where(mask, eigenvalues, np.nan)
    return OperatorChange(
        eigenvalues=eigenvalues,
        frobenius=np.where(finite, np.sqrt(np.maximum(norm2, 0.0)), np.nan),
        spectral=np.abs(eigenvalues).max(axis=-1),
        spread=eigenvalues[..., 0] - eigenvalues[..., -1],
        lost_digits=lost,
    )


def cyclic_change(block: ArrayLike, window: int) -> Array:
    """Change of the Gram when each new row takes the place of an old one: (..., W, W) [parameter^2].

    Row a (of the m oldest) becomes the a-th new row, all others keep their place. For m = 1 it is
    ``e_0 w^T + w e_0^T`` with ``w_c = <new - old, delta_c>`` and ``w_0 = (|new|^2 - |old|^2) / 2``; its
    eigenvalues are ``w_0 +- |w|``. Source: derived.
    """
    block, m = _block(block, window)
    index = np.r_[window : window + m, m:window]
    return block[..., index[:, None], index] - block[..., :window, :window]


def second_order_eigenvalues(singular_values: ArrayLike, time_profiles: ArrayLike, change: ArrayLike) -> Array:
    """Eigenvalues after a cyclic change, to second order: drive plus level repulsion.

    ``lambda_j + u_j^T D u_j + sum_{i != j} (u_i^T D u_j)^2 / (lambda_j - lambda_i)``. Holds for modes whose
    gap exceeds twice the norm of the change; in a crowded spectrum it errs by as much as the change itself,
    and :func:`shifted_spectrum` is the exact answer.

    Args:
        singular_values: (..., W) before [parameter].
        time_profiles: (..., W, W) before.
        change: (..., W, W) from :func:`cyclic_change`.

    Returns:
        (..., W) predicted eigenvalues [parameter^2], in the order of the old ones. Source: standard result.
    """
    lam = np.square(np.asarray(singular_values, dtype=np.float64))
    u = np.asarray(time_profiles, dtype=np.float64)
    coupling = np.swapaxes(u, -1, -2) @ np.asarray(change, dtype=np.float64) @ u
    gaps = lam[..., None, :] - lam[..., :, None]  # [i, j] = lambda_j - lambda_i
    with np.errstate(divide="ignore", invalid="ignore"):
        repulsion = np.where(gaps != 0.0, coupling**2 / gaps, 0.0).sum(axis=-2)
    return lam + np.diagonal(coupling, axis1=-2, axis2=-1) + repulsion


def shifted_spectrum(gram: ArrayLike, new_products: ArrayLike, new_energy: ArrayLike) -> Array:
    """Exact singular values after one update enters and the oldest leaves.

    The nonzero spectrum of ``M + a a^T - b b^T`` is that of a (W + 1) x (W + 1) matrix in the basis of the
    old directions and the part of a outside them. Source: derived from the standard rank-one update.

    Args:
        gram: (..., W, W) before; row 0 is the oldest update b [parameter^2].
        new_products: (..., W) <a, delta_c> of the new update a with each row of the window.
        new_energy: (...) ||a||^2.

    Returns:
        (..., W) singular values after [parameter]; NaN for non-finite input.

    >>> shifted_spectrum(np.diag([4.0, 1.0]), [0.0, 0.0], 9.0)
    array([3., 1.])
    """
    gram = as_grams(gram)
    window = gram.shape[-1]
    products = np.asarray(new_products, dtype=np.float64)
    energy = np.asarray(new_energy, dtype=np.float64)
    finite = np.asarray(np.isfinite(gram).all(axis=(-2, -1)))
    finite = finite & np.isfinite(products).all(axis=-1) & np.isfinite(energy)
    lam, u = np.linalg.eigh(np.where(finite[..., None, None], gram, 0.0))
    # Modes at rounding level have no direction: what a has along them is then counted as outside the span.
    usable = lam > window * _EPS * np.maximum(lam[..., -1:], 0.0)
    sigma = np.sqrt(np.where(usable, lam, 1.0))
    a = np.where(finite[..., None], products, 0.0)
    alpha = np.where(usable, np.einsum("...c,...cj->...j", a, u) / sigma, 0.0)
    beta = np.where(usable, u[..., 0, :] * sigma, 0.0)
    outside = np.sqrt(np.maximum(np.where(finite, energy, 0.0) - np.square(alpha).sum(axis=-1), 0.0))
    a_full = np.concatenate([alpha, outside[..., None]], axis=-1)
    b_full = np.concatenate([beta, np.zeros_like(outside)[..., None]], axis=-1)
    small = a_full[..., :, None] * a_full[..., None, :] - b_full[..., :, None] * b_full[..., None, :]
    rows = np.arange(window)
    small[..., rows, rows] += np.where(usable, lam, 0.0)
    after = np.linalg.eigvalsh(small)[..., :0:-1]  # descending, without the one that must vanish
    return np.where(finite[..., None], np.sqrt(np.maximum(after, 0.0)), np.nan)


def _operator_norm2(block: Array, window: int, m: int) -> Array:
    new, old, cross = block[..., window:, window:], block[..., :m, :m], block[..., window:, :m]
    squares = [np.square(part).sum(axis=(-2, -1)) for part in (new, old, cross)]
    return squares[0] + squares[1] - 2.0 * squares[2]


def _block(block: ArrayLike, window: int) -> tuple[Array, int]:
    block = as_grams(block)
    m = block.shape[-1] - window
    if not 1 <= m <= window:
        raise SettingError(
            f"block must hold between W + 1 and 2 W updates, here {window + 1} to {2 * window}; "
            f"got {block.shape[-1]}. Pass the inner products of all updates that either window holds."
        )
    return block, m
