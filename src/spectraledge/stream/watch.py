"""Events while the run goes on: every row is shown to the detectors, and callbacks hear what they report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..detect.detectors import GROKKING, without_grokking
from ..detect.stream import EventStream
from ..recording import Event

if TYPE_CHECKING:
    from ..detect.precursors.detector import GrokkingDetector

Callback = Callable[[Event], object]


class Watch:
    """Detectors on all parameters together, the one of grokking on the head, and who wants to know.

    Args:
        window: W of the windows that the former look at.
        detectors: Names, see ``spectraledge.detect.events.DETECTORS``, or "grokking"; all the former where None.
        segment: Structure of the rows to come, as recorded.

    Raises:
        SettingError: If there is no such detector, or the one of grokking cannot read these rows.
    """

    def __init__(self, window: int, detectors: Sequence[str] | None, segment: Mapping[str, Any]) -> None:
        self._ahead: GrokkingDetector | None = None
        detectors, looks_ahead = without_grokking(detectors)
        if looks_ahead:
            from ..detect.precursors.shipped import start_grokking  # half a second of scipy, for those who ask for it

            self._ahead = start_grokking(segment)
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

    def start(self, segment: Mapping[str, Any]) -> None:
        """The structure of the rows to come has changed.

        Raises:
            DataError: If a detector cannot go on with it.
        """
        if self._ahead is not None:
            self._ahead.start(segment)

    def push(self, row: Mapping[str, Any], *, seam: bool = False) -> list[Event]:
        """Events of one more update.

        Args:
            row: Fields of its record.
            seam: Nothing joins it to the updates before.
        """
        metrics, self._metrics = self._metrics, {}
        products = np.asarray(row["products"]).sum(axis=0)
        events = self._stream.push(row["step"], products, seam=seam, metrics=metrics or None)
        if self._ahead is not None:
            events += self._ahead.push({**row, "flags": ["seam"] if seam else []})
        return events

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
        ahead = {} if self._ahead is None else {GROKKING: self._ahead.state()}
        return {"stream": self._stream.state(), "metrics": dict(self._metrics), **ahead}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state()`` was taken."""
        self._stream.load_state(state["stream"])
        self._metrics = dict(state["metrics"])
        if self._ahead is not None and GROKKING in state:
            self._ahead.load_state(state[GROKKING])
