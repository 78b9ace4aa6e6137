"""How the strength of each mode should change: dissipation, coupling, injection and the schedule.

Time t counts optimizer steps; a snapshot is ``stride`` = s of them; multiply a rate by s for "per snapshot".
For constant coefficients every form is linear in y = d^2, ``dy/dt = -rate * y + source``, which is why y and
not d is integrated. Strengths d_j may be debiased ones or the singular values themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from spectraledge.errors import SettingError

Array = NDArray[np.float64]
Mode = Literal["strict", "author"]
Drive = Literal["printed", "consistent"]
Coefficients = Callable[[float], tuple[ArrayLike, ArrayLike]]

# exp(700) is the last finite power of e: an unstable mode becomes huge, not infinite.
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class SignalTerms:
    """The parts of d(d_j^2)/dt, each (..., k) [parameter^2 per optimizer step].

    Attributes:
        dissipation: -2 eta (h + omega) d^2.
        coupling: Exchange between modes by the rotation of their directions; sums to zero over a whole basis.
        injection: Gradient that enters the mode (strict) or the published closure for it (author).
        schedule: 2 (eta'/eta) d^2; zero in author mode.
    """

    dissipation: Array
    coupling: Array
    injection: Array
    schedule: Array

    @property
    def total(self) -> Array:
        """d(d_j^2)/dt (..., k)."""
        return self.dissipation + self.coupling + self.injection + self.schedule


def signal_terms(
    strengths: ArrayLike,
    curvature: ArrayLike,
    projections: ArrayLike,
    injection: ArrayLike | None = None,
    *,
    learning_rate: ArrayLike,
    window: int,
    stride: ArrayLike = 1,
    weight_decay: ArrayLike = 0.0,
    coupling: ArrayLike = 0.0,
    lr_rate: ArrayLike = 0.0,
    mode: Mode = "strict",
    drive: Drive = "consistent",
) -> SignalTerms:
    """Every term of the flow of d_j^2, per optimizer step.

    strict: ``-2 eta (h + omega) d^2 + (eta s)^2 W (S + 2 G N) + 2 (eta'/eta) d^2``. h must be measured with the
    optimizer's own preconditioner P, ``v^T P^-1 H v``; with Adam the raw ``v^T H v`` is wrong by the size of
    P^-1. N holds all that changes G besides own curvature and rotation; for gradient descent along
    eigenvectors of the Hessian it is zero and ``d' = -eta (h + omega) d``.

    author: the reduced form ``d' = -eta (h + omega) d + c W G^2 / d``, c = eta (``drive="printed"``) or
    eta^2 (``"consistent"``), written for d^2. The printed drive has the unit of loss per parameter, not of
    a strength. Both are closures, not consequences: they put N = G / eta or N = G per step, that is, assume
    that the gradient is injected anew all the time. In a quasi-static window, d^2 = W (eta G)^2, the
    consistent drive equals d per step, 1 / (eta (h + omega)) times the damping, so with a measured G it cannot
    balance. The schedule is left out, the stride is not used. A coupling enters as eta^2 W S, as published;
    the full published law is mode="strict" at stride 1 and a constant learning rate.

    Args:
        strengths: (..., k) d_j [parameter].
        curvature: (..., k) h_j [1 / (learning rate * step)].
        projections: (..., k) G_j, preconditioned gradient plus omega theta along v_j [parameter / eta].
        injection: (..., k) N_j [G per step], see :func:`measured_injection`; not used in author mode.
        learning_rate: (...) eta.
        window: W.
        stride: (...) optimizer steps s per snapshot.
        weight_decay: (...) decoupled omega.
        coupling: (..., k) S_j [G^2 per step], see :func:`conservative_coupling`.
        lr_rate: (...) eta'/eta, relative change of the learning rate per step.
        mode: ``strict`` or ``author``.
        drive: Author mode only.

    Returns:
        The terms; NaN where an input is NaN. Source: strict derived; author arXiv:2603.28964 (theorem of the
        signal flow, and the reduced form of its gap flow).

    Raises:
        SettingError: For an unknown mode or drive, a window below 1, or no injection in strict mode.

    >>> terms = signal_terms([2.0], [3.0], [1.0], [0.0], learning_rate=0.1, window=10, weight_decay=1.0)
    >>> terms.dissipation.round(12), terms.total.round(12)
    (array([-3.2]), array([-3.2]))
    """
    y = np.square(np.asarray(strengths, dtype=np.float64))
    rate, source, exchange, growth = _parts(
        curvature, projections, injection, learning_rate, window, stride, weight_decay, coupling, lr_rate, mode, drive
    )
    parts = (-rate * y, exchange, source, growth * y)
    return SignalTerms(*(np.array(part) for part in np.broadcast_arrays(*parts)))


def flow_coefficients(
    curvature: ArrayLike,
    projections: ArrayLike,
    injection: ArrayLike | None = None,
    *,
    learning_rate: ArrayLike,
    window: int,
    stride: ArrayLike = 1,
    weight_decay: ArrayLike = 0.0,
    coupling: ArrayLike = 0.0,
    lr_rate: ArrayLike = 0.0,
    mode: Mode = "strict",
    drive: Drive = "consistent",
) -> tuple[Array, Array]:
    """The same flow as ``d(d^2)/dt = -rate * d^2 + source``; arguments as in :func:`signal_terms`.

    Returns:
        rate (..., k) [1 / optimizer step], source (..., k) [parameter^2 per optimizer step]. Its stationary
        value is source / rate: ``W G^2 / (h + omega)`` for the author's printed drive, eta times that for the
        consistent one, ``eta s^2 W (S + 2 G N) / (2 (h + omega))`` strictly (constant learning rate).
    """
    rate, source, exchange, growth = _parts(
        curvature, projections, injection, learning_rate, window, stride, weight_decay, coupling, lr_rate, mode, drive
    )
    first, second = np.broadcast_arrays(rate - growth, source + exchange)
    return np.array(first), np.array(second)


def linear_flow(start: ArrayLike, rate: ArrayLike, source: ArrayLike, time: ArrayLike) -> Array:
    """Solution of ``dy/dt = -rate * y + source`` with constant coefficients, also for rate = 0 or below.

    ``y(t) = y_inf + (y_0 - y_inf) exp(-rate t)`` with ``y_inf = source / rate``. Not clipped: a negative
    value says that the mode (or the gap) vanished before. Source: standard result.

    >>> linear_flow(4.0, 0.5, 1.0, np.array([0.0, 1e9])).round(12), float(linear_flow(4.0, 0.0, 1.0, 3.0))
    (array([4., 2.]), 7.0)
    """
    y, a, b, t = (np.asarray(x, dtype=np.float64) for x in (start, rate, source, time))
    x = np.maximum(a * t, -_LARGEST_EXPONENT)
    safe = np.where(x == 0.0, 1.0, x)
    mean_decay = np.where(x == 0.0, 1.0, -np.expm1(-x) / safe)  # (1 - exp(-x)) / x
    return y * np.exp(-x) + b * t * mean_decay


def integrate_flow(
    start: ArrayLike,
    coefficients: Coefficients,
    times: ArrayLike,
    *,
    method: Literal["exponential", "ode"] = "exponential",
    max_step: float | None = None,
) -> Array:
    """Integrate y = d^2 with coefficients that change in time, keeping y >= 0.

    ``exponential``: constant coefficients, taken at the middle, over each step: exact if they are constant,
    of second order otherwise, whatever the stiffness. ``ode``: LSODA, adaptive. A mode whose source is negative
    stops at zero.

    Args:
        start: (k) y at times[0] [parameter^2].
        coefficients: t -> (rate (k), source (k)), see :func:`flow_coefficients`.
        times: (n) increasing [optimizer steps].
        method: ``exponential`` or ``ode``.
        max_step: Longest step of the exponential method; None takes one step per interval of ``times``.

    Returns:
        (n, k) y. Source: standard result (exponential midpoint rule).

    Raises:
        SettingError: For an unknown method, times that do not increase, or a step that is not positive.
    """
    check_choice("method", method, ("exponential", "ode"))
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 1 or len(t) < 1 or np.any(np.diff(t) <= 0.0):
        raise SettingError(f"times must be one increasing series; got shape {t.shape}. Sort it, drop repeats.")
    if max_step is not None and not max_step > 0.0:
        raise SettingError(f"max_step must be positive; got {max_step}. None takes one step per interval.")
    y = np.maximum(np.atleast_1d(np.asarray(start, dtype=np.float64)), 0.0)
    if method == "ode":
        if len(t) == 1:
            return y[None]
        scale = max(float(np.max(y)), np.finfo(np.float64).tiny)

        def slope(time: float, value: Array) -> Array:
            a, b = (np.asarray(x, dtype=np.float64) for x in coefficients(time))
            return -a * value + faded_source(b, value, scale)

        solution = solve_ivp(slope, (t[0], t[-1]), y, "LSODA", t_eval=t, rtol=1e-9, atol=1e-12 * scale)
        return np.maximum(solution.y.T, 0.0)
    path = [y]
    for begin, end in pairwise(t):
        n = 1 if max_step is None else int(np.ceil((end - begin) / max_step))
        h = (end - begin) / n
        for i in range(n):
            rate, source = coefficients(begin + (i + 0.5) * h)
            y = np.maximum(linear_flow(y, rate, source, h), 0.0)
        path.append(y)
    return np.stack(path)


def faded_source(source: Array, value: Array, scale: float) -> Array:
    """A negative source fades out as the value goes below 1e-9 of ``scale``.

    A mode that is drained then stops at zero; a jump there would make an adaptive solver chatter for ever.
    """
    held = np.maximum(value, 0.0)
    return np.where(source < 0.0, source * held / (held + 1e-9 * scale), source)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise SettingError unless ``value`` is one of ``choices``, of which the first is the default."""
    if value not in choices:
        raise SettingError(f"{name} must be one of {', '.join(choices)}; got {value!r}. The default is {choices[0]}.")


def _parts(
    curvature: ArrayLike,
    projections: ArrayLike,
    injection: ArrayLike | None,
    learning_rate: ArrayLike,
    window: int,
    stride: ArrayLike,
    weight_decay: ArrayLike,
    coupling: ArrayLike,
    lr_rate: ArrayLike,
    mode: Mode,
    drive: Drive,
) -> tuple[Array, Array, Array, Array]:
    """Damping rate, injection, coupling and growth rate of y = d^2."""
    check_choice("mode", mode, get_args(Mode))
    check_choice("drive", drive, ("consistent", "printed"))
    if window < 1:
        raise SettingError(f"window must be at least 1; got {window}. Use window=10 as in the paper.")
    h, gradient, exchange = (np.asarray(x, dtype=np.float64) for x in (curvature, projections, coupling))
    # Settings are one number per window: give them the axis of the modes.
    eta, s, omega, growth = (
        np.asarray(x, dtype=np.float64)[..., None] for x in (learning_rate, stride, weight_decay, lr_rate)
    )
    rate = 2.0 * eta * (h + omega)
    if mode == "author":
        factor = eta if drive == "printed" else eta**2
        return rate, 2.0 * factor * window * gradient**2, eta**2 * window * exchange, np.zeros_like(growth)
    if injection is None:
        raise SettingError(
            "The strict flow needs the injection N_j; got none. Measure it on the previous window with "
            'measured_injection, or use mode="author", which assumes it.'
        )
    unit = (eta * s) ** 2 * window
    return rate, 2.0 * unit * gradient * np.asarray(injection, dtype=np.float64), unit * exchange, 2.0 * growth
