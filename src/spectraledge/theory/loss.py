"""Contributions of the modes of a window to a change of the loss.

In sample (the newest update lies in the span) it is an identity. Out of sample (modes of the past window,
next update) it is a first-order statement about what the past span holds, and its coverage is measured.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.loss_decomposition import (
    LossDecomposition,
    coverage,
    loss_decomposition,
    second_order_term,
)
from spectraledge.theory.overlap import _resolved
from spectraledge.theory.projections import time_projections
from spectraledge.theory.spectrum import UPDATE_EPS_FLOAT32, GramSpectrum, gram_spectrum

Array = NDArray[np.float64]
Mode = Literal["strict", "author"]

__all__ = [
    "LossDecomposition",
    "coverage",
    "in_sample_contributions",
    "loss_decomposition",
    "out_of_sample_contributions",
    "predicted_contributions",
    "published_contributions",
    "second_order_term",
]


def in_sample_contributions(
    grad_products: ArrayLike, gram: ArrayLike, *, row: int = -1, update_eps: float = UPDATE_EPS_FLOAT32
) -> tuple[Array, Array]:
    """c_j = <v_j, g> <v_j, delta_t> for an update of the window itself; sums to <g, delta_t> exactly.

    ``<v_j, g> = (U^T p)_j / sigma_j`` and ``<v_j, delta_t> = sigma_j U_tj``: sigma cancels, so that the sum
    keeps its digits however ill-conditioned the window is. The direction of an unresolved mode is rounding,
    and so is its single contribution; the *sum* over all unresolved modes is not, and is the remainder.

    With g the gradient at the end of the update, ``L(theta_t) - L(theta_{t-1}) = sum_j c_j + remainder -
    delta^T H delta / 2``: see :func:`second_order_term`.

    Args:
        grad_products: (..., W) <delta_a, g> with the loss gradient, oldest update first [loss].
        gram: (..., W, W) of the window [parameter^2].
        row: Which update is decomposed, the newest by default.
        update_eps: Relative rounding of one update, see :func:`~spectraledge.theory.resolution_floor`.

    Returns:
        Contributions (..., W) [loss], NaN for unresolved modes, and the remainder (...) [loss]: together
        they sum to <g, delta_t>. Source: arXiv:2603.28964v1-v3 states the decomposition by mode; the exact
        in-sample identity, free of any stability coefficient, is derived.

    Raises:
        SettingError: If the shapes do not belong together or ``row`` is not in the window.

    >>> c, remainder = in_sample_contributions([1.0, 2.0], [[4.0, 1.0], [1.0, 4.0]])
    >>> c, float(remainder)
    (array([1.5, 0.5]), 0.0)
    """
    spectrum = gram_spectrum(gram, update_eps=update_eps)
    window = spectrum.singular_values.shape[-1]
    if not -window <= row < window:
        raise SettingError(f"row must be an update of the window of {window}; got {row}. Use -1 for the newest.")
    terms = time_projections(grad_products, spectrum.time_profiles) * spectrum.time_profiles[..., row, :]
    rest = np.where(spectrum.resolved, 0.0, terms).sum(axis=-1)
    return np.where(spectrum.resolved, terms, np.nan), rest


def out_of_sample_contributions(
    grad_on_window: ArrayLike, next_on_window: ArrayLike, spectrum: GramSpectrum
) -> Array:
    """c_j = <v_j(t-), grad L_val(theta_t)> <v_j(t-), delta_{t+1}> with the modes of the *past* window.

    The next update leaves the span of the window, so the sum falls short of ``<grad L_val, delta_{t+1}>``
    by the part outside; :func:`coverage` says by how much. Nothing is fitted and no stability coefficient
    enters: rotation of the modes is already in the second factor.

    Args:
        grad_on_window: (..., W) <delta_a, grad L_val(theta_t)>, oldest update first [loss].
        next_on_window: (..., W) <delta_a, delta_{t+1}> [parameter^2].
        spectrum: Of the Gram of updates t - W + 1 .. t.

    Returns:
        (..., W) [loss], NaN for unresolved modes. Source: derived.

    Raises:
        SettingError: If the shapes do not belong together.

    >>> past = gram_spectrum(np.diag([4.0, 1.0]))
    >>> out_of_sample_contributions([2.0, 0.0], [6.0, 5.0], past)  # <v_1, g> = 1, <v_1, delta> = 3
    array([3., 0.])
    """
    lam = np.square(_resolved(spectrum.singular_values, spectrum.floor))
    g, delta = (time_projections(x, spectrum.time_profiles) for x in (grad_on_window, next_on_window))
    return g * delta / lam


def predicted_contributions(step_projections: ArrayLike, val_projections: ArrayLike, lr_sum: ArrayLike) -> Array:
    """Forecast of c_j from the direction the optimizer is about to take: ``-lr_sum step_j G_j^val``.

    To first order ``<v_j(t-), delta_{t+1}> = -(sum of lr) <v_j(t-), step>``, for every j and whatever the
    rotation of the modes, because v_j(t-) is a fixed vector. The step is

    - ``grad L_train`` for plain SGD (``step_j = G_j^train``),
    - ``P^-1 m + omega theta`` for a preconditioned optimizer with first moment m, preconditioner P and
      decoupled weight decay omega (Adam: ``P = diag(sqrt(v) + eps)``, bias-corrected),
    - the momentum buffer for torch SGD with momentum, which already sums to ``grad / (1 - beta)``.

    Args:
        step_projections: (..., W) <v_j, step> at theta_t.
        val_projections: (..., W) G_j^val = <v_j, grad L_val(theta_t)> [loss/parameter].
        lr_sum: (...) sum of the learning rates over the optimizer steps of the next update.

    Returns:
        (..., W) [loss], NaN where a projection is. Source: derived; with ``step_j = G_j^train`` and a factor
        alpha_j it is the published form, see :func:`published_contributions`.
    """
    lr = np.asarray(lr_sum, dtype=np.float64)[..., None]
    step, val = (np.asarray(x, dtype=np.float64) for x in (step_projections, val_projections))
    return -lr * step * val


def published_contributions(
    alpha: ArrayLike | None,
    train_projections: ArrayLike,
    val_projections: ArrayLike,
    lr_sum: ArrayLike,
    *,
    mode: Mode = "strict",
) -> Array:
    """Learning contribution of each mode, ``-lr_sum alpha_j G_j^train G_j^val``.

    The two modes differ in alpha only. ``author`` multiplies by the stability coefficient as published.
    ``strict`` has alpha = 1 and ignores the argument: with both gradients taken at theta_t along v_j(t-) the
    unweighted product already is the first-order forecast out of sample, alpha has no derivation there, and
    cos^2 of a rotation bounds no signed product. Units are those of a loss in either mode.

    Args:
        alpha: (..., W) stability coefficients in [0, 1]; None is allowed in strict mode.
        train_projections: (..., W) G_j^train [loss/parameter]; for a preconditioned optimizer give
            <v_j, P^-1 m> (and the weight decay) instead, see :func:`predicted_contributions`.
        val_projections: (..., W) G_j^val [loss/parameter].
        lr_sum: (...) sum of the learning rates of the next update (eta s at a constant rate).
        mode: ``strict`` or ``author``.

    Returns:
        (..., W) [loss]. Source: arXiv:2603.28964v1-v3 (author, a rate: lr_sum = eta); strict derived.

    Raises:
        SettingError: For another mode, or ``author`` without alpha.

    >>> published_contributions([1.0, 0.5], [2.0, 2.0], [3.0, 3.0], 0.1, mode="author").round(9)
    array([-0.6, -0.3])
    """
    if mode not in get_args(Mode):
        raise SettingError(f"mode must be strict or author; got {mode!r}. The default is strict.")
    if mode == "strict":
        return predicted_contributions(train_projections, val_projections, lr_sum)
    if alpha is None:
        raise SettingError("The published form needs alpha; got None. Pass the coefficients or use mode='strict'.")
    weighted = np.asarray(alpha, dtype=np.float64) * np.asarray(train_projections, dtype=np.float64)
    return predicted_contributions(weighted, val_projections, lr_sum)
