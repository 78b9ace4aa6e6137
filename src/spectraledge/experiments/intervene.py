"""Interventions at a gap in any monitored run.

The claim under test: only a collapse at k* disrupts learning. So the two directions beside a cut j are mixed,
at the same norm for every cut and for random directions, and the training is left to go on. The changes
themselves are ``mixing``'s; forks and their comparison are ``intervene_study``'s.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from ..theory import gap_position
from .mixing import Applied, Kind, Mixer, Position, check_position, parameters_like, window_directions
from .momentum import Metric

if TYPE_CHECKING:
    from ..stream.monitor import Monitor

__all__ = ["Applied", "Intervention", "Kind", "Mixer", "Position", "parameters_like", "window_directions"]


class Intervention:
    """Mix two directions of a monitored run at given optimizer steps; made beside the monitor.

    Attach it after the monitor: the snapshot of a step is then taken before the change, and the change is
    part of the next update.

    Args:
        monitor: The run's monitor; its ring gives the directions.
        model: What is trained.
        optimizers: As given to ``attach``; the change is made after the last of them has stepped.
        kind: See :meth:`Mixer.apply`.
        position: A cut j, a control, or ``"gap"`` for the guarded k* of the moment.
        amount: Relative norm.
        steps: Optimizer steps, by the monitor's count, after which the change is made.
        window: W; the monitor's where None.
        metric: Where momentum is rotated.
        rng: Draws the controls' directions.

    Attributes:
        applied: (step, what was done) of every change so far.
    """

    def __init__(
        self,
        monitor: Monitor,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        kind: Kind,
        position: Position | Literal["gap"],
        amount: float,
        steps: Collection[int],
        window: int | None = None,
        metric: Metric = "update",
        rng: np.random.Generator,
    ) -> None:
        self.applied: list[tuple[int, Applied]] = []
        self._monitor, self._model, self._metric = monitor, model, metric
        self._optimizers = list(optimizers)
        self._kind, self._position, self._amount = kind, position, amount
        self._steps, self._rng = frozenset(steps), rng
        self._window = monitor.settings.window if window is None else window
        if position != "gap":
            check_position(kind, position, self._window)
        self._handle = self._optimizers[-1].register_step_post_hook(torch.compiler.disable(self._stepped))

    def remove(self) -> None:
        """Take the hook off."""
        self._handle.remove()

    def __enter__(self) -> Intervention:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _stepped(self, *_: object) -> None:
        if self._monitor.step not in self._steps:
            return
        sigma, directions, last_update = window_directions(self._monitor, self._window)
        position: Any = self._position
        if position == "gap":
            position = int(gap_position(sigma)) if len(sigma) > 1 else 0
            if position == 0:
                return  # no gap to mix at
        parameters = parameters_like(self._model, last_update)
        mixer = Mixer(parameters, self._optimizers, directions, last_update, metric=self._metric)
        done = mixer.apply(self._kind, position, self._amount, self._rng)
        self.applied.append((self._monitor.step, done))
