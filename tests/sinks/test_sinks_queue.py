"""A queue that never waits: slow, raising and hanging sinks, forks, and the end."""

from __future__ import annotations

import os
import threading
import time
import warnings
from typing import Any

import pytest
from sinks_runs import Collected, own_threads

from spectraledge.sinks.keys import DROPPED
from spectraledge.sinks.queue import SinkQueue, close_all


class Gate(Collected):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.waiting = threading.Event()

    def log(self, step: int, values: Any) -> None:
        self.waiting.set()
        self.open.wait(30)
        super().log(step, values)


class Raising(Collected):
    """Raises the first ``n`` times."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n
        self.tries = 0

    def log(self, step: int, values: Any) -> None:
        self.tries += 1
        if self.left:
            self.left -= 1
            raise ConnectionError("no route")
        super().log(step, values)


def test_everything_arrives_in_order_and_no_thread_is_left() -> None:
    sink = Collected()
    queue = SinkQueue(sink)
    for step in range(500):
        queue.put("log", step, {"a": float(step)})
    assert queue.close(10)
    assert sink.calls == [("log", step) for step in range(500)]
    assert sink.values[7] == {"a": 7.0, DROPPED: 0.0}
    assert (sink.closed, queue.dropped, own_threads()) == (1, 0, [])


def test_a_full_queue_drops_its_oldest_snapshots_and_counts_them() -> None:
    sink = Gate()
    queue = SinkQueue(sink, capacity=3)
    queue.put("log", 0, {})
    assert sink.waiting.wait(10)  # 0 is on its way
    queue.put("alert", "kept")
    for step in range(1, 6):
        queue.put("log", step, {})
    sink.open.set()
    assert queue.close(10)
    assert [step for _, step in sink.calls] == [0, 4, 5]
    assert (queue.dropped, sink.alerts) == (3, ["kept"])
    assert sink.values[5][DROPPED] == 3.0


def test_putting_never_waits_for_the_sink() -> None:
    queue = SinkQueue(Gate(), capacity=10)
    began = time.perf_counter()
    for step in range(1000):
        queue.put("log", step, {})
    assert time.perf_counter() - began < 1.0  # the sink itself would wait for 30 s
    queue.sink.open.set()
    queue.close(10)


def test_a_sink_that_recovers_loses_nothing() -> None:
    sink = Raising(2)
    queue = SinkQueue(sink, retries=3, backoff=0.01)
    queue.put("log", 1, {})
    with pytest.warns(RuntimeWarning, match="tracker collected raised.*no route"):
        assert queue.close(10)
    assert (sink.calls, sink.tries, queue.off) == ([("log", 1)], 3, False)


def test_a_sink_that_keeps_raising_is_switched_off_after_one_warning() -> None:
    sink = Raising(10**6)
    queue = SinkQueue(sink, retries=2, backoff=0.01)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for step in range(20):
            queue.put("log", step, {})
            time.sleep(0.005)
        queue.close(10)
    assert [warning.category for warning in warned] == [RuntimeWarning]
    assert (sink.tries, queue.off, queue.dropped) == (3, True, 20)
    assert own_threads() == []


def test_closing_does_not_sit_out_the_pauses() -> None:
    queue = SinkQueue(Raising(10**6), retries=3, backoff=60.0)
    queue.put("log", 1, {})
    began = time.perf_counter()
    with pytest.warns(RuntimeWarning):
        queue.close(20)
    assert time.perf_counter() - began < 5


def test_a_sink_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    stuck, fine = Gate(), Collected()
    queues = [SinkQueue(stuck), SinkQueue(fine)]
    for queue in queues:
        queue.put("log", 1, {})
        queue.put("log", 2, {})
    assert not close_all(queues, 0.2)
    assert [step for _, step in fine.calls] == [1, 2]
    assert queues[0].dropped == 2
    assert "left behind" in caplog.text
    thread = queues[0]._thread
    stuck.open.set()  # so that the test leaves no thread
    assert thread is not None
    thread.join(10)


def test_an_idle_thread_ends_and_the_next_item_starts_another() -> None:
    sink = Collected()
    queue = SinkQueue(sink, idle=0.05)
    for step in range(2):
        queue.put("log", step, {})
        deadline = time.monotonic() + 10
        while own_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert own_threads() == []
    assert queue.close(10)
    assert len(sink.calls) == 2


def test_a_forked_child_leaves_the_queue_alone() -> None:
    sink = Gate()
    queue = SinkQueue(sink)
    queue.put("log", 1, {})
    assert sink.waiting.wait(10)
    child = os.fork()
    if child == 0:  # no assertion may leave the child
        queue.put("log", 2, {})
        os._exit(0 if queue.close(5) and queue._thread is not None and not sink.closed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sink.open.set()
    assert queue.close(10)
    assert sink.calls == [("log", 1)]


def test_items_after_the_end_are_counted() -> None:
    queue = SinkQueue(Collected())
    assert queue.close(5)
    queue.put("log", 1, {})
    assert queue.close(5)
    assert queue.dropped == 1


def test_a_sink_may_have_log_alone() -> None:
    class Plain:
        steps: list[int] = []  # noqa: RUF012

        def log(self, step: int, values: Any) -> None:
            self.steps.append(step)

    queue = SinkQueue(Plain())
    queue.put("alert", "nobody")
    queue.put("rewind", 3)
    queue.put("log", 4, {})
    assert queue.close(10)
    assert Plain.steps == [4]
    assert queue.dropped == 0
