"""Candidates for what precedes grokking: one number a snapshot, from the recording of updates and training alone.

Each function takes a ``History`` and returns (T) values, NaN before there are any. Nothing looks ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .history import PARTS, History, Part
from .products import turning

Group = Literal["candidate", "baseline", "outcome"]
Compute = Callable[[History], "np.ndarray | None"]


@dataclass(frozen=True)
class Statistic:
    """One statistic.

    Attributes:
        name: For people and files.
        group: "candidate"; "baseline", cheap and known; "outcome", a baseline that reads held-out data.
        unit: Of its values; "1" for none.
        null: What it does where nothing but noise, decay or memorising goes on, as far as known.
        compute: ``History -> (T)``, or None where the recording does not hold it.
        signed: Whether it may be negative, or is a logarithm: changes are then differences, otherwise logs of ratios.
        part: Part of the network that it reads, for whether that moves.
        updates_alone: Whether it reads parameters and updates alone: no metric, and no clock.
    """

    name: str
    group: Group
    unit: str
    null: str
    compute: Compute
    signed: bool = False
    part: str = "all"
    updates_alone: bool = True


def _of_part(part: str, function: Callable[[Part], np.ndarray]) -> Compute:
    def compute(history: History) -> np.ndarray | None:
        found = history.part(part)
        return None if found is None else function(found)

    return compute


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)


def turned(part: Part, windows: int = 2) -> np.ndarray:
    """1 - cos(theta_t, theta_{t - windows W}): (2W) updates are what a band of 2W - 1 lags holds."""
    lag = min(windows * part.window, part.updates.shape[1])
    return turning(part.updates, part.theta_norm2, lag)


def _norm(part: Part) -> np.ndarray:
    return np.sqrt(part.theta_norm2)


def _relative_update(part: Part) -> np.ndarray:
    return np.sqrt(_ratio(part.updates[:, 0], part.theta_norm2))


def radial_balance(part: Part) -> np.ndarray:
    """<g, mu> / (kappa ||mu||^2): the share of weight decay that the gradient part cancels; NaN without decay.

    1 where the length is in equilibrium up to the growth by random steps, 0 where decay acts alone.
    """
    return _ratio(part.gradient.with_theta, part.gradient.decay * part.gradient.theta2)


def _radial_cosine(part: Part) -> np.ndarray:
    return part.gradient.with_theta / np.sqrt(part.gradient.theta2 * part.gradient.band[:, 0])


def emergence(j: int, of: str) -> Callable[[Part], np.ndarray]:
    """log(sigma_j / floor), the floor being the root mean square of the smaller half of the window's spectrum."""

    def compute(part: Part) -> np.ndarray:
        eigenvalues = part.spectrum(of)
        return 0.5 * np.log(eigenvalues[:, j - 1] / eigenvalues[:, part.window // 2 :].mean(axis=1))

    return compute


def leading_share(of: str) -> Callable[[Part], np.ndarray]:
    """sigma_1^2 / W of unit rows: 1/W for independent rows, 1 for parallel ones."""
    return lambda part: part.spectrum(of)[:, 0] / part.window


def effective_rows(of: str) -> Callable[[Part], np.ndarray]:
    """(sum lambda)^2 / sum lambda^2: W for independent rows, 1 for parallel ones."""
    return lambda part: part.window**2 / np.square(part.spectrum(of)).sum(axis=1)


def first_gap(of: str) -> Callable[[Part], np.ndarray]:
    """sigma_1 / sigma_2 of unit rows."""
    return lambda part: np.sqrt(part.spectrum(of)[:, 0] / part.spectrum(of)[:, 1])


def second_gap(of: str) -> Callable[[Part], np.ndarray]:
    """sigma_2 / sigma_3 of unit rows."""
    return lambda part: np.sqrt(part.spectrum(of)[:, 1] / part.spectrum(of)[:, 2])


def straightness(of: str) -> Callable[[Part], np.ndarray]:
    """||sum of W rows||^2 / (W sum ||row||^2): 1/W for independent rows, 1 for a straight line."""

    def compute(part: Part) -> np.ndarray:
        total, energy, _ = part.window_sums(of)
        return _ratio(total, part.window * energy)

    return compute


def disjoint_coherence(of: str) -> Callable[[Part], np.ndarray]:
    """cos of the sums of two windows that share no update: 0 for independent rows."""

    def compute(part: Part) -> np.ndarray:
        total, _, cross = part.window_sums(of)
        before = np.full_like(total, np.nan)
        before[part.window :] = total[: -part.window]
        return cross / np.sqrt(np.where((total > 0) & (before > 0), total * before, np.nan))

    return compute


def far_cosine(of: str) -> Callable[[Part], np.ndarray]:
    """Mean cos(row_t, row_{t-l}) over l = W..L: 0 for independent rows, whatever momentum does nearby."""
    return lambda part: part.cosines(of)[:, part.window :].mean(axis=1)


def near_cosine(of: str) -> Callable[[Part], np.ndarray]:
    """Mean of cos(row_t, row_{t-1}) over W updates: lag-1 autocorrelation."""

    def compute(part: Part) -> np.ndarray:
        return _trailing_mean(part.cosines(of)[:, 1], part.window)

    return compute


def effective_dimension(part: Part) -> np.ndarray:
    """log10 of 1 / Var(cos) over the far products of the last W updates: P_eff of noise alone; a drift lowers it."""
    far = part.cosines("gradient")[:, part.window :]
    mean, square = (_trailing_mean(x.mean(axis=1), part.window) for x in (far, np.square(far)))
    spread = square - np.square(mean)
    return -np.log10(np.where(spread > 0, spread, np.nan))


def _trailing_mean(x: np.ndarray, window: int) -> np.ndarray:
    out = np.full(len(x), np.nan)
    if len(x) >= window:
        out[window - 1 :] = np.lib.stride_tricks.sliding_window_view(x, window).mean(axis=1)
    return out


def _share(part: str) -> Compute:
    def compute(history: History) -> np.ndarray | None:
        own, whole = history.part(part), history.part("all")
        return None if own is None or whole is None else _ratio(own.updates[:, 0], whole.updates[:, 0])

    return compute


def _head_over_layers(function: Callable[[Part], np.ndarray]) -> Compute:
    def compute(history: History) -> np.ndarray | None:
        head, layers = history.part("head"), history.part("layers")
        return None if head is None or layers is None else _ratio(function(head), function(layers))

    return compute


_EQUILIBRIUM = "set by rate and decay at equilibrium"
# name, unit, null, whether it is signed, function of a part
_KINDS: list[tuple[str, str, str, bool, Callable[[Part], np.ndarray]]] = [
    ("turning over 2W", "1", "small and flat at a minimum held against decay", False, turned),
    ("turning over W", "1", "small and flat at a minimum held against decay", False, lambda part: turned(part, 1)),
    ("norm by part", "parameter", "level at which decay and gradient balance", False, _norm),
    ("update over norm", "1", _EQUILIBRIUM, False, _relative_update),
    ("radial balance", "1", "1 at equilibrium", True, radial_balance),
    ("cos(g, theta)", "1", "0 without decay", True, _radial_cosine),
    ("log10 P_eff", "1", "constant for stationary noise", True, effective_dimension),
]
for _of in ("update", "gradient"):
    _KINDS += [
        (f"mode 1 over floor, {_of}s", "1", "0.1 for noise at W = 10", True, emergence(1, _of)),
        (f"mode 2 over floor, {_of}s", "1", "0.1 for noise at W = 10", True, emergence(2, _of)),
        (f"leading share, {_of}s", "1", "1/W for noise", False, leading_share(_of)),
        (f"effective rows, {_of}s", "1", "W for noise", False, effective_rows(_of)),
        (f"sigma_1/sigma_2, {_of}s", "1", "1 for noise", False, first_gap(_of)),
        (f"sigma_2/sigma_3, {_of}s", "1", "1 for noise", False, second_gap(_of)),
        (f"straightness, {_of}s", "1", "1/W for noise", False, straightness(_of)),
        (f"disjoint coherence, {_of}s", "1", "0 for noise", True, disjoint_coherence(_of)),
        (f"cosine W..L apart, {_of}s", "1", "0 for noise", True, far_cosine(_of)),
        (f"lag-1 cosine, {_of}s", "1", "0 for noise, positive with momentum", True, near_cosine(_of)),
    ]

CANDIDATES: dict[str, Statistic] = {
    s.name: s
    for s in (
        *(
            Statistic(f"{name}, {part}", "candidate", unit, null, _of_part(part, function), signed, part)
            for name, unit, null, signed, function in _KINDS
            for part in PARTS
            if (name, part) != ("norm by part", "all")
        ),
        *(
            Statistic(f"share of ||delta||^2, {part}", "candidate", "1", "flat", _share(part), part=part)
            for part in PARTS[1:]
        ),
        Statistic("turning, head / layers", "candidate", "1", "flat", _head_over_layers(turned), part="head"),
        Statistic(
            "update over norm, head / layers",
            "candidate",
            "1",
            "flat",
            _head_over_layers(_relative_update),
            part="head",
        ),
    )
}
"""All candidates by name; those of a part are missing where the recording does not tell the part apart."""


def _metric(name: str) -> Compute:
    return lambda history: history.metric(name)


BASELINES: dict[str, Statistic] = {
    s.name: s
    for s in (
        Statistic("norm of parameters", "baseline", "parameter", "equilibrium", _of_part("all", _norm)),
        Statistic(
            "norm of update",
            "baseline",
            "parameter",
            "set by rate",
            _of_part("all", lambda part: np.sqrt(part.updates[:, 0])),
        ),
        Statistic(
            "train loss",
            "baseline",
            "nat",
            "falls in every run that fits",
            _metric("train_loss"),
            updates_alone=False,
        ),
        Statistic(
            "batch loss",
            "baseline",
            "nat",
            "falls in every run that fits",
            _metric("batch_loss"),
            updates_alone=False,
        ),
        Statistic(
            "gradient norm",
            "baseline",
            "nat / parameter",
            "falls in every run that fits",
            _metric("grad_norm"),
            updates_alone=False,
        ),
        Statistic(
            "fixed clock",
            "baseline",
            "step",
            "the time",
            lambda history: history.steps.astype(np.float64),
            updates_alone=False,
        ),
        Statistic(
            "test loss", "outcome", "nat", "rises while a run memorises", _metric("test_loss"), updates_alone=False
        ),
    )
}
"""What a candidate has to beat; the test loss, which reads held-out data, is an upper bar."""

STATISTICS = CANDIDATES | BASELINES
