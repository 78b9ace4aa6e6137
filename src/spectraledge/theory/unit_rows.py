"""Random correlation matrices of independent or momentum-correlated unit rows in an effective dimension."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import toeplitz
from scipy.special import gammaincinv, ndtri

from spectraledge.errors import SettingError

Array = NDArray[np.float64]

# Above this many degrees of freedom the Wilson-Hilferty cube is exact to 1e-6 relative, which is far inside
# the Monte Carlo error of any quantile taken from the draws.
_WILSON_HILFERTY_FROM = 1e4
_LARGEST_DIMENSION = 1e15


def row_correlation_matrix(row_correlation: ArrayLike | None, n_rows: int) -> Array:
    """T (n_rows, n_rows) from nothing (identity), lag correlations ``rho_0..`` or a full matrix.

    Raises:
        SettingError: If it is too short, has another shape, or is not the correlation of anything.
    """
    if row_correlation is None:
        return np.eye(n_rows)
    rho = np.asarray(row_correlation, dtype=np.float64)
    if rho.ndim == 1 and rho.shape[0] >= n_rows:
        matrix = toeplitz(rho[:n_rows])
    elif rho.shape == (n_rows, n_rows):
        matrix = rho
    else:
        raise SettingError(
            f"row_correlation must hold at least {n_rows} lags or be {n_rows} x {n_rows}; "
            f"got shape {rho.shape}. "
            "Use momentum_row_correlation(beta, steps, n)."
        )
    if not np.allclose(np.diag(matrix), 1.0):
        raise SettingError(
            "row_correlation must be 1 at lag 0; got "
            f"{np.diag(matrix)[0]:g}. Divide by the value at lag 0, or use momentum_row_correlation."
        )
    return matrix


def correlation_factor(matrix: Array) -> Array:
    """F with F F^T = matrix, for a positive semi-definite matrix (rank deficiency allowed)."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    if eigenvalues[0] < -1e-9 * max(eigenvalues[-1], 0.0) - 1e-300:
        raise SettingError(
            f"A correlation must be positive semi-definite; got smallest eigenvalue {eigenvalues[0]:.3g}. "
            "Pass the correlations of an actual process, such as momentum_row_correlation(beta, steps, n)."
        )
    return vectors * np.sqrt(np.maximum(eigenvalues, 0.0))


def chi_square_quantile(df: ArrayLike, u: Array) -> Array:
    """Quantile of chi^2 with real ``df`` > 0, fast at large df."""
    df = np.broadcast_to(np.asarray(df, dtype=np.float64), u.shape)
    large = df > _WILSON_HILFERTY_FROM
    c = 2.0 / (9.0 * df)
    cube = df * (1.0 - c + ndtri(u) * np.sqrt(c)) ** 3
    return np.where(large, cube, 2.0 * gammaincinv(np.where(large, 1.0, 0.5 * df), u))


class UnitRowDraws:
    """Common random numbers for correlation matrices of ``n_rows`` unit rows, at any effective dimension.

    The same normals and uniforms serve every dimension, so that two windows differ by their data and not by
    the luck of their draws.
    """

    def __init__(self, n_rows: int, n_draws: int, rng: np.random.Generator) -> None:
        self.n_rows = n_rows
        self.normals = rng.standard_normal((n_draws, n_rows, n_rows))
        # Strictly inside (0, 1): a quantile at 0 or 1 is not finite.
        self.uniforms = rng.uniform(1e-12, 1.0 - 1e-12, (n_draws, n_rows))

    def factor(self, p_eff: float) -> Array:
        """(n_draws, n_rows, *) Z with Z Z^T a Wishart matrix over its p_eff degrees of freedom."""
        n = self.n_rows
        if p_eff <= n - 1:
            columns = max(1, round(p_eff))
            return self.normals[:, :, :columns] / np.sqrt(columns)
        q = min(p_eff, _LARGEST_DIMENSION)
        # Bartlett: lower triangle normal, squared diagonal chi^2 with q, q-1, ... degrees of freedom.
        factor = np.tril(self.normals, -1)
        rows = np.arange(n)
        factor[:, rows, rows] = np.sqrt(chi_square_quantile(q - rows, self.uniforms))
        return factor / np.sqrt(q)

    def correlations(self, p_eff: float, row_factor: Array | None = None) -> Array:
        """(n_draws, n_rows, n_rows) cosines between rows; PSD by construction."""
        rows = self.factor(p_eff)
        if row_factor is not None:
            rows = row_factor @ rows
        rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
        return rows @ np.swapaxes(rows, -1, -2)
