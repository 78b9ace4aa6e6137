"""What a tangent kernel that does not change predicts: the updates of a window, k* and the loss curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.gap import Rule, gap_position
from spectraledge.theory.hankel import hankel_gram, lazy_profiles, one_minus_power
from spectraledge.theory.spectrum import UPDATE_EPS_FLOAT64, as_grams, gram_spectrum
from spectraledge.theory.stability import check_mode

Array = NDArray[np.float64]

# A mode that holds less than this share of the residual has converged: it moves nothing.
_CONVERGED = 1e-12


@dataclass(frozen=True)
class PredictedGram:
    """The update Gram of a window that a frozen kernel predicts.

    Attributes:
        gram: (..., W, W) [parameter^2], oldest update first.
        position: (...) k* of its singular values by the rule asked for; 0 where nothing is resolved.
        n_active: (...) modes with lr kappa_j s W >= 1 and a residual left: those whose profiles bend inside the
            window. Slower ones share one profile, up to its curvature.
        weights: (..., m) w_j [parameter^2].
        rates: (..., m) rho_j.
    """

    gram: Array
    position: NDArray[np.int64]
    n_active: NDArray[np.int64]
    weights: Array
    rates: Array


def predicted_gram(
    eigenvalues: ArrayLike,
    eigenvectors: ArrayLike,
    residual: ArrayLike,
    lr: float,
    stride: int,
    window: int,
    *,
    metric: ArrayLike | None = None,
    noise_energy: ArrayLike = 0.0,
    rule: Rule = "guarded",
) -> PredictedGram:
    """Update Gram of gradient descent while the kernel stays as it is: G_ab = sum_j w_j rho_j^(a+b).

    ``rho_j = (1 - lr kappa_j)^s``, ``w_j = kappa_j c_j^2 [(1 - rho_j) / kappa_j]^2``, ``c_j = q_j^T z``. Exact for
    a model linear in its parameters under squared error, whose training set is the probe; otherwise the lazy limit,
    with B frozen at the window's start.

    Without noise such a sum of decaying profiles has ratios of 5 to 150 at every j, so where the largest one lies is
    decided by the noise floor: give ``noise_energy`` before comparing k*.

    Args:
        eigenvalues: (..., m) kappa_j of the loss-weighted kernel K_l.
        eigenvectors: (..., N, m) q_j.
        residual: (..., N) z = B^(-1/2) dL/df at the window's start; (f - y) / sqrt(n) for squared error.
        lr: Learning rate; lr / (1 - beta) for torch's SGD with momentum beta.
        stride: Optimizer steps s per update.
        window: W updates.
        metric: Under a preconditioner P the formula is the Gram of inner products in the metric P. For plain inner
            products give B^(1/2) J P^-2 J^T B^(1/2), (..., N, N).
        noise_energy: (...) e added to the diagonal, the noise energy of one update [parameter^2].
        rule: Rule of k*, see ``gap_position``.

    Returns:
        The prediction; NaN, position 0, where an input is NaN. Source: arXiv:2603.28964v1-v3 (k* as the number of
        outlying kernel eigenvalues, stated), derived (this Gram).

    Raises:
        SettingError: If window < 2, lr is not positive or stride < 1.

    >>> found = predicted_gram([4.0], [[1.0]], [1.0], lr=0.125, stride=1, window=2)  # rho = 1/2
    >>> found.gram * 16
    array([[1.  , 0.5 ],
           [0.5 , 0.25]])
    """
    if window < 2 or stride < 1 or not lr > 0.0:
        raise SettingError(
            f"window must be at least 2, stride at least 1 and lr positive; got {window}, {stride} and {lr}. "
            "Pass those of the run, for instance window=10."
        )
    kappa = np.maximum(np.asarray(eigenvalues, dtype=np.float64), 0.0)  # rounding leaves zeros slightly negative
    q, z = np.asarray(eigenvectors, dtype=np.float64), np.asarray(residual, dtype=np.float64)
    c = (np.swapaxes(q, -1, -2) @ z[..., None])[..., 0]
    weights, rates = lazy_profiles(kappa, c, lr, stride)
    if metric is None:
        gram = hankel_gram(weights, rates, window)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            summed = np.where(kappa == 0.0, lr * stride, one_minus_power(lr * kappa, stride) / kappa)
        rows = (c * summed)[..., None, :] * rates[..., None, :] ** np.arange(window)[:, None]
        inner = np.swapaxes(q, -1, -2) @ np.asarray(metric, dtype=np.float64) @ q
        gram = rows @ inner @ np.swapaxes(rows, -1, -2)
    gram = gram + np.asarray(noise_energy, dtype=np.float64)[..., None, None] * np.eye(window)
    spectrum = gram_spectrum(gram, update_eps=UPDATE_EPS_FLOAT64)
    left = np.square(c) > _CONVERGED * np.square(z).sum(axis=-1, keepdims=True)
    # In this order, as in theory.horizon, a mode exactly at the threshold counts.
    active = (lr * (stride * window) * kappa >= 1.0) & left
    position = gap_position(spectrum.singular_values, rule=rule, floor=spectrum.floor)
    return PredictedGram(gram, position, active.sum(axis=-1), weights, rates)


@dataclass(frozen=True)
class GramComparison:
    """How a predicted update Gram compares with the measured one.

    Attributes:
        relative_error: (...) ||predicted - measured||_F / ||measured||_F.
        shape_error: (...) the same after the prediction was scaled to fit best; 1 where they have nothing in common.
        scale: (...) that factor.
        log_ratios: (..., W) log(predicted sigma_j / measured sigma_j); NaN where either is unresolved.
        predicted_position: (...) k* of the prediction.
        measured_position: (...) k* of the measurement.
    """

    relative_error: Array
    shape_error: Array
    scale: Array
    log_ratios: Array
    predicted_position: NDArray[np.int64]
    measured_position: NDArray[np.int64]


def compare_grams(predicted: ArrayLike, measured: ArrayLike, *, rule: Rule = "guarded") -> GramComparison:
    """Compare update Grams of one window: entries, spectrum and k*.

    Args:
        predicted: (..., W, W) [parameter^2].
        measured: (..., W, W) [parameter^2].
        rule: Rule of k*.

    Returns:
        The comparison; NaN for a pair with a non-finite entry. Source: derived.

    Raises:
        SettingError: If the shapes do not match.
    """
    p, m = as_grams(predicted), as_grams(measured)
    if p.shape[-1] != m.shape[-1]:
        raise SettingError(
            f"Both Grams must have the same window; got {p.shape[-1]} and {m.shape[-1]}. Predict with the recorded W."
        )
    norm_p, norm_m = (np.linalg.norm(g, axis=(-2, -1)) for g in (p, m))
    inner = (p * m).sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.clip(inner / (norm_p * norm_m), -1.0, 1.0)
        scale = inner / norm_p**2
        best = np.linalg.norm(scale[..., None, None] * p - m, axis=(-2, -1)) / norm_m
        relative = np.linalg.norm(p - m, axis=(-2, -1)) / norm_m
    spectra = [gram_spectrum(g, update_eps=UPDATE_EPS_FLOAT64) for g in (p, m)]
    sigma = [np.where(s.resolved, s.singular_values, np.nan) for s in spectra]
    position = [gap_position(s.singular_values, rule=rule, floor=s.floor) for s in spectra]
    return GramComparison(
        relative_error=relative,
        shape_error=np.where(np.isnan(cosine), np.nan, best),
        scale=scale,
        log_ratios=np.log(sigma[0]) - np.log(sigma[1]),
        predicted_position=position[0],
        measured_position=position[1],
    )


def loss_curve(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    lr: float,
    steps: ArrayLike,
    *,
    rest: ArrayLike = 0.0,
    mode: str = "strict",
) -> Array:
    """Loss that a frozen kernel predicts after each number of steps.

    ``strict``: ``sum_j c_j^2 (1 - lr kappa_j)^(2 t) / 2 + rest``, exact for gradient descent on squared error, whose
    loss is half the squared residual. ``author``: ``sum_j c_j^2 exp(-2 lr kappa_j t) + rest`` as printed, the
    gradient flow of a loss without the half; it decays at any lr, also beyond 2 / kappa_1.

    Args:
        eigenvalues: (..., m) kappa_j of the loss-weighted kernel [1 / (lr step)].
        coefficients: (..., m) c_j of the residual z at step 0 [sqrt(loss)].
        lr: Learning rate.
        steps: (T,) optimizer steps t.
        rest: (...) part that no mode given here reduces, for instance |z|^2 / 2 outside the m leading modes.
        mode: ``strict`` or ``author``.

    Returns:
        (..., T) [loss]. Source: arXiv:2603.28964v1-v3 (author), derived (strict).

    Raises:
        SettingError: For another mode.

    >>> loss_curve([1.0], [2.0], 0.5, [0, 1])
    array([2. , 0.5])
    """
    check_mode(mode)
    kappa = np.asarray(eigenvalues, dtype=np.float64)[..., None, :]
    c2 = np.square(np.asarray(coefficients, dtype=np.float64))[..., None, :]
    t = np.asarray(steps, dtype=np.float64)[:, None]
    if mode == "author":
        total = (c2 * np.exp(-2.0 * lr * kappa * t)).sum(axis=-1)
    else:
        total = 0.5 * (c2 * np.square(1.0 - lr * kappa) ** t).sum(axis=-1)
    return np.asarray(total + np.asarray(rest, dtype=np.float64)[..., None])


def loss_curve_error(predicted: ArrayLike, measured: ArrayLike) -> Array:
    """Root mean square of log(predicted / measured) over the last axis: 0.1 is an error of about 10 %; (...).

    Points where either is not positive and finite are left out; NaN where none remains. Source: derived.
    """
    p, m = np.broadcast_arrays(np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(p) & np.isfinite(m) & (p > 0.0) & (m > 0.0)
    difference = np.log(np.where(usable, p, 1.0)) - np.log(np.where(usable, m, 1.0))
    count = usable.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.where(count > 0, np.square(difference).sum(axis=-1) / count, np.nan))
