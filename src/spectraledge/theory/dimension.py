"""Effective dimension of update noise, from the scatter of the cosines between updates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.spectrum import as_grams
from spectraledge.theory.unit_rows import row_correlation_matrix

Array = NDArray[np.float64]

_FEWEST_DEGREES_OF_FREEDOM = 10  # the estimate then has a relative sd of sqrt(2/10) = 45 %


def effective_dimension(gram: ArrayLike, *, beyond: int = 1, row_correlation: ArrayLike | None = None) -> Array:
    """P_eff = (tr S)^2 / tr S^2 of the noise covariance S, from the scatter of cosines between updates.

    Cosines of a constant drift plus noise are ``m^2 + r_a + r_b + scatter``; the mean and the row effects r
    are fitted by least squares and ``P_eff = (1 - m^2)^2 / Var(scatter)``. A turning drift lowers the
    estimate, which makes every p-value that uses it larger.

    What is measured is 1 / Var(cosine), which is what a null of given norms needs. It equals the ratio of
    traces when no few axes dominate: for a covariance falling as 1/j it reads 42 where the traces give 34,
    as 1/sqrt(j) 515 for 510.

    Args:
        gram: (..., M, M) inner products of M updates; NaN where a pair was not recorded.
        beyond: Only pairs more than this many updates apart are used: the range of momentum. 0 uses all
            pairs.
        row_correlation: None, (>= M,) or (M, M) correlation of the noise in time. Momentum raises the
            cosines of neighbours and correlates those of neighbouring pairs; given the correlation, the
            first is fitted and the second divided out. Where neighbours still correlate by more than 0.5
            within the pairs used, the estimate stays low (updates of single steps at beta = 0.9: 80 for
            300 at M = 20), which errs towards larger p-values.

    Returns:
        (...) P_eff; NaN where fewer than 10 degrees of freedom are left. Source: derived.

    Raises:
        SettingError: If ``gram`` is not a stack of square matrices or ``beyond`` is negative.
    """
    gram = as_grams(gram)
    if beyond < 0:
        raise SettingError(f"beyond must be at least 0; got {beyond}. Use 0 to use every pair of updates.")
    lead, m = gram.shape[:-2], gram.shape[-1]
    flat = gram.reshape(-1, m, m)
    cosines = _cosines(flat)
    a, b = np.triu_indices(m, beyond + 1)
    pairs = cosines[:, a, b]
    known = np.isfinite(pairs)
    time_correlation = None if row_correlation is None else row_correlation_matrix(row_correlation, m)
    out = np.full(len(flat), np.nan)
    if len(flat) == 0 or len(a) == 0:
        return out.reshape(lead)
    # Nearly all windows of a recording miss the same pairs: fit once for each pattern.
    patterns, which = np.unique(known, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        members = np.flatnonzero(which.reshape(-1) == index)
        fit = _row_effects(a[pattern], b[pattern], m, time_correlation)
        if fit is None:
            continue
        expected, residual_maker = fit
        values = pairs[np.ix_(members, np.flatnonzero(pattern))]
        residual_energy = np.square(values @ residual_maker).sum(axis=-1)
        common = np.maximum(values.mean(axis=-1), 0.0)
        # Rows that agree to rounding, or leave no residual beyond it, have no scatter to measure.
        measurable = (1.0 - common > 1e-10) & (residual_energy > expected * 1e-26)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[members] = np.where(measurable, (1.0 - common) ** 2 * expected / residual_energy, np.nan)
    return out.reshape(lead)


def _cosines(gram: Array) -> Array:
    norms = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return gram / (norms[:, :, None] * norms[:, None, :])


def _row_effects(
    a: NDArray[np.intp], b: NDArray[np.intp], m: int, time_correlation: Array | None
) -> tuple[float, Array] | None:
    """Expected residual energy at P_eff = 1, and the matrix that takes cosines to residuals."""
    pairs = len(a)
    design = np.zeros((pairs, m))
    rows = np.arange(pairs)
    design[rows, a] = 1.0
    design[rows, b] = 1.0
    if time_correlation is not None:
        design = np.c_[design, time_correlation[a, b]]
    if pairs == 0 or pairs - np.linalg.matrix_rank(design) < _FEWEST_DEGREES_OF_FREEDOM:
        return None
    residual_maker = np.eye(pairs) - design @ np.linalg.pinv(design)
    if time_correlation is None:
        return float(np.trace(residual_maker)), residual_maker
    return float(np.sum(residual_maker * _cosine_covariance(time_correlation, a, b))), residual_maker


def _cosine_covariance(t: Array, a: NDArray[np.intp], b: NDArray[np.intp]) -> Array:
    """Covariance of cosines (a, b) of Gaussian rows of correlation t, times P_eff (Pearson and Filon)."""
    r = t[a, b]
    aa, bb, ab, ba = t[np.ix_(a, a)], t[np.ix_(b, b)], t[np.ix_(a, b)], t[np.ix_(b, a)]
    common = 0.5 * r[:, None] * r[None, :] * (aa**2 + ab**2 + ba**2 + bb**2)
    first = r[:, None] * (aa * ab + ba * bb)
    second = r[None, :] * (aa * ba + ab * bb)
    return common + aa * bb + ab * ba - first - second
