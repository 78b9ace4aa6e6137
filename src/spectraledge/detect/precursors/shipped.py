"""The rules that come with the package, and the detector ``grokking`` made of the one that won."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import DataError, SettingError
from ...recording.event import Event
from .detector import GROKKING, GrokkingDetector
from .frozen import Frozen, load_frozen


def shipped_file() -> Path:
    """Where the rules are that come with the package."""
    return Path(__file__).parent / "frozen.json"


@lru_cache(maxsize=1)
def shipped_rules() -> Frozen:
    """The rules that come with the package."""
    return load_frozen(shipped_file())


def grokking(callback: Callable[[Event], object] | None = None) -> GrokkingDetector:
    """Says hundreds of steps ahead that a network that has memorised is about to generalise.

    FIGURES

    Args:
        callback: Called with the event.
    """
    return GrokkingDetector(shipped_rules(), callback=callback)


def check_readable(segment: Mapping[str, Any]) -> None:
    """Refuse rows that the detector cannot read, before there are any.

    Raises:
        SettingError: If blocks do not tell the head apart, or there are too few lags.
    """
    try:
        grokking().start(segment)
    except DataError as error:
        raise SettingError(f"the detector {GROKKING!r} cannot run here: {error}") from error
