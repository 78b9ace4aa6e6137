"""Live display of the demo: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..demo import Progress
from ..errors import SpectralEdgeError

_PLAIN_EVERY = 500  # steps between plain lines of one arm


@contextmanager
def display(out: Path) -> Iterator[Any]:
    """A function that shows the state of the arms, for ``demo(show=...)``; writes to standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), refresh_per_second=2) as live:
            yield lambda state: live.update(_table(out, state))
        return
    said: dict[str, int] = {}

    def show(state: dict[str, Progress]) -> None:
        for name, arm in state.items():
            if arm.step // _PLAIN_EVERY > said.get(name, 0):
                said[name] = arm.step // _PLAIN_EVERY
                sys.stderr.write("  ".join([f"{name:<9}", *_cells(out / name, arm)]) + "\n")

    yield show


def _table(out: Path, state: dict[str, Progress]) -> Any:
    from rich.table import Table

    table = Table("run", "step", "train / test", "capability", "sigma 1, 2, 3", "time left", box=None, pad_edge=False)
    for name, arm in state.items():
        table.add_row(name, *_cells(out / name, arm))
    return table


def _cells(folder: Path, arm: Progress) -> list[str]:
    metrics = arm.metrics
    left = arm.seconds_left
    return [
        f"step {arm.step:,}/{arm.steps:,}" if arm.step else "starting",
        "loss " + " / ".join(f"{metrics[name]:.3g}" for name in ("train_loss", "test_loss") if name in metrics),
        f"test accuracy {100 * metrics['test_accuracy']:.1f} %" if "test_accuracy" in metrics else "",
        f"sigma {_sigma(folder, arm.step)}",
        "done" if arm.finished else "" if left is None else time.strftime("%M:%S left", time.gmtime(left)),
    ]


_last: dict[Path, tuple[int, str]] = {}


def _sigma(folder: Path, step: int) -> str:
    """Leading singular values of the last window, read from the recording while it grows, once an evaluation."""
    if folder in _last and _last[folder][0] == step:
        return _last[folder][1]
    from ..recording import load

    try:
        values = load(folder).spectra(10).singular_values
        text = ", ".join(f"{s:.3g}" for s in values[-1][:3]) if np.isfinite(values[-1]).all() else "-"
    except SpectralEdgeError:  # nothing recorded yet
        text = "-"
    _last[folder] = (step, text)
    return text
