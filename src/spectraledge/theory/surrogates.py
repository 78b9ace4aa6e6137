"""Surrogate Grams without the structure under test: Grams of random rows, so PSD by construction.

One sampler makes them all. Rows are ``n_a (s_a + sqrt(1 - K_aa) (F Z)_a)``, rescaled to norm n_a: Z
independent normal rows in an effective dimension, F F^T their correlation in time (momentum), s fixed
signal rows with Gram K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import toeplitz
from scipy.optimize import nnls

from spectraledge.errors import SettingError
from spectraledge.theory.spectrum import as_grams
from spectraledge.theory.unit_rows import UnitRowDraws, correlation_factor, row_correlation_matrix

Array = NDArray[np.float64]
NullKind = Literal["white", "norm_matched", "constant_drift", "smooth_drift"]

# Decay rates of the smooth drift's kernel: memories of 1 to 1e4 updates, and a few oscillating ones.
_MEMORIES = np.geomspace(1.0, 1e4, 33)
_DECAYS = np.concatenate([np.exp(-1.0 / _MEMORIES), -np.exp(-1.0 / _MEMORIES[:13:4])])


def sample_gram(
    norms: ArrayLike,
    p_eff: float,
    *,
    row_correlation: ArrayLike | None = None,
    coherence: ArrayLike = 0.0,
    n_draws: int = 1,
    rng: np.random.Generator,
) -> Array:
    """Draw Grams of noise rows around fixed signal rows.

    Args:
        norms: (..., N) norm of every row [parameter]; leading axes share the random directions.
        p_eff: Effective dimension of the noise (real; below N whole dimensions are used).
        row_correlation: None, (>= N,) lag correlations or (N, N) correlation of the noise rows in time.
        coherence: Signal: the mean cosine m^2 between any two rows of a constant drift, or an (N, N) kernel
            of cosines with diagonal at most 1.
        n_draws: Number of draws.
        rng: Source of randomness.

    Returns:
        (..., n_draws, N, N) [parameter^2], with diagonal norms^2. Source: derived.

    Raises:
        SettingError: If p_eff is not positive, or a kernel or correlation cannot be.
    """
    norms = np.asarray(norms, dtype=np.float64)
    n_rows = norms.shape[-1]
    if not p_eff > 0.0:
        raise SettingError(f"p_eff must be positive; got {p_eff}. Estimate it with effective_dimension.")
    kernel = np.asarray(coherence, dtype=np.float64)
    if kernel.ndim == 0:
        kernel = np.full((n_rows, n_rows), float(kernel))
    if kernel.shape != (n_rows, n_rows):
        raise SettingError(f"coherence must be a number or {n_rows} x {n_rows}; got shape {kernel.shape}.")
    if np.any(np.diag(kernel) > 1.0 + 1e-12) or np.any(np.diag(kernel) < 0.0):
        raise SettingError("coherence must lie in [0, 1], a share of each row's energy; pass a squared cosine.")
    noise_share = np.sqrt(np.maximum(1.0 - np.diag(kernel), 0.0))
    signal = correlation_factor(kernel)
    signal = signal[:, np.linalg.norm(signal, axis=0) > 1e-8]
    time_factor = correlation_factor(row_correlation_matrix(row_correlation, n_rows))

    # The noise's components along the signal's axes are drawn explicitly, the rest only through its Wishart
    # factor.
    q = min(float(p_eff), 1e15)
    shared = min(signal.shape[1], int(q))
    rest = q - shared
    along = rng.standard_normal((n_draws, n_rows, shared)) / np.sqrt(q)
    across = UnitRowDraws(n_rows, n_draws, rng).factor(max(rest, 0.5)) * np.sqrt(max(rest, 0.0) / q)
    along, across = time_factor @ along, time_factor @ across
    rows = np.concatenate([noise_share[:, None] * along, noise_share[:, None] * across], axis=-1)
    if signal.shape[1] > shared:
        padding = np.zeros((n_draws, n_rows, signal.shape[1] - shared))
        rows = np.concatenate([rows[..., :shared], padding, rows[..., shared:]], axis=-1)
    rows[..., : signal.shape[1]] += signal
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    cosines = rows @ np.swapaxes(rows, -1, -2)
    return cosines * norms[..., None, :, None] * norms[..., None, None, :]


@dataclass(frozen=True)
class NullModel:
    """A null fitted to an observed block of inner products.

    Attributes:
        kind: ``white``, ``norm_matched``, ``constant_drift`` or ``smooth_drift``.
        norms: (N,) row norms [parameter].
        p_eff: Effective dimension of the noise.
        kernel: (N, N) cosines of the drift; zeros where the kind has none.
        row_correlation: (N, N) correlation of the noise in time.
        weights: Weights w_i of the smooth drift's exponentials, empty for other kinds.
        decays: Their phi_i.
    """

    kind: NullKind
    norms: Array
    p_eff: float
    kernel: Array
    row_correlation: Array
    weights: Array
    decays: Array

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw ``n`` surrogate Grams, (n, N, N) [parameter^2]."""
        return sample_gram(
            self.norms,
            self.p_eff,
            row_correlation=self.row_correlation,
            coherence=self.kernel,
            n_draws=n,
            rng=rng,
        )


