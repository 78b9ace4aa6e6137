"""Reads the pickles of checkpoints without running anything.

Python's unpickler imports what a pickle names and calls what it wants called. The machine behind ``unpickle`` has a
table of the exact names that checkpoints of weights need; each stands for a function of ours that notes what was
asked for. Any other name ends the reading.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from .header import BadFile
from .pickle_machine import Machine
from .pickle_types import Name, Stream, Table, Thing, thing

__all__ = ["Name", "Stream", "Table", "Thing", "thing", "unpickle"]


def unpickle(
    stream: Stream, names: Mapping[str, Name], persistent: Callable[[Any], Any] | None = None, counted: int = 0
) -> tuple[Any, int]:
    """What a pickle describes, in dictionaries, lists, tuples, numbers, text, and what the names' functions gave.

    Args:
        stream: At its first byte; left behind its last.
        names: By ``module.name``.
        persistent: Called with each persistent id.
        counted: Operations already spent on the same file.

    Returns:
        The object, and the operations spent.

    Raises:
        BadFile: If it is malformed, too large, or names anything else.
    """
    machine = Machine(stream, names, persistent, counted)
    try:
        return machine.run(), machine.counted
    except BadFile:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError, struct.error) as error:
        raise BadFile(f"it is corrupt: its pickle is malformed ({type(error).__name__})") from error
