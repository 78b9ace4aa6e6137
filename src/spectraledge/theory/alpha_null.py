"""What stability coefficients, and their order, are without any lasting direction: draws of surrogate histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.alpha import AlphaKind, alpha_kind, stability_coefficients
from spectraledge.theory.spectrum import UPDATE_EPS_FLOAT64
from spectraledge.theory.stability import Mode
from spectraledge.theory.surrogates import sample_gram

Array = NDArray[np.float64]

_CHUNK = 2_000_000  # matrix entries handled at once


@dataclass(frozen=True)
class AlphaNull:
    """Draws of mean stability coefficients under a null.

    Attributes:
        kind: Which coefficient.
        draws: (n_draws, W) mean over the windows of each surrogate history; NaN where a mode has none.
    """

    kind: AlphaKind
    draws: Array

    def quantiles(self, q: ArrayLike) -> Array:
        """(len(q), W) quantiles over the draws, mode by mode."""
        out = np.full((np.size(q), self.draws.shape[1]), np.nan)
        known = ~np.isnan(self.draws).any(axis=0)
        out[:, known] = np.quantile(self.draws[:, known], np.atleast_1d(q), axis=0)
        return out

    def p_values(self, observed: ArrayLike) -> Array:
        """P(null alpha_j >= observed), one-sided, mode by mode: (..., W); smallest 1 / (n_draws + 1).

        Coefficients that are clipped at 0 tie there, and an observed 0 then has p = 1: conservative.

        Args:
            observed: (..., W) means over as many windows as the null's.
        """
        observed = np.asarray(observed, dtype=np.float64)
        return _p_value(self.draws, observed)

    def ordering_share(self, n_modes: int = 3) -> float:
        """Share of draws in which alpha_1 > ... > alpha_n: how often the ordering is found where there is nothing."""
        return float(np.mean(ordering_margin(self.draws, n_modes) > 0.0))

    def ordering_p_value(self, observed: ArrayLike, n_modes: int = 3) -> Array:
        """P(null ordering margin >= observed), (...); see :func:`ordering_margin`."""
        return _p_value(ordering_margin(self.draws, n_modes), ordering_margin(observed, n_modes))


def ordering_margin(alpha: ArrayLike, n_modes: int = 3) -> Array:
    """min over j < n of alpha_j - alpha_{j+1}: positive exactly where the first n coefficients fall.

    Args:
        alpha: (..., W).
        n_modes: n, at least 2.

    Returns:
        (...). Source: derived.

    Raises:
        SettingError: If n_modes is not in 2..W.

    >>> float(ordering_margin([0.75, 0.5, 0.0]))
    0.25
    """
    alpha = np.asarray(alpha, dtype=np.float64)
    if not 2 <= n_modes <= alpha.shape[-1]:
        raise SettingError(
            f"n_modes must lie in 2..{alpha.shape[-1]}, the number of coefficients; got {n_modes}. Use 3."
        )
    return np.min(-np.diff(alpha[..., :n_modes], axis=-1), axis=-1)


def alpha_null(
    norms: ArrayLike,
    p_eff: float,
    window: int,
    kind: AlphaKind | None = None,
    *,
    mode: Mode = "strict",
    coherence: ArrayLike = 0.0,
    row_correlation: ArrayLike | None = None,
    n_draws: int = 199,
    rng: np.random.Generator,
) -> AlphaNull:
    """Draws of the mean over windows of alpha_j, in histories with the given norms and a featureless drift.

    Each draw is a whole history of N updates, and its windows overlap as those of the data do, so the spread of
    the mean is right. ``coherence=0`` has no lasting direction at all; with the drift of
    :func:`~spectraledge.theory.fit_null` (``norms``, ``p_eff``, ``coherence=model.kernel`` and
    ``row_correlation`` of the model) it is the harder null of one direction and no structure beside it.

    Args:
        norms: (N,) norms of consecutive updates [parameter]. N of exactly one block gives a single window.
        p_eff: Effective dimension of the noise.
        window: W.
        kind: As in :func:`~spectraledge.theory.alpha.stability_coefficients`.
        mode: As there.
        coherence: Mean squared cosine m^2 of a constant drift, or an (N, N) kernel of cosines.
        row_correlation: None, (>= N,) lags or (N, N) correlation of the noise in time.
        n_draws: Number of histories.
        rng: Source of randomness.

    Returns:
        The draws, their quantiles and p-values. Source: derived.

    Raises:
        SettingError: If the history is shorter than one block, or as in ``stability_coefficients`` and
            ``sample_gram``.

    >>> null = alpha_null(np.ones(11), 1e8, 10, "overlap2_lag1", n_draws=50, rng=np.random.default_rng(0))
    >>> bool(null.draws[:, 0].mean() > 0.5)  # stable at lag 1, in white noise
    True
    """
    name = alpha_kind(kind, mode)
    norms = np.asarray(norms, dtype=np.float64)
    size = block_size(name, window)
    if norms.ndim != 1 or len(norms) < size:
        raise SettingError(
            f"norms must hold at least the {size} updates of one block of {name}; got shape {norms.shape}. "
            "Pass the norms of consecutive updates of one run."
        )
    n_rows = len(norms)
    starts = np.arange(n_rows - size + 1)
    index = starts[:, None] + np.arange(size)
    at_once = int(max(1, min(_CHUNK // (len(starts) * size**2), _CHUNK // n_rows**2)))
    draws = np.empty((n_draws, window))
    for start in range(0, n_draws, at_once):
        n = min(at_once, n_draws - start)
        gram = sample_gram(norms, p_eff, coherence=coherence, row_correlation=row_correlation, n_draws=n, rng=rng)
        blocks = gram[:, index[:, :, None], index[:, None, :]]
        alpha = stability_coefficients(blocks, window, name, mode=mode, update_eps=UPDATE_EPS_FLOAT64)
        draws[start : start + n] = _known_mean(alpha)
    return AlphaNull(name, draws)


def block_size(kind: str, window: int) -> int:
    """Number of consecutive updates that one coefficient of this kind needs: W, W + 1 or 2 W."""
    return {"overlap2_lagW": 2 * window, "half_cos": window}.get(kind, window + 1)


def _known_mean(alpha: Array) -> Array:
    known = np.isfinite(alpha)
    with np.errstate(invalid="ignore"):
        return np.where(known, alpha, 0.0).sum(axis=1) / known.sum(axis=1)


def _p_value(draws: Array, observed: Array) -> Array:
    """(1 + number of draws >= observed) / (n + 1), draws on axis 0; NaN where either is NaN."""
    reached = draws >= np.expand_dims(observed, -draws.ndim)
    p = (1.0 + reached.sum(axis=-draws.ndim)) / (len(draws) + 1.0)
    return np.where(np.isnan(observed) | np.isnan(draws).any(axis=0), np.nan, p)
