"""The rules that come with the package, and the detector ``grokking`` made of the one that won."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import DataError, SettingError
from ...recording.event import Event
from ..detectors import GROKKING
from .detector import GrokkingDetector
from .frozen import Frozen, load_frozen
from .history import block_parts

LEAST_HEAD = 2500
"""Parameters of a head below which noise alone passes the threshold.

W S of W independent rows has mean 1 and deviation sqrt(2 (W - 1) / (W P)); a rise by 0.139 above the smallest of some
150 values is then no rare thing. Of 60 runs of white noise, 200 rows each, 58 fire at P = 1,000, 25 at 1,677 (Dyck's
head), 4 at 2,500, none at 4,000 and more. Source: derived; records/precursor_noise.py.
"""


def shipped_file() -> Path:
    """Where the rules are that come with the package."""
    return Path(__file__).parent / "frozen.json"


@lru_cache(maxsize=1)
def shipped_rules() -> Frozen:
    """The rules that come with the package."""
    return load_frozen(shipped_file())


def grokking(callback: Callable[[Event], object] | None = None) -> GrokkingDetector:
    """Says hundreds of steps ahead that a network which has memorised is about to generalise.

    After memorising, updates of the head are independent of each other: ||sum of W||^2 / (W sum ||.||^2) is 1/W.
    The event is a rise of that by 15 % (0.139 in the logarithm) above its smallest value so far, three snapshots in
    a row, while the head moves at least half as fast as it uses to. The first 20 snapshots are not looked at, and no
    event comes within the first 42.

    Measured on 66 modular runs, a snapshot every 25 steps, whose seeds had no part in making the rule: the event is
    found in 36 of 36 runs that grok (95 %: 0.90 to 1), with 2 false alarms in 30 runs that cannot (0.01 to 0.22; none
    of 24 with weight decay, 2 of 6 without), median lead 925 steps (900 to 1050) before test accuracy 0.95. The norm
    of the parameters finds 30 of 36 with as many false alarms, 350 steps ahead; training loss, norms of updates and
    gradients and the clock find none; the test loss finds 36, 211 steps earlier.

    The threshold is that of these networks. On a head of fewer than some 2,500 effective dimensions noise passes it:
    in Dyck it fires in every run, placebos too. Without weight decay a collapsing loss fires it. See
    ``docs/does-the-edge-predict-grokking.md``.

    Args:
        callback: Called with the event.
    """
    return GrokkingDetector(shipped_rules(), callback=callback)


def start_grokking(segment: Mapping[str, Any]) -> GrokkingDetector:
    """The detector, knowing the structure of the rows to come; warns of a head in which noise will fire it.

    Raises:
        SettingError: If blocks do not tell the head apart, or there are too few lags.
    """
    try:
        detector = grokking()
        detector.start(segment)
    except DataError as error:
        raise SettingError(f"the detector {GROKKING!r} cannot run here: {error}") from error
    n = head_size(segment)
    if n is not None and n < LEAST_HEAD:
        warnings.warn(
            f"the detector {GROKKING!r} was made on heads of 12,513 parameters; this one has {n:,}, and below "
            f"{LEAST_HEAD:,} noise alone fires it. Do not trust its event.",
            RuntimeWarning,
            stacklevel=2,
        )
    return detector


def head_size(segment: Mapping[str, Any]) -> int | None:
    """Parameters of the head; None where a block does not say."""
    blocks = list(segment["blocks"])
    info = {entry["name"]: entry for entry in segment.get("block_info") or ()}
    sizes = [info.get(blocks[i], {}).get("n_parameters") for i in block_parts(blocks, info).get("head", ())]
    return sum(sizes) if sizes and all(isinstance(size, int) for size in sizes) else None
