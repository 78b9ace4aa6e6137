"""The ends of a symmetric operator's spectrum from products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal

from ..errors import SettingError


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of largest size at the upper end.

    Attributes:
        values: (k) descending.
        errors: (k) ``|beta_m s_mi|``: each true eigenvalue lies within this of one of ``values``.
        vectors: (k, P) unit eigenvectors, or None.
        n_products: Products with the operator that were made.
    """

    values: np.ndarray
    errors: np.ndarray
    vectors: torch.Tensor | None
    n_products: int


@torch.no_grad()
def lanczos(
    product: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    k: int,
    *,
    max_products: int | None = None,
    tolerance: float = 1e-3,
    vectors: bool = False,
) -> Eigenvalues:
    """The k largest eigenvalues of a symmetric operator, by Lanczos with full reorthogonalisation.

    Every new vector is orthogonalised twice against all earlier ones, so that no eigenvalue is found twice
    (without it, rounding brings ghosts). Stops when the k largest have errors below ``tolerance`` times the
    largest size, or the space is exhausted.

    Args:
        product: x -> A x for flat x of the start's dtype; may itself need gradients.
        start: (P) any vector that is not orthogonal to what is looked for; a random one.
        k: Number of eigenvalues.
        max_products: At most this many; ``4 k + 20`` where None. The basis takes that many P-vectors.
        tolerance: Relative error at which to stop.
        vectors: Whether to return eigenvectors.

    Raises:
        SettingError: If k is not in 1..P, or the start is zero.

    Source: standard result (Lanczos 1950; Paige 1972 for the error bound).

    Example:
        >>> a = torch.diag(torch.tensor([1.0, 5.0, 3.0, -2.0], dtype=torch.float64))
        >>> found = lanczos(lambda x: a @ x, torch.ones(4, dtype=torch.float64), 2)
        >>> found.values.round(6)
        array([5., 3.])
    """
    size = start.numel()
    if not 1 <= k <= size:
        raise SettingError(f"the number of eigenvalues must lie in 1..{size}; got {k}. Ask for a few.")
    norm = float(start.norm())
    if not norm > 0:
        raise SettingError("Lanczos must start from a vector that is not zero; got norm 0. Use a random one.")
    limit = min(size, max(k, 4 * k + 20 if max_products is None else max_products))
    basis = torch.empty((limit, size), dtype=start.dtype, device=start.device)
    alpha: list[float] = []
    beta: list[float] = []
    q = start / norm
    negligible = 10 * torch.finfo(start.dtype).eps
    while True:
        m = len(alpha)
        basis[m] = q
        with torch.enable_grad():
            w = product(q).detach()
        alpha.append(float(torch.dot(w, q)))
        done = basis[: m + 1]
        for _ in range(2):
            w = w - done.T @ (done @ w)
        b = float(w.norm())
        theta, s = eigh_tridiagonal(np.array(alpha), np.array(beta))
        values, errors = theta[::-1][:k], np.abs(b * s[-1, ::-1][:k])
        scale = float(np.abs(theta).max())
        exhausted = b <= negligible * max(scale, np.finfo(np.float64).tiny)
        converged = len(values) == k and bool((errors <= tolerance * scale).all())
        if m + 1 == limit or exhausted or converged:
            break
        beta.append(b)
        q = w / b
    found = None
    if vectors:
        weights = torch.as_tensor(np.ascontiguousarray(s[:, ::-1][:, :k].T), dtype=start.dtype, device=start.device)
        found = weights @ basis[: len(alpha)]
    return Eigenvalues(values.copy(), errors.copy(), found, len(alpha))
