"""How far long work has come: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_SECONDS = 10.0  # between two plain lines: a log of hours stays readable


class Progress:
    """A context manager whose ``update`` may be called as often as one likes.

    Args:
        label: What is being done.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._task: Any = None
        self._last = time.monotonic()
        self._told = -1

    def update(self, done: int, total: int, note: str = "") -> None:
        """Tell that ``done`` of ``total`` are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif time.monotonic() - self._last >= _SECONDS or (done >= total and done != self._told):
            self._last, self._told = time.monotonic(), done
            sys.stderr.write(f"{self._label}: {done} of {total} {note}".rstrip() + "\n")
            sys.stderr.flush()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(file=sys.stderr),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
