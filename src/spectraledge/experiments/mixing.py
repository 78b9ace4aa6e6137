"""Changes at a gap: mix v_j and v_{j+1} of the recent window, or do as much elsewhere.

Owns the changes of parameters and momentum; knows nothing about when they are made or what comes of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import SettingError
from .momentum import Metric, Momentum
from .vectors import Vector, add_to, combination, dot, norm, random_vector

if TYPE_CHECKING:
    from ..stream.monitor import Monitor

Kind = Literal["step", "momentum", "close_gap"]
Position = int | Literal["span", "space", "none"]
CONTROLS = ("span", "space", "none")


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        kind: ``step``, ``momentum`` or ``close_gap``.
        position: The cut j (1-indexed), or a control.
        norm: Norm of the change: of theta (``step``) or of the displacement that the momentum is about to
            make [parameter]; in gradient units with ``metric="buffer"``.
        relative: That over the norm of the last update (``step``) or of the momentum.
        angle: Rotation in the plane [radian]; 0 for ``step``.
    """

    kind: Kind
    position: Position
    norm: float
    relative: float
    angle: float


class Mixer:
    """Changes of one state of training, all made of the same directions.

    Args:
        parameters: The tensors that are trained, by name.
        optimizers: Their optimizers.
        directions: v_1, v_2, ... by falling singular value, orthonormal, each shaped as the parameters.
        last_update: The newest update of the window.
        metric: Where momentum is rotated, see :class:`~spectraledge.experiments.momentum.Momentum`.
    """

    def __init__(
        self,
        parameters: Vector,
        optimizers: Sequence[Optimizer],
        directions: Sequence[Vector],
        last_update: Vector,
        *,
        metric: Metric = "update",
    ) -> None:
        self._parameters, self._optimizers, self._metric = parameters, optimizers, metric
        self._directions, self._last_update = directions, last_update

    def largest_norm(self, kind: Kind, position: Position) -> float:
        """Largest relative norm that is possible.

        Infinite for ``step``; the chord of a quarter turn for ``momentum``, which exchanges the two contents;
        that of the turn to equal energies for ``close_gap``.
        """
        check_position(kind, position, len(self._directions))
        if kind == "step" or position == "none":
            return math.inf
        momentum = Momentum(self._parameters, self._optimizers, metric=self._metric)
        u = momentum.read()
        size = norm(u)
        if position == "space":
            return math.sqrt(2.0)
        if position == "span":
            return math.sqrt(2.0) * float(np.linalg.norm([dot(v, u) for v in self._directions])) / size
        a, b = self._contents(position, u)
        angle = math.pi / 2 if kind == "momentum" else abs(_angle_to_equal(a, b))
        return 2.0 * math.hypot(a, b) * math.sin(0.5 * angle) / size

    def apply(self, kind: Kind, position: Position, amount: float, rng: np.random.Generator) -> Applied:
        """Make the change.

        ``step``: theta moves by ``amount`` times the norm of the last update x, along
        ``s (<v_j, x> v_{j+1} - <v_{j+1}, x> v_j)`` made a unit vector, the direction in which x's content
        turns from v_j into v_{j+1}; s is the sign of <v_j, x> <v_{j+1}, x>, without which the direction
        would depend on the arbitrary signs of v_j and v_{j+1}. ``momentum``: the same rotation of the
        momentum, by the angle whose chord is ``amount`` times the momentum's norm; norms are kept.
        ``close_gap``: a rotation towards equal energies in v_j and v_{j+1}, up or down, same chord.
        Controls, at the same norm: ``span``, a random direction in the span of the window (``step``) or a
        rotation of the momentum's part in it towards one; ``space``, the same in all of parameter space;
        ``none``.

        Args:
            kind: One of the three.
            position: The cut j, 1-indexed, or a control.
            amount: Relative norm; more than :meth:`largest_norm` is cut down to it.
            rng: Draws the random directions; not used for a cut.

        Returns:
            What was done, with the norm that came out of it. Source: derived.

        Raises:
            SettingError: On an unknown kind or position, or without momentum.
        """
        check_position(kind, position, len(self._directions))
        if not amount >= 0.0:
            raise SettingError(f"amount must be at least 0; got {amount}. It is relative: 1 is one update.")
        if position == "none":
            return Applied(kind, position, 0.0, 0.0, 0.0)
        if kind == "step":
            size = norm(self._last_update)
            change = self._kick(position, rng)
            change = combination([amount * size / norm(change)], [change])
            add_to(self._parameters, change)
            return Applied(kind, position, norm(change), norm(change) / size, 0.0)
        momentum = Momentum(self._parameters, self._optimizers, metric=self._metric)
        u = momentum.read()
        size = norm(u)
        change, angle = self._rotation(kind, position, min(amount, self.largest_norm(kind, position)) * size, u, rng)
        momentum.add(change)
        return Applied(kind, position, norm(change), norm(change) / size, angle)

    def _contents(self, position: int, x: Vector) -> tuple[float, float]:
        return dot(self._directions[position - 1], x), dot(self._directions[position], x)

    def _kick(self, position: Position, rng: np.random.Generator) -> dict[str, Tensor]:
        if position == "space":
            return random_vector(self._parameters, rng)
        if position == "span":
            return combination(rng.standard_normal(len(self._directions)), self._directions)
        assert isinstance(position, int)
        a, b = self._contents(position, self._last_update)
        if a == b == 0.0:
            a = 1.0  # the update has no part in the plane: any direction there is as good
        pair = self._directions[position - 1 : position + 1]
        return combination([-abs(b) * _sign(a), abs(a) * _sign(b)], pair)

    def _rotation(
        self, kind: Kind, position: Position, chord: float, u: Vector, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], float]:
        if isinstance(position, int):
            a, b = self._contents(position, u)
            radius = math.hypot(a, b)
            angle = _angle(chord, radius)
            if kind == "close_gap":
                angle = math.copysign(angle, _angle_to_equal(a, b))
            along, across = math.cos(angle) - 1.0, math.sin(angle)
            pair = self._directions[position - 1 : position + 1]
            change = [along * a - across * abs(b) * _sign(a), along * b + across * abs(a) * _sign(b)]
            return combination(change, pair), angle
        if position == "span":
            c = np.array([dot(v, u) for v in self._directions])
            radius = float(np.linalg.norm(c))
            e = rng.standard_normal(len(c))
            e -= c * (c @ e) / radius**2
            e /= np.linalg.norm(e)
            angle = _angle(chord, radius)
            return combination((math.cos(angle) - 1.0) * c + math.sin(angle) * radius * e, self._directions), angle
        radius = norm(u)
        e_all = random_vector(u, rng)
        e_all = combination([1.0, -dot(e_all, u) / radius**2], [e_all, u])
        angle = _angle(chord, radius)
        return combination([math.cos(angle) - 1.0, math.sin(angle) * radius / norm(e_all)], [u, e_all]), angle


