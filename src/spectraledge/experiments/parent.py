"""Processes that end with the one that started them: a killed study must not go on behind one's back."""

from __future__ import annotations

import os
import threading
import time


def end_with(parent: int, seconds: float = 2.0) -> None:
    """End this process, without a word, once ``parent`` is no longer its parent.

    Args:
        parent: Process number that this process expects to be started by; where another one already is its parent,
            it ends at once.
        seconds: Between two looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
