"""Which modes of a window rise above noise of a known energy and dimension, and how strong they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.spectrum import as_grams
from spectraledge.theory.unit_rows import UnitRowDraws, correlation_factor, row_correlation_matrix

Array = NDArray[np.float64]

# 95 % points of the largest noise eigenvalue as c in e (1 + c sqrt(W / P_eff)), simulated in the limit of
# large P_eff: the asymptotic Tracy-Widom law gives false alarms of 10-13 % at such W.
_WINDOWS = np.array([2.0, 3.0, 5.0, 10.0, 20.0, 40.0])
_FULL = np.array([2.30, 2.28, 2.21, 2.15, 2.11, 2.07])
_HOLLOW = np.array([1.39, 1.63, 1.81, 1.94, 1.99, 2.02])
# At finite P_eff the edge moves up by a further term in 1 / P_eff. Simulated at P_eff = 50..3000: 1.1 to
# 1.25 times W / P_eff for the full form, (W - 2) / P_eff for the hollow one. Without it W = 10, P_eff = 300
# gives false alarms of 14 % and 11 %.
_FULL_SECOND = 1.2
_EQUAL_ROWS = 0.05  # largest relative sd of row noise norms at which the table holds: a range of 15 % at W = 10
_REFILLS = 50


def _excess(window: int, p_eff: Array, hollow: bool) -> Array:
    """95 % point of the largest eigenvalue of (G - diag) / e for equal rows."""
    # Edge fluctuations of a W x W Gaussian matrix shrink as W^(-2/3), so c is smooth in W^(-1/3).
    c = np.interp(-(window ** (-1 / 3)), -(_WINDOWS ** (-1 / 3)), _HOLLOW if hollow else _FULL)
    second = max(window - 2.0, 0.0) if hollow else _FULL_SECOND * window
    return c * np.sqrt(window / p_eff) + second / p_eff


def noise_edge(noise_energy: ArrayLike, p_eff: ArrayLike, window: int) -> Array:
    """95 % point of the largest eigenvalue of pure noise with equal row energies [parameter^2].

    ``e (1 + c_W sqrt(W / P_eff) + 1.2 W / P_eff)`` with c_W = 2.28, 2.21, 2.15, 2.11 at W = 3, 5, 10, 20
    (simulated). For rows that are uncorrelated in time. Source: derived.

    Args:
        noise_energy: (...) e, energy of one row [parameter^2].
        p_eff: (...) effective dimension.
        window: W.
    """
    e, q = np.asarray(noise_energy, dtype=np.float64), np.asarray(p_eff, dtype=np.float64)
    return e * (1.0 + _excess(window, q, hollow=False))


def critical_strength(noise_energy: ArrayLike, p_eff: ArrayLike, window: int) -> Array:
    """d_crit = sqrt(e) (W / P_eff)^(1/4): weakest signal that separates from the noise bulk [parameter].

    A threshold on the latent strength d, not on an observed sigma. Source: standard result (spiked model),
    at the effective dimension.
    """
    e, q = np.asarray(noise_energy, dtype=np.float64), np.asarray(p_eff, dtype=np.float64)
    return np.sqrt(e) * (window / q) ** 0.25


def debiased_strength(singular_values: ArrayLike, noise_energy: ArrayLike, p_eff: ArrayLike) -> Array:
    """Signal strengths d_j of the spiked model from observed sigma_j; 0 below the noise edge [parameter].

    Inverts sigma^2 = (d^2 + nu^2 W)(d^2 + nu^2 P)/d^2, P = P_eff and nu^2 = e / P_eff. Valid only where all
    rows carry the same noise energy. Source: standard result.

    Args:
        singular_values: (..., W) [parameter].
        noise_energy: (...) e [parameter^2].
        p_eff: (...).

    Returns:
        (..., W), NaN where e or P_eff is NaN.
    """
    lam = np.square(np.asarray(singular_values, dtype=np.float64))
    window = lam.shape[-1]
    e = np.asarray(noise_energy, dtype=np.float64)[..., None]
    aspect = window / np.asarray(p_eff, dtype=np.float64)[..., None]
    excess = lam - e * (1.0 + aspect)
    with np.errstate(invalid="ignore"):
        inside = np.sqrt(np.maximum(excess**2 - 4.0 * e**2 * aspect, 0.0))
        d2 = np.where(lam > e * (1.0 + np.sqrt(aspect)) ** 2, 0.5 * (excess + inside), 0.0)
    return np.sqrt(np.where(np.isnan(lam + e + aspect), np.nan, d2))


def signal_fraction(strengths: ArrayLike, singular_values: ArrayLike) -> Array:
    """f_j = d_j^2 / sigma_j^2; (..., W). |cos| of v_j between disjoint windows estimates it too, cos^2 its square."""
    d2 = np.square(np.asarray(strengths, dtype=np.float64))
    lam = np.square(np.asarray(singular_values, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lam > 0.0, d2 / lam, np.nan)


def detection_threshold(
    row_noise: ArrayLike,
    p_eff: ArrayLike,
    *,
    hollow: bool,
    row_correlation: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
    n_draws: int = 999,
) -> Array:
    """95 % point of the largest eigenvalue of noise after its diagonal was subtracted [parameter^2].

    Tabulated where rows are uncorrelated in time and their norms agree to 5 % (relative sd), or differ no
    more than noise of this dimension makes them; otherwise simulated.

    Args:
        row_noise: (..., W) noise energy of each row [parameter^2].
        p_eff: (...).
        hollow: True where the diagonal was removed altogether, False where an estimate was subtracted.
        row_correlation: None, (>= W,) or (W, W) correlation of the noise in time (momentum).
        rng: For the simulation. Without it, rows of unequal norm get an upper bound instead, which costs
            power and not validity.
        n_draws: Draws of the simulation.

    Returns:
        (...). Source: derived.

    Raises:
        SettingError: If ``row_correlation`` is given without ``rng``.
    """
    e = np.asarray(row_noise, dtype=np.float64)
    window = e.shape[-1]
    q = np.broadcast_to(np.asarray(p_eff, dtype=np.float64), e.shape[:-1])
    threshold = np.array(e.mean(axis=-1) * _excess(window, q, hollow))
    norms = np.sqrt(np.maximum(e, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        own_scatter = 1.5 / np.sqrt(2.0 * q)
        unequal = norms.std(axis=-1) > np.maximum(_EQUAL_ROWS, own_scatter) * norms.mean(axis=-1)
    if row_correlation is None and rng is None:
        # A matrix of entry variances e_a e_b / P_eff has norm at most about 2 sqrt(max e * sum e / P_eff).
        # One row that holds all the energy has its diagonal as only entry: 95 % point 1.645 sqrt(2) = 2.33.
        wide = 1.0 if hollow else 2.33 / 2.07
        bound = wide * np.sqrt(e.max(axis=-1) * e.mean(axis=-1)) * _excess(window, q, hollow)
        return np.where(unequal, bound, threshold)
    if rng is None:
        raise SettingError(
            "rng must be given with row_correlation; got None. "
            "Pass rng=np.random.default_rng(seed): the threshold of correlated rows is simulated."
        )
    draws = UnitRowDraws(window, n_draws, rng)
    if row_correlation is None:
        simulated, factor = unequal, np.eye(window)
    else:
        simulated = np.ones_like(unequal)
        factor = correlation_factor(row_correlation_matrix(row_correlation, window))
    simulated &= q > 0.0
    # Windows that agree to three digits share a simulation, whose own error is 1-2 %.
    scale = norms[simulated].mean(axis=-1)
    shape = np.round(norms[simulated] / scale[:, None], 3)
    rounded = np.exp(np.round(np.log(q[simulated]), 2))
    cases, which = np.unique(np.c_[shape, rounded], axis=0, return_inverse=True)
    quantiles = np.empty(len(cases))
    diagonal = np.arange(window)
    for index, case in enumerate(cases):
        rows = case[:-1, None] * (factor @ draws.factor(case[-1]))
        noise = rows @ np.swapaxes(rows, -1, -2)
        noise[:, diagonal, diagonal] = 0.0 if hollow else noise[:, diagonal, diagonal] - case[:-1] ** 2
        quantiles[index] = np.quantile(np.linalg.eigvalsh(noise)[:, -1], 0.95)
    threshold[simulated] = quantiles[which.reshape(-1)] * scale**2
    return threshold


def detected_strengths(
    gram: ArrayLike,
    noise_energy: ArrayLike | None,
    p_eff: ArrayLike,
    *,
    row_correlation: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> Array:
    """Strengths d_j of the modes that exceed noise at the 5 % level, 0 for all others [parameter].

    With row noise energies from replicates, H = G - diag(e_a). Without, the diagonal of G is dropped and
    refilled iteratively by the rank-K part of what remains, K growing while its next eigenvalue exceeds the
    threshold of the hollow form. Unequal row energies therefore do not pass for signal.

    Args:
        gram: (..., W, W) [parameter^2].
        noise_energy: (..., W) energy of each row's noise from replicates, or None for the hollow form.
        p_eff: (...) effective dimension.
        row_correlation: See :func:`detection_threshold`.
        rng: See :func:`detection_threshold`.

    Returns:
        (..., W) descending; NaN where P_eff or the Gram is not finite. At most W // 2 modes can be found in
        the hollow form (more are not identifiable without the diagonal). Source: derived.
    """
    gram = as_grams(gram)
    lead, window = gram.shape[:-2], gram.shape[-1]
    q = np.broadcast_to(np.asarray(p_eff, dtype=np.float64), lead)
    usable = np.isfinite(gram).all(axis=(-2, -1)) & (q > 0.0)
    safe = np.where(usable[..., None, None], gram, np.eye(window))
    q = np.where(usable, q, 1.0)
    if noise_energy is not None:
        given = np.broadcast_to(np.asarray(noise_energy, dtype=np.float64), (*lead, window))
        e = np.where(usable[..., None], given, 1.0)
        h = safe - e[..., :, None] * np.eye(window)
        threshold = detection_threshold(e, q, hollow=False, row_correlation=row_correlation, rng=rng)
        lam = np.linalg.eigvalsh(h)[..., ::-1]
        d2 = np.where(lam > threshold[..., None], lam, 0.0)
    else:
        d2 = _hollow_strengths(safe, q, row_correlation, rng)
    return np.where(usable[..., None], np.sqrt(d2), np.nan)


def _hollow_strengths(
    gram: Array, q: Array, row_correlation: ArrayLike | None, rng: np.random.Generator | None
) -> Array:
    window = gram.shape[-1]
    flat = gram.reshape(-1, window, window)
    energy = np.diagonal(flat, axis1=-2, axis2=-1)
    hollow = flat * (1.0 - np.eye(window))
    dimension = q.reshape(-1)
    found = np.zeros(energy.shape)
    active = np.arange(len(flat))  # windows that may hold more modes than those counted so far
    for k in range(window // 2 + 1):
        filled, fill = _refill(hollow[active], energy[active], k)
        threshold = detection_threshold(
            energy[active] - fill, dimension[active], hollow=True, row_correlation=row_correlation, rng=rng
        )
        lam = np.linalg.eigvalsh(filled)[:, ::-1]
        counted = (np.arange(window) < k) & (lam > threshold[:, None])
        found[active] = np.where(counted, lam, 0.0)
        # Eigenvalue k + 1 decides whether there is a further mode.
        active = active[lam[:, k] > threshold]
        if len(active) == 0:
            break
    return found.reshape(gram.shape[:-1])


def _refill(hollow: Array, energy: Array, k: int) -> tuple[Array, Array]:
    """Hollow Gram with the diagonal of its own rank-k part, and that diagonal."""
    window = hollow.shape[-1]
    fill = np.zeros(hollow.shape[:-1])
    for _ in range(_REFILLS if k else 0):
        lam, u = np.linalg.eigh(hollow + fill[..., :, None] * np.eye(window))
        top = np.maximum(lam[..., window - k :], 0.0)
        new = np.minimum(np.einsum("...ak,...k->...a", u[..., window - k :] ** 2, top), energy)
        moved = np.abs(new - fill).max(initial=0.0)
        fill = new
        if moved <= 1e-9 * energy.max(initial=0.0):
            break
    return hollow + fill[..., :, None] * np.eye(window), fill
