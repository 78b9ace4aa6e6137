"""Largest eigenpairs of a symmetric operator known by its products. The one place that does this here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def top_eigenpairs(
    product: Callable[[Array], Array], n: int, n_eigenvalues: int, *, rng: np.random.Generator, tolerance: float
) -> tuple[Array, Array]:
    """Eigenvalues, descending, (m,), and eigenvectors as columns, (n, m).

    Args:
        product: x (n,) to A x (n,), A symmetric.
        n: Size of A.
        n_eigenvalues: m, 1 <= m < n.
        rng: Draws the start vector.
        tolerance: Relative accuracy of the eigenvalues.

    Raises:
        SettingError: If m is out of range.
    """
    if not 1 <= n_eigenvalues < n:
        raise SettingError(
            f"n_eigenvalues must lie in 1..{n - 1}, below the number of outputs; got {n_eigenvalues}. "
            "Use kernel_matrix for the whole spectrum."
        )
    operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
    start = rng.standard_normal(n)
    # Restarted Lanczos that keeps its basis orthogonal to rounding, so no eigenvalue comes out twice.
    values, vectors = eigsh(operator, k=n_eigenvalues, which="LA", v0=start, tol=tolerance)
    order = np.argsort(values)[::-1]
    return np.asarray(values[order]), np.asarray(vectors[:, order])
