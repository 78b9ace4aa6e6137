"""The command line: ``spectraledge demo | run | analyze | show | report | plan | list``. Holds no logic.

Exit status 0: done. 2: the user's mistake, told in one sentence on standard error. 1: a fault of ours.
"""

from __future__ import annotations

from .main import main

__all__ = ["main"]
