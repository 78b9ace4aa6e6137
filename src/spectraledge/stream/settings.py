"""How a run is monitored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .blocks import BlockScheme
from .parameters import ParameterFilter
from .probe import Probe
from .sketch import DEFAULT_SIZE


@dataclass(frozen=True)
class Settings:
    """How a run is monitored; checked once, in ``_attach.py``, whose arguments most of these are.

    Attributes:
        ranks: ``"all"`` ranks of the default process group train one model, or each trains one ``"alone"``.
        rank_timeout: Seconds that ranks wait for each other; None means 600.
        folder: Of the ring's file, where it has one.
    """

    window: int
    every: int
    lags: int
    blocks: BlockScheme
    params: ParameterFilter | None
    heads: int | Mapping[str, int] | None
    decay_products: bool
    store: str
    backend: str
    on_error: str
    probe: Probe | None = None
    probe_every: int = 0
    events: bool | tuple[str, ...] = False
    ranks: str = "all"
    rank_timeout: float | None = None
    precision: str = "full"
    sketch_size: int = DEFAULT_SIZE
    sketch_check: int = 0
    folder: Path | None = None
