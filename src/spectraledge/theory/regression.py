"""Regression of series whose errors are correlated in time, as those of overlapping windows are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as fisher
from scipy.stats import t as student

from spectraledge.errors import SettingError
from spectraledge.theory.autocorrelation import (
    AR1,
    ar1_fit,
    bartlett_long_run,
    effective_n,
    gap_damping_correlation,
    lagged_design,
)

Array = NDArray[np.float64]

__all__ = [
    "AR1",
    "Regression",
    "ar1_fit",
    "bartlett_long_run",
    "effective_n",
    "gap_damping_correlation",
    "lagged_design",
    "ols_hac",
]

_WORST_CONDITION = 1e8  # beyond it half of the digits of a coefficient are rounding


@dataclass(frozen=True)
class Regression:
    """Least-squares fit with a covariance that allows for correlated, unequal errors.

    Attributes:
        coefficients: (..., k), the intercept first if there is one.
        covariance: (..., k, k) Newey-West.
        residuals: (..., n), NaN in rows left out.
        r_squared: (...) against the mean if there is an intercept, against zero otherwise.
        n: (...) rows used.
        dof: (...) degrees of freedom of the t and F laws.
        condition: (...) condition number of the design with columns of unit length.
        lag: Lags of the covariance.
    """

    coefficients: Array
    covariance: Array
    residuals: Array
    r_squared: Array
    n: Array
    dof: Array
    condition: Array
    lag: int

    @property
    def standard_errors(self) -> Array:
        """(..., k) roots of the diagonal of the covariance."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=-2, axis2=-1), 0.0))

    @property
    def p_values(self) -> Array:
        """(..., k) two-sided p-values of each coefficient being 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2.0 * student.sf(np.abs(self.coefficients / self.standard_errors), self.dof[..., None])

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper ends (..., k) of the coefficients' intervals.

        Raises:
            SettingError: If level is not in (0, 1).
        """
        if not 0.0 < level < 1.0:
            raise SettingError(f"level must lie in (0, 1); got {level}. Use 0.95.")
        reach = student.ppf(0.5 + 0.5 * level, self.dof[..., None]) * self.standard_errors
        return self.coefficients - reach, self.coefficients + reach

    def wald(self, which: Sequence[int]) -> Array:
        """(...) p-value of the coefficients ``which`` being 0 together.

        ``F = b^T C^-1 b (dof - q + 1) / (q dof)`` with (q, dof - q + 1) degrees of freedom (Hotelling): the
        chi-square law rejects too often, since C itself is an estimate of few degrees of freedom.

        Raises:
            SettingError: If ``which`` is empty.
        """
        index = np.asarray(which, dtype=np.intp)
        if index.size == 0:
            raise SettingError("A Wald test needs at least one coefficient; got none. Name their positions.")
        b = self.coefficients[..., index]
        c = self.covariance[..., index[:, None], index]
        usable = np.asarray(np.isfinite(b).all(axis=-1) & np.isfinite(c).all(axis=(-2, -1)))
        usable = usable & (self.dof > index.size - 1)
        scale = np.sqrt(np.diagonal(c, axis1=-2, axis2=-1))
        usable = usable & (scale > 0.0).all(axis=-1)
        scale = np.where(usable[..., None], scale, 1.0)
        c = np.where(usable[..., None, None], c / scale[..., :, None] / scale[..., None, :], np.eye(index.size))
        b = np.where(usable[..., None], b / scale, 0.0)
        w = np.einsum("...i,...ij,...j->...", b, np.linalg.pinv(c, hermitian=True), b)
        rest = np.where(usable, self.dof - index.size + 1.0, 1.0)
        statistic = w * rest / (index.size * np.where(usable, self.dof, 1.0))
        return np.where(usable, fisher.sf(statistic, index.size, rest), np.nan)


