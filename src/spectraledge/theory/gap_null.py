"""How large a gap do independent (or momentum-correlated) updates of the same norms show by chance?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.gap_rules import Rule, gap_scores, largest_score
from spectraledge.theory.unit_rows import UnitRowDraws, correlation_factor, row_correlation_matrix

Array = NDArray[np.float64]

# Effective dimensions within 5 % share their draws: this moves the null's fluctuations by at most 1.3 %,
# while P_eff itself is known to some 10 %.
_LOG_BUCKET = 0.05
_CHUNK = 2_000_000  # matrix entries diagonalised at once: 16 MB, and a few copies


def gap_p_value(
    gram: ArrayLike,
    singular_values: ArrayLike,
    *,
    p_eff: ArrayLike,
    row_correlation: ArrayLike | None = None,
    rule: Rule = "guarded",
    floor: ArrayLike = 0.0,
    n_draws: int = 199,
    rng: np.random.Generator,
) -> Array:
    """P(largest score under the null >= the observed one): a null of the same update norms and no signal.

    Null B: rows with the observed norms in independent random directions of an effective dimension ``p_eff``,
    correlated in time by ``row_correlation`` (momentum). The statistic is the largest score of the rule: the
    largest ratio sigma_j/sigma_{j+1} (j <= W // 2 for ``guarded``, any j for ``plain``), the largest
    (sigma_j / sum sigma) sigma_j/sigma_{j+1} for ``weighted``, the largest (sigma_j - sigma_{j+1}) /
    sqrt(tr G) for ``difference``. Draws are shared between windows.

    Args:
        gram: (..., W, W) observed Grams; only the diagonal (update norms) is used.
        singular_values: (..., W) observed, descending [parameter].
        p_eff: (...) or scalar effective dimension, see ``effective_dimension``.
        row_correlation: None (independent rows), (>= W,) lag correlations or (W, W) correlation of rows.
        rule: Rule of the statistic.
        floor: (...) or scalar resolution floor [parameter] of the observed values.
        n_draws: Surrogates; the smallest p-value is 1 / (n_draws + 1).
        rng: Source of randomness.

    Returns:
        (...) p-values (1 + #) / (n_draws + 1); NaN where p_eff is NaN or not positive, nothing is resolved,
        or an update is zero. Source: derived.
    """
    gram = np.asarray(gram, dtype=np.float64)
    sigma = np.asarray(singular_values, dtype=np.float64)
    lead, window = sigma.shape[:-1], sigma.shape[-1]
    if gram.shape != (*lead, window, window):
        raise SettingError(
            f"gram must have shape {(*lead, window, window)} to match the singular values; got {gram.shape}. "
            "Pass the Grams that the spectrum was computed from."
        )
    observed = largest_score(gap_scores(sigma, rule, floor)).reshape(-1)
    energies = np.diagonal(gram, axis1=-2, axis2=-1).reshape(-1, window)
    norms, scale = _relative_norms(energies)
    if rule == "difference":
        observed = observed / scale
    q = np.broadcast_to(np.asarray(p_eff, dtype=np.float64), lead).reshape(-1)
    usable = np.isfinite(observed) & np.isfinite(norms).all(axis=-1) & (norms > 0.0).all(axis=-1) & (q > 0.0)
    draws = UnitRowDraws(window, n_draws, rng)
    factor = _row_factor(row_correlation, window)
    p = np.full(observed.shape, np.nan)
    keys = _bucket(q, window)
    for key in np.unique(keys[usable]):
        members = np.flatnonzero(usable & (keys == key))
        correlations = draws.correlations(key, factor)
        count = _exceedances(correlations, norms[members], observed[members], rule)
        p[members] = (1.0 + count) / (n_draws + 1.0)
    return p.reshape(lead)


def gap_null_statistics(
    norms: ArrayLike,
    p_eff: float,
    *,
    row_correlation: ArrayLike | None = None,
    rule: Rule = "guarded",
    n_draws: int = 199,
    rng: np.random.Generator,
) -> Array:
    """Draws of the largest score under null B, for quantiles and standard deviations.

    Args:
        norms: (..., W) update norms [parameter].
        p_eff: Effective dimension.
        row_correlation: As in :func:`gap_p_value`.
        rule: Rule of the score; for ``difference`` the score is in units of sqrt(tr G).
        n_draws: Number of surrogates.
        rng: Source of randomness.

    Returns:
        (..., n_draws).

    >>> s = gap_null_statistics(np.ones(10), 1e8, n_draws=50, rng=np.random.default_rng(0))
    >>> bool(s.max() < 1.001)
    True
    """
    norms = np.asarray(norms, dtype=np.float64)
    if not p_eff > 0.0:
        raise SettingError(f"p_eff must be positive; got {p_eff}. Estimate it with effective_dimension.")
    lead, window = norms.shape[:-1], norms.shape[-1]
    flat, _ = _relative_norms(np.square(norms).reshape(-1, window))
    draws = UnitRowDraws(window, n_draws, rng)
    correlations = draws.correlations(p_eff, _row_factor(row_correlation, window))
    pairs = np.indices((len(flat), n_draws)).reshape(2, -1)
    return _null_scores(correlations, flat, pairs[0], pairs[1], rule).reshape(*lead, n_draws)


def _relative_norms(energies: Array) -> tuple[Array, Array]:
    """Norms divided by sqrt(tr G), and sqrt(tr G)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(energies.sum(axis=-1))
        return np.sqrt(energies) / scale[:, None], scale


def _row_factor(row_correlation: ArrayLike | None, window: int) -> Array | None:
    if row_correlation is None:
        return None
    return correlation_factor(row_correlation_matrix(row_correlation, window))


def _bucket(p_eff: Array, window: int) -> Array:
    """Effective dimension, rounded to the bucket whose draws it uses."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rounded = np.exp(np.round(np.log(np.minimum(p_eff, 1e15)) / _LOG_BUCKET) * _LOG_BUCKET)
    # Below W the draws use a whole number of dimensions, above it any real one.
    return np.where(p_eff <= window - 1, np.maximum(1.0, np.round(p_eff)), np.maximum(rounded, window - 1 + 1e-3))


def _exceedances(correlations: Array, norms: Array, observed: Array, rule: Rule) -> Array:
    """Number of draws whose largest score reaches ``observed``, for each row of ``norms``.

    Ostrowski: sigma_j of rows with norms n lies within n_(j) [s_min, s_max] of the unit rows' extreme singular
    values. So the score of the sorted norms, times or over a power of s_max/s_min, bounds the score of a
    draw, and most draws need no diagonalisation.
    """
    low, high = _score_bounds(correlations, norms, rule)
    count = np.sum(low >= observed[:, None], axis=-1)
    window_index, draw_index = np.nonzero((low < observed[:, None]) & (high >= observed[:, None]))
    scores = _null_scores(correlations, norms, window_index, draw_index, rule)
    reached = window_index[scores >= observed[window_index]]
    return count + np.bincount(reached, minlength=len(norms))


def _score_bounds(correlations: Array, norms: Array, rule: Rule) -> tuple[Array, Array]:
    if rule == "difference":
        shape = (len(norms), len(correlations))
        return np.full(shape, -np.inf), np.full(shape, np.inf)
    extreme = np.linalg.eigvalsh(correlations)
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.sqrt(extreme[:, -1] / np.maximum(extreme[:, 0], 0.0))
    if rule == "weighted":
        condition = condition**2
    base = largest_score(gap_scores(np.sort(norms, axis=-1)[:, ::-1], rule))[:, None]
    # A hair of slack, so that rounding never decides a comparison that the bound should leave open.
    return base / condition * (1.0 - 1e-9), base * condition * (1.0 + 1e-9)


def _null_scores(
    correlations: Array,
    norms: Array,
    window_index: NDArray[np.intp],
    draw_index: NDArray[np.intp],
    rule: Rule,
) -> Array:
    out = np.empty(len(window_index))
    at_once = max(1, _CHUNK // norms.shape[-1] ** 2)
    for start in range(0, len(window_index), at_once):
        part = slice(start, start + at_once)
        n = norms[window_index[part]]
        lam = np.linalg.eigvalsh(correlations[draw_index[part]] * n[:, :, None] * n[:, None, :])
        sigma = np.sqrt(np.maximum(lam[:, ::-1], 0.0))
        score = gap_scores(sigma, rule, 1e-12)
        # Rows in fewer dimensions than positions have an infinite ratio: count it, which is conservative.
        missing = np.isnan(score[:, : sigma.shape[-1] // 2 if rule == "guarded" else None]).any(axis=-1)
        out[part] = np.where(missing & (rule != "difference"), np.inf, largest_score(score))
    return out