def fit_null(
    kind: NullKind, gram: ArrayLike, p_eff: float | None, row_correlation: ArrayLike | None = None
) -> NullModel:
    """Fit a null to an observed Gram.

    ``white``: independent rows of equal norm. ``norm_matched``: the observed norms. ``constant_drift``:
    plus one common direction that holds the mean cosine. ``smooth_drift``: plus a direction that turns with
    a sum of exponentials, fitted by non-negative least squares to the mean cosine at each lag. Momentum
    (``row_correlation``) belongs to the noise of all four, and its part of the cosines is taken off before
    the drift is fitted.

    Args:
        kind: One of the four.
        gram: (N, N) inner products [parameter^2]; NaN where a pair was not recorded.
        p_eff: Effective dimension of the noise.
        row_correlation: None, (>= N,) or (N, N).

    Returns:
        The model; its :meth:`NullModel.sample` draws from it. Source: derived.

    Raises:
        SettingError: For an unknown kind, a missing p_eff, or a Gram without finite positive diagonal.
    """
    if kind not in get_args(NullKind):
        raise SettingError(f"kind must be one of {', '.join(get_args(NullKind))}; got {kind!r}.")
    if p_eff is None or not p_eff > 0.0:
        raise SettingError(
            f"A null needs the effective dimension of the noise; got {p_eff}. "
            "Estimate it with effective_dimension, over more updates where that gives NaN."
        )
    gram = as_grams(gram)
    energy = np.diagonal(gram, axis1=-2, axis2=-1)
    if gram.ndim != 2 or not (np.isfinite(energy).all() and np.all(energy > 0.0)):
        raise SettingError(
            f"A null is fitted to one Gram with a finite, positive diagonal; got shape {gram.shape}. "
            "Leave out updates that are zero or were not recorded."
        )
    n_rows = len(energy)
    norms = np.sqrt(energy)
    correlation = row_correlation_matrix(row_correlation, n_rows)
    cosines = gram / np.outer(norms, norms)
    weights = decays = np.zeros(0)
    kernel = np.zeros((n_rows, n_rows))
    if kind == "white":
        norms = np.full(n_rows, np.sqrt(energy.mean()))
    elif kind == "constant_drift":
        kernel[:] = _mean_coherence(cosines, correlation)
    elif kind == "smooth_drift":
        weights, decays = _fit_exponentials(cosines, correlation)
        kernel = toeplitz((weights * decays ** np.arange(n_rows)[:, None]).sum(axis=-1))
    return NullModel(kind, norms, float(p_eff), kernel, correlation, weights, decays)


def _mean_coherence(cosines: Array, correlation: Array) -> float:
    """m^2 from cos_ab = m^2 + (1 - m^2) T_ab, averaged over the recorded pairs."""
    pairs = np.isfinite(cosines) & ~np.eye(len(cosines), dtype=bool)
    if not pairs.any():
        return 0.0
    noise = correlation[pairs].mean()
    return float(np.clip((cosines[pairs].mean() - noise) / max(1.0 - noise, 1e-12), 0.0, 1.0))


def _fit_exponentials(cosines: Array, correlation: Array) -> tuple[Array, Array]:
    """Weights w_i >= 0, sum <= 1, of cos(lag) = sum w_i phi_i^lag + (1 - sum w_i) rho(lag)."""
    n_rows = len(cosines)
    lags, target, rho, counts = [], [], [], []
    for lag in range(1, n_rows):
        values = np.diagonal(cosines, lag)
        known = np.isfinite(values)
        if known.any():
            lags.append(lag)
            target.append(values[known].mean())
            rho.append(np.diagonal(correlation, lag)[known].mean())
            counts.append(known.sum())
    if not lags:
        return np.zeros(0), np.zeros(0)
    root = np.sqrt(np.asarray(counts, dtype=np.float64))
    noise = np.asarray(rho)
    design = (_DECAYS ** np.asarray(lags)[:, None] - noise[:, None]) * root[:, None]
    goal = (np.asarray(target) - noise) * root
    # A slack weight with a heavy row turns "sum <= 1" into "sum + slack = 1".
    heavy = 1e4 * root.sum()
    design = np.vstack([np.c_[design, np.zeros(len(lags))], np.full(len(_DECAYS) + 1, heavy)])
    solution, _ = nnls(design, np.r_[goal, heavy])
    weights = solution[:-1]
    used = weights > 1e-12
    weights = weights[used] / max(1.0, weights.sum())
    return weights, _DECAYS[used]