def ols_hac(y: ArrayLike, x: ArrayLike, *, lag: int, intercept: bool = True) -> Regression:
    """Ordinary least squares with Newey-West standard errors.

    ``C = c (X^T X)^-1 S (X^T X)^-1``, ``S = sum_{|l| <= lag} (1 - |l|/(lag + 1)) Gamma_l`` of the scores
    ``x_t e_t``. Small samples are corrected three times: ``n/(n - k)``; division by ``1 - b + b^2/3`` with
    ``b = (lag + 1)/n`` for lag > 0, since the scores of a fit sum to zero; and Student's t with ``min(n - k,
    1.5 n / (lag + 1))`` degrees of freedom, those of a Bartlett estimate at frequency zero. What remains is
    truncation: the kernel loses about ``2 rho / ((1 - rho^2)(lag + 1))`` of the variance of AR(1) scores. Use
    a lag of at least W, better 2 W, for windows of W updates.

    Rows with a missing value are left out with a score of 0, so that those around keep their distance in
    time.

    Args:
        y: (..., n) responses.
        x: (..., n, k) columns in the last axis, or (..., n) for a single one.
        lag: Lags of the covariance, 0 <= lag < n; 0 is White's (HC1).
        intercept: Put a column of ones in front.

    Returns:
        The fit; NaN throughout for an item with no more rows than columns or a condition number above 1e8.
        Source: standard result (Newey and West 1987; degrees of freedom Priestley 1981); division
        by ``1 - b + b^2/3`` derived.

    Raises:
        SettingError: If shapes do not match or lag is out of range.

    >>> fit = ols_hac([1.0, 3.0, 5.0, 7.5], [0.0, 1.0, 2.0, 3.0], lag=0)
    >>> fit.coefficients.round(3)
    array([0.9 , 2.15])
    """
    response, design = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    if design.shape == response.shape:
        design = design[..., None]
    if response.ndim < 1 or design.shape[:-1] != response.shape:
        raise SettingError(
            f"x must be (..., n, k) for y of shape {response.shape}; got {design.shape}. Columns go last."
        )
    n_rows = response.shape[-1]
    if not 0 <= lag < n_rows:
        raise SettingError(f"lag must lie in 0..{n_rows - 1}; got {lag}. Use 2 W for windows of W updates.")
    if intercept:
        design = np.concatenate([np.ones((*response.shape, 1)), design], axis=-1)
    if design.shape[-1] < 1:
        raise SettingError("A regression needs at least one column; got none. Add one or use intercept=True.")
    known = np.isfinite(response) & np.isfinite(design).all(axis=-1)
    xs, ys = np.where(known[..., None], design, 0.0), np.where(known, response, 0.0)
    k, n = design.shape[-1], known.sum(axis=-1)
    scale = np.sqrt(np.square(xs).sum(axis=-2))
    scale = np.where(scale > 0.0, scale, 1.0)
    padded = np.concatenate([xs / scale[..., None, :], np.zeros((*response.shape[:-1], max(k - n_rows, 0), k))], -2)
    r = np.linalg.qr(padded, mode="r")
    _, s, vt = np.linalg.svd(r)
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(s[..., -1] > 0.0, s[..., 0] / s[..., -1], np.inf)
    usable = (n > k) & (condition <= _WORST_CONDITION)
    safe = np.where(usable[..., None], s, 1.0)
    v = np.swapaxes(vt, -1, -2) / safe[..., None, :]  # (X^T X)^-1 = v v^T, columns of unit length
    bread = (v @ np.swapaxes(v, -1, -2)) / scale[..., :, None] / scale[..., None, :]
    b = (bread @ (np.swapaxes(xs, -1, -2) @ ys[..., None]))[..., 0]
    residuals = np.where(known, ys - (xs @ b[..., None])[..., 0], 0.0)
    # One step of refinement: normal equations square the condition number.
    b = b + (bread @ (np.swapaxes(xs, -1, -2) @ residuals[..., None]))[..., 0]
    residuals = np.where(known, ys - (xs @ b[..., None])[..., 0], 0.0)
    meat = bartlett_long_run(xs * residuals[..., None], lag)
    bandwidth = (lag + 1.0) / np.maximum(n, lag + 1.0)
    correction = n / np.where(n > k, n - k, 1.0)
    if lag:
        correction = correction / (1.0 - bandwidth + bandwidth**2 / 3.0)
    covariance = correction[..., None, None] * (bread @ meat @ bread)
    centre = np.where(n > 0, ys.sum(axis=-1) / np.maximum(n, 1), 0.0) if intercept else np.zeros(n.shape)
    total = np.square(np.where(known, ys - centre[..., None], 0.0)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        r_squared = np.where(total > 0.0, 1.0 - np.square(residuals).sum(axis=-1) / total, np.nan)
    dof = np.minimum(n - k, 1.5 * n / (lag + 1.0))
    return Regression(
        coefficients=np.where(usable[..., None], b, np.nan),
        covariance=np.where(usable[..., None, None], covariance, np.nan),
        residuals=np.where(known & usable[..., None], residuals, np.nan),
        r_squared=np.where(usable, r_squared, np.nan),
        n=np.asarray(n),
        dof=np.where(usable, dof, np.nan),
        condition=condition,
        lag=lag,
    )
