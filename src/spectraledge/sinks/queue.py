"""One thread for every tracker, behind a queue that never makes the training wait."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from .keys import DROPPED

logger = logging.getLogger("spectraledge")
Item = tuple[Any, ...]  # ("log", step, values), ("alert", alert) or ("rewind", step)


class SinkQueue:
    """Items for one sink, delivered in order by a daemon thread that lives while there is something to deliver.

    A full queue drops its oldest snapshot and counts it. A sink that raises is warned about once and tried again
    with growing pauses; if that does not help, it is switched off and everything for it is dropped. In a forked
    child every method does nothing: the thread is the parent's.

    Args:
        sink: The tracker, see ``Sink``.
        capacity: Items that may wait.
        retries: Further tries of an item that raised.
        backoff: Pause before the first of them [s]; each later one is twice as long.
        idle: The thread ends when nothing has come for so long [s]; the next item starts another.
    """

    def __init__(
        self, sink: Any, *, capacity: int = 1000, retries: int = 3, backoff: float = 0.5, idle: float = 10.0
    ) -> None:
        self.sink = sink
        self.name = str(getattr(sink, "name", type(sink).__name__))
        self.dropped = 0
        self.off = False
        self.error: Exception | None = None
        self._capacity, self._retries, self._backoff, self._idle = capacity, retries, backoff, idle
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._warned = False
        self._pid = os.getpid()

    def put(self, *item: Any) -> None:
        """Hand an item over; returns at once, whatever the sink does."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            if self.off or self._closing:
                self.dropped += 1
                return
            if len(self._items) >= self._capacity:
                self._drop_one()
            self._items.append(item)
            if self._thread is None:
                self._start()
            self._changed.notify()
        self._warn()

    def begin_close(self) -> None:
        """Take nothing more, and deliver what waits without pauses."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._hurry.set()
            if self._thread is None:
                self._start()
            self._changed.notify()

    def close(self, timeout: float = 10.0) -> bool:
        """Deliver what waits, close the sink and end the thread.

        Args:
            timeout: Longest time that this takes [s]. A sink that takes longer loses what still waits.

        Returns:
            Whether all was delivered in time.
        """
        if os.getpid() != self._pid:
            return True
        self.begin_close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        in_time = self._thread is None
        if not in_time:
            with self._changed:
                self.off = True
                self.dropped += len(self._items) + 1
                self._items.clear()
            logger.warning("tracker %s did not finish within %g s and was left behind", self.name, timeout)
        self._warn()
        if self.dropped:
            logger.warning("tracker %s was not sent %d items; the recording has them all", self.name, self.dropped)
        return in_time

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"spectraledge-{self.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is shutting down: no new thread, and nobody left to wait
            self._thread = None
            self._run_inline()

    def _run_inline(self) -> None:
        while self._items and not self.off:
            self._deliver(self._items.popleft())
        if self._closing:
            self._close_sink()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._items and not self._closing:
                    self._changed.wait(self._idle)
                    if not self._items and not self._closing:
                        self._thread = None
                        return
                item = self._items.popleft() if self._items else None
            if item is None:
                break
            self._deliver(item)
        self._close_sink()
        with self._changed:
            self._thread = None

    def _deliver(self, item: Item) -> None:
        for attempt in range(self._retries + 1):
            try:
                self._call(item)
                return
            except Exception as error:
                self.error = self.error or error
            if self.off or attempt == self._retries:
                break
            self._hurry.wait(self._backoff * 2.0**attempt)
        with self._changed:
            if self.off:
                return
            self.off = True
            self.dropped += len(self._items) + 1
            self._items.clear()
        logger.warning("tracker %s was switched off after %d tries", self.name, self._retries + 1)

    def _call(self, item: Item) -> None:
        kind, *arguments = item
        if kind == "log":
            step, values = arguments
            self._count(self.sink.log(step, {**values, DROPPED: float(self.dropped)}))
        else:
            method: Callable[..., Any] | None = getattr(self.sink, kind, None)
            if method is not None:
                method(*arguments)

    def _close_sink(self) -> None:
        close = getattr(self.sink, "close", None)
        try:
            if close is not None:
                self._count(close())
        except Exception as error:
            self.error = self.error or error

    def _count(self, replaced: Any) -> None:
        if isinstance(replaced, int) and replaced:
            with self._changed:
                self.dropped += replaced

    def _drop_one(self) -> None:
        """Drop the oldest snapshot; an alert or a rewind only where nothing else waits."""
        oldest = next((i for i, item in enumerate(self._items) if item[0] == "log"), 0)
        del self._items[oldest]
        self.dropped += 1

    def _warn(self) -> None:
        """Warn in the thread of the caller: a warning turned into an error must not end the sink's own."""
        if self.error is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"tracker {self.name} raised; it is tried again, then switched off. Training and recording go on. "
                f"{type(self.error).__name__}: {self.error}",
                RuntimeWarning,
                stacklevel=3,
            )


def close_all(queues: list[SinkQueue], timeout: float) -> bool:
    """Close several at once, all within ``timeout`` [s]; whether every one was in time."""
    for queue in queues:
        queue.begin_close()
    deadline = time.monotonic() + timeout
    # a list: every one is closed, also after a late one
    in_time = [queue.close(max(0.05, deadline - time.monotonic())) for queue in queues]
    return all(in_time)
