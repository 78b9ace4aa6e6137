"""How the width g = d_k - d_{k+1} of a gap should change: the terms, closed forms and the time to collapse."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from spectraledge.errors import SettingError
from spectraledge.theory.gap import _pair
from spectraledge.theory.signal_flow import Drive, Mode, check_choice, faded_source, linear_flow

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GapTerms:
    """The parts of dg/dt, each (...) [parameter per optimizer step].

    Attributes:
        asymmetry: T1 = -eta (h_k - h_{k+1}) (d_k + d_{k+1}) / 2; opens the gap if the lower mode is stiffer.
        damping: T2 = -eta (mean h + omega) g.
        drive: T3, what enters the upper mode minus what enters the lower one.
        schedule: (eta'/eta) g; zero in author mode.
        repulsion: 2 kappa_g^2 / g, zero unless asked for.
        rate: gamma = eta (mean h + omega) - eta'/eta [1 / optimizer step].
    """

    asymmetry: Array
    damping: Array
    drive: Array
    schedule: Array
    repulsion: Array
    rate: Array

    @property
    def total(self) -> Array:
        """dg/dt (...)."""
        return self.asymmetry + self.damping + self.drive + self.schedule + self.repulsion

    @property
    def pull(self) -> Array:
        """c = T1 + T3, the part that does not depend on g itself: dg/dt = c - gamma g + repulsion."""
        return self.asymmetry + self.drive


def gap_terms(
    strengths: ArrayLike,
    position: ArrayLike,
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
    kappa2: ArrayLike = 0.0,
    mode: Mode = "strict",
    drive: Drive = "consistent",
) -> GapTerms:
    """Terms of the gap flow at a position, per optimizer step.

    strict: ``-eta (h_k - h_{k+1}) d_mean - eta (h_mean + omega) g + (eta'/eta) g + (eta s)^2 W / 2 *
    [(S + 2 G N)_k / d_k - (S + 2 G N)_{k+1} / d_{k+1}] + repulsion``: the exact difference of the two strict
    signal flows. The repulsion is of second order in the change of the Gram: each eigenvalue moves by
    kappa^2 / (lambda_k - lambda_{k+1}), so the width by ``kappa^2 / (2 d_k d_{k+1} g)``, that is, 2 kappa_g^2 / g
    with kappa_g = kappa / (2 sqrt(d_k d_{k+1})).

    author: the three published terms, with the drive ``c W (G_k^2 / d_k - G_{k+1}^2 / d_{k+1})``, c = eta
    (``printed``, whose unit is not that of a width) or eta^2 (``consistent``). No stride, schedule, coupling or
    repulsion. Differs because the published drive is a closure, see
    :func:`spectraledge.theory.signal_flow.signal_terms`.

    Args:
        strengths: (..., W) d_j [parameter].
        position: (...) k, 1-indexed; 0 gives NaN.
        curvature: (..., W) h_j [1 / (learning rate * step)].
        projections: (..., W) G_j [parameter / eta].
        injection: (..., W) N_j [G per step]; not used in author mode.
        learning_rate: (...) eta.
        window: W.
        stride: (...) optimizer steps s per snapshot.
        weight_decay: (...) omega.
        coupling: (..., W) S_j [G^2 per step].
        lr_rate: (...) eta'/eta per step.
        kappa2: (...) kappa^2 of :func:`spectraledge.theory.dyson.kappa_squared` [parameter^4 per snapshot].
        mode: ``strict`` or ``author``.
        drive: Author mode only.

    Returns:
        The terms. Source: strict derived; author arXiv:2603.28964 (gap flow).

    Raises:
        SettingError: For an unknown mode or drive, a position out of range, or no injection in strict mode.

    >>> terms = gap_terms([3.0, 1.0], 1, [0.5, 1.5], [0.0, 0.0], [0.0, 0.0], learning_rate=0.1, window=2)
    >>> [round(float(x), 12) for x in (terms.asymmetry, terms.damping, terms.total)]  # = -0.15 + 0.15
    [0.2, -0.2, 0.0]
    """
    check_choice("mode", mode, get_args(Mode))
    check_choice("drive", drive, ("consistent", "printed"))
    d = np.asarray(strengths, dtype=np.float64)
    upper, lower = _pair(d, position)
    h_upper, h_lower = _pair(np.broadcast_to(np.asarray(curvature, dtype=np.float64), d.shape), position)
    eta, s, omega, growth, k2 = (
        np.asarray(x, dtype=np.float64) for x in (learning_rate, stride, weight_decay, lr_rate, kappa2)
    )
    g = upper - lower
    gradient = np.asarray(projections, dtype=np.float64)
    if mode == "author":
        content = gradient**2
        factor = (eta if drive == "printed" else eta**2) * window
        growth, k2 = np.zeros(()), np.zeros(())
    else:
        if injection is None:
            raise SettingError(
                "The strict gap flow needs the injection N_j; got none. Measure it on the previous window with "
                'measured_injection, or use mode="author", which assumes it.'
            )
        content = np.asarray(coupling, dtype=np.float64) + 2.0 * gradient * np.asarray(injection, dtype=np.float64)
        factor = 0.5 * (eta * s) ** 2 * window
    into_upper, into_lower = _pair(np.broadcast_to(content, d.shape), position)
    gamma = eta * (0.5 * (h_upper + h_lower) + omega)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = {
            "asymmetry": -eta * (h_upper - h_lower) * 0.5 * (upper + lower),
            "damping": -gamma * g,
            "drive": factor * (into_upper / upper - into_lower / lower),
            "schedule": growth * g,
            "repulsion": np.where(k2 == 0.0, 0.0 * g, k2 / s / (2.0 * upper * lower * g)),
            "rate": gamma - growth,
        }
    shaped = np.broadcast_arrays(*terms.values())
    return GapTerms(**{name: np.array(value) for name, value in zip(terms, shaped)})


def term_shares(terms: GapTerms) -> dict[str, Array]:
    """|term| / sum of |terms| of each of the five parts, (...) in [0, 1]; NaN where all vanish."""
    parts = {f.name: np.abs(getattr(terms, f.name)) for f in fields(terms) if f.name != "rate"}
    total = np.sum(np.stack(list(parts.values())), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: np.where(total > 0.0, part / total, np.nan) for name, part in parts.items()}


def gap_closed_form(gap: ArrayLike, pull: ArrayLike, rate: ArrayLike, time: ArrayLike) -> Array:
    """g(t) = g* + (g_0 - g*) exp(-gamma t), g* = c / gamma, for constant c = ``pull`` and gamma = ``rate``.

    An approximation even then: c contains (d_k + d_{k+1}) / 2, which moves too; see :func:`integrate_pair`.
    Negative after the collapse time. Source: standard result.
    """
    return linear_flow(gap, rate, pull, time)


def collapse_time(gap: ArrayLike, pull: ArrayLike, rate: ArrayLike) -> Array:
    """Time at which the gap would close: ln(1 + gamma g_0 / |c|) / gamma [optimizer steps].

    Divide by the stride for snapshots. Infinite where the flow does not reach zero: c >= 0, or gamma < 0 and
    a gap beyond the unstable c / gamma. Without repulsion; with it a crossing is only approached.

    Args:
        gap: (...) g_0 >= 0 [parameter].
        pull: (...) c [parameter per step].
        rate: (...) gamma [1 / step].

    Returns:
        (...). Source: standard result (integrated arXiv:2603.28964 gap flow).

    >>> round(float(collapse_time(2.0, -0.1, 0.05)), 6), float(collapse_time(2.0, 0.1, 0.05))  # 20 ln 2
    (13.862944, inf)
    """
    g, c, gamma = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (gap, pull, rate)))
    closing = c < 0.0
    loss = np.where(closing, -c, 1.0)
    x = gamma * g / loss
    reached = closing & (x > -1.0)
    slow = np.abs(x) < 1e-300
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(slow, g / loss, np.log1p(np.where(reached, x, 0.0)) / np.where(slow, 1.0, gamma))
    unknown = np.isnan(g) | np.isnan(c) | np.isnan(gamma)
    return np.where(unknown, np.nan, np.where(reached, time, np.inf))


def integrate_pair(
    strengths: ArrayLike, rate: ArrayLike, source: ArrayLike, times: ArrayLike, *, kappa2: float = 0.0
) -> Array:
    """Strengths of the two modes beside a gap, with constant coefficients and, if asked, their repulsion.

    Args:
        strengths: (2) d_k > d_{k+1} at time 0 [parameter].
        rate: (2) of d^2 [1 / step], see :func:`spectraledge.theory.signal_flow.flow_coefficients`.
        source: (2) [parameter^2 per step].
        times: (n) >= 0, increasing [optimizer steps].
        kappa2: Squared coupling kappa^2 [parameter^4 per optimizer step].

    Returns:
        (n, 2) strengths. With kappa2 = 0 exact, zero once a mode has vanished, and the two may cross; with
        kappa2 > 0 they never do. The repulsion is that of modes far from zero: it may push a weak lower mode to
        zero, which a true one, whose coupling fades with it, does not reach. Source: derived.

    Raises:
        SettingError: If kappa2 is negative, or positive with strengths that do not differ.
    """
    d, t = np.asarray(strengths, dtype=np.float64), np.asarray(times, dtype=np.float64)
    a, b = (np.broadcast_to(np.asarray(x, dtype=np.float64), (2,)) for x in (rate, source))
    if kappa2 < 0.0 or (kappa2 > 0.0 and not d[0] > d[1]):
        raise SettingError(
            f"kappa2 must be 0, or positive with strengths[0] > strengths[1]; got {kappa2} and {d.tolist()}. "
            "Order the pair as it stands in the spectrum."
        )
    if kappa2 == 0.0:
        return np.sqrt(np.maximum(linear_flow(d**2, a, b, t[:, None]), 0.0))

    # In the sum and the logarithm of the difference of y = d^2 the levels cannot cross.
    def slope(_: float, state: Array) -> Array:
        gap = np.exp(state[1])
        y = 0.5 * np.array([state[0] + gap, state[0] - gap])
        dy = -a * y + faded_source(b, y, scale)
        return np.array([dy.sum(), (dy[0] - dy[1]) / gap + 2.0 * kappa2 / gap**2])

    scale = float(d[0] ** 2)
    begin = np.array([np.sum(d**2), np.log(d[0] ** 2 - d[1] ** 2)])
    span = (0.0, max(float(t[-1]), np.finfo(np.float64).tiny))
    solution = solve_ivp(slope, span, begin, "LSODA", t_eval=t, rtol=1e-9, atol=1e-12)
    total, gap = solution.y[0], np.exp(solution.y[1])
    return np.sqrt(np.maximum(0.5 * np.stack([total + gap, total - gap], axis=-1), 0.0))
