"""From the records of a monitor to its trackers."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SettingError
from .alerts import Cooldown
from .queue import SinkQueue, close_all
from .spec import make_sinks
from .values import TrackedValues

if TYPE_CHECKING:
    from ..stream.monitor import Monitor


class Connection:
    """Trackers that hear a monitor; made by ``connect``. It closes with the monitor."""

    def __init__(
        self,
        queues: list[SinkQueue],
        values: TrackedValues | None,
        *,
        every: int,
        cooldown: Cooldown | None,
        timeout: float,
    ) -> None:
        self._queues = queues
        self._values = values
        self._every = every
        self._cooldown = cooldown
        self._timeout = timeout
        self._n_rows = 0
        self._closed = False
        atexit.register(self.close)  # a run that ends without detach

    @property
    def dropped(self) -> dict[str, int]:
        """Items that a tracker was not sent, by its name; trackers of one name are added up."""
        names = {queue.name for queue in self._queues}
        return {name: sum(q.dropped for q in self._queues if q.name == name) for name in sorted(names)}

    @property
    def errors(self) -> dict[str, Exception]:
        """The first error of every tracker that raised."""
        return {queue.name: queue.error for queue in self._queues if queue.error is not None}

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take a record of the monitor; returns without waiting, but for "close"."""
        if self._closed or self._values is None:
            return
        found = self._values.take(kind, fields)
        if found is not None:
            self._n_rows += 1
            if (self._n_rows - 1) % self._every == 0:
                self._put("log", *found)
        elif kind == "rewind":
            self._put("rewind", int(fields["step"]))
        elif kind == "event" and self._cooldown is not None:
            alert = self._cooldown.admit(fields)
            if alert is not None:
                self._put("alert", alert)
        elif kind == "close":
            self.close()

    def close(self) -> bool:
        """Deliver what waits and end the threads; safe to call twice. Whether all was delivered in time."""
        if self._closed:
            return True
        self._closed = True
        atexit.unregister(self.close)
        return close_all(self._queues, self._timeout)

    def _put(self, *item: Any) -> None:
        for queue in self._queues:
            queue.put(*item)


def connect(
    monitor: Monitor,
    sinks: Any,
    *,
    window: int | None = None,
    singular_values: int = 5,
    groups: int = 32,
    every: int = 1,
    alerts: bool = True,
    cooldown: float = 300.0,
    capacity: int = 1000,
    timeout: float = 10.0,
) -> Connection:
    """Show what a monitor records in one or several trackers.

    Numbers are those of the recording at the same step (``TrackedValues`` lists the keys). Each tracker has a bounded
    queue and a thread of its own: a slow one delays nothing, one that raises is switched off after a warning, and
    training and recording go on as without it. Events of detectors become alerts (``attach(..., events=True)``).
    ``monitor.detach()`` delivers what waits.

    Of several ranks the one that keeps the recording shows it; on the others this does nothing.

    Args:
        monitor: From ``attach``.
        sinks: A sink or several, by name or as objects; see ``make_sinks``.
        window: W of the windows shown; None for the monitor's.
        singular_values: How many sigma_j are sent.
        groups: Largest number of blocks with keys of their own.
        every: Send every n-th snapshot.
        alerts: Whether events become alerts.
        cooldown: Seconds between two alike alerts.
        capacity: Snapshots that may wait for a slow tracker; the oldest are dropped and counted.
        timeout: Longest time that ``detach`` waits for the trackers [s].

    Returns:
        The connection: ``dropped``, ``errors``, ``close()``.

    Raises:
        SettingError: If a sink or a number cannot be, or no run is active where one is needed.
        MissingDependencyError: If the library of a sink is not installed.
        OutputError: If a sink's folder or file cannot be written.

    Example:
        >>> import torch, spectraledge as se
        >>> from spectraledge.sinks import connect
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(8, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> seen = {}
        >>> with se.attach(model, optimizer, window=4, every=1) as monitor:
        ...     _ = connect(monitor, lambda step, values: seen.update({step: dict(values)}))
        ...     for _ in range(6):
        ...         model(torch.randn(16, 8)).square().mean().backward()
        ...         _ = optimizer.step()
        >>> sorted(seen), int(seen[6]["spectral_edge/k_star"]), int(monitor.recording.spectra(4).gap().position[-1])
        ([1, 2, 3, 4, 5, 6], 1, 1)
    """
    if every < 1 or capacity < 1 or cooldown < 0 or timeout < 0:
        raise SettingError(
            "every and capacity must be at least 1, cooldown and timeout at least 0; got "
            f"every={every}, capacity={capacity}, cooldown={cooldown}, timeout={timeout}."
        )
    try:
        recording = monitor.recording
    except SettingError:  # one rank of several keeps it; the others have nothing to show
        return Connection([], None, every=every, cooldown=None, timeout=timeout)
    values = TrackedValues(
        window if window is not None else monitor.settings.window,
        monitor.settings.lags,
        recording,
        lambda: monitor.recording,
        singular_values=singular_values,
        groups=groups,
    )
    queues = [SinkQueue(sink, capacity=capacity) for sink in make_sinks(sinks)]
    connection = Connection(
        queues, values, every=every, cooldown=Cooldown(cooldown) if alerts else None, timeout=timeout
    )
    monitor.on_record(connection.take)
    return connection
