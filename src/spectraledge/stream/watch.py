"""Events while the run goes on: every row is shown to the detectors, and callbacks hear what they report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..detect.stream import EventStream
from ..recording import Event

Callback = Callable[[Event], object]


class Watch:
    """Detectors on all parameters together, and who wants to know.

    Args:
        window: W of the windows they look at.
        detectors: Names, see ``spectraledge.detect.events.DETECTORS``; all where None.
    """

    def __init__(self, window: int, detectors: Sequence[str] | None = None) -> None:
        self._stream = EventStream(window=window, detectors=detectors)
        self._metrics: dict[str, float] = {}
        self._callbacks: list[Callback] = []

    def add(self, callback: Callback) -> None:
        """Call ``callback(event)`` at every event from now on."""
        self._callbacks.append(callback)

    def note(self, metrics: Mapping[str, float]) -> None:
        """Metrics logged since the last row."""
        self._metrics |= metrics

    @property
    def noted(self) -> dict[str, float]:
        """Metrics that the next row will be shown with."""
        return dict(self._metrics)

    def push(self, step: int, products: np.ndarray, *, seam: bool = False) -> list[Event]:
        """Events of one more update.

        Args:
            step: That ends it.
            products: (B, L+1) of the disjoint blocks.
            seam: Nothing joins it to the updates before.
        """
        metrics, self._metrics = self._metrics, {}
        return self._stream.push(step, products.sum(axis=0), seam=seam, metrics=metrics or None)

    def tell(self, events: Sequence[Event]) -> None:
        """Call the callbacks; one that raises is dropped with a warning, training goes on."""
        for event in events:
            for callback in list(self._callbacks):
                try:
                    callback(event)
                except Exception as error:
                    self._callbacks.remove(callback)
                    warnings.warn(
                        f"spectraledge dropped a callback that raised at step {event.step}. "
                        f"{type(error).__name__}: {error}",
                        RuntimeWarning,
                        stacklevel=2,
                    )

    def state(self) -> dict[str, Any]:
        """What the detectors remember, as values that JSON can hold."""
        return {"stream": self._stream.state(), "metrics": dict(self._metrics)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state()`` was taken."""
        self._stream.load_state(state["stream"])
        self._metrics = dict(state["metrics"])