def window_directions(
    monitor: Monitor, window: int
) -> tuple[NDArray[np.float64], list[dict[str, Tensor]], dict[str, Tensor]]:
    """Resolved singular values, their directions, and the newest update of a monitor's last window.

    Args:
        monitor: With at least ``window`` updates in its ring.
        window: W.

    Returns:
        sigma (R,) with R <= W [parameter]; R unit vectors shaped as the parameters; the newest update.

    Raises:
        SettingError: If the ring does not hold the window yet.
    """
    sigma, coefficients = monitor.directions(window)
    resolved = np.isfinite(coefficients).all(axis=0) & (sigma > 0.0)
    n = len(sigma) if resolved.all() else int(np.argmin(resolved))
    vectors = []
    for j in range(n):
        v = monitor.ring.combine(coefficients[:, j])
        # Unit up to the ring's rounding, which grows as sigma_1 / sigma_j; made unit so that norms are equal.
        vectors.append(combination([1.0 / norm(v)], [v]))
    return np.asarray(sigma[:n]), vectors, monitor.ring.combine(np.eye(window)[0])


def parameters_like(model: nn.Module, vector: Vector) -> dict[str, Tensor]:
    """The model's parameters under the names of ``vector``."""
    return {name: parameter for name, parameter in model.named_parameters() if name in vector}


def check_position(kind: str, position: object, n_directions: int) -> None:
    """Refuse a kind or position that cannot be.

    Raises:
        SettingError: If the kind is unknown, or the position no cut among ``n_directions`` and no control.
    """
    if kind not in get_args(Kind):
        raise SettingError(f"kind must be one of {', '.join(get_args(Kind))}; got {kind!r}. The default is step.")
    cut = isinstance(position, int | np.integer) and 1 <= position < n_directions
    if not cut and position not in CONTROLS:
        raise SettingError(
            f"position must be a cut in 1..{n_directions - 1} or one of {', '.join(CONTROLS)}; got {position!r}. "
            "A cut j lies between directions j and j + 1, which must both be resolved."
        )


def _sign(x: float) -> float:
    return math.copysign(1.0, x)


def _angle(chord: float, radius: float) -> float:
    return 2.0 * math.asin(min(1.0, chord / (2.0 * radius))) if radius > 0.0 else 0.0


def _angle_to_equal(a: float, b: float) -> float:
    """Rotation from v_j to v_{j+1} that makes |<v_j, x>| = |<v_{j+1}, x>|; negative where v_{j+1} holds more."""
    return math.pi / 4 - math.atan2(abs(b), abs(a))
