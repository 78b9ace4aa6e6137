"""One run of a grid, before it runs: what would be typed for it, and the name of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import SettingError
from ..config import configure
from ..settings import TrainingSettings


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        folder: Name of its folder inside the grid's; distinct within a grid.
        experiment: A name of the catalogue.
        seed: Of initialisation, data split and batches.
        arm: What the run is compared as: "decay", "no-decay", "placebo", an optimizer, a width.
        settings: The experiment's settings that differ from its defaults.
        monitor: Arguments of the recording: window, every, lags, blocks, decay_products, probe_every, probe.
    """

    folder: str
    experiment: str
    seed: int
    arm: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    monitor: Mapping[str, Any] = field(default_factory=dict)

    def configure(self) -> tuple[TrainingSettings, dict[str, Any]]:
        """Validated settings and the content of ``config.json``, as for a run of its own.

        Raises:
            SettingError: On an unknown experiment or setting, or a value out of range.

        Example:
            >>> Cell("a", "modular/add", 7, settings={"p": 13}).configure()[1]["settings"]["seed"]
            7
        """
        return configure(self.experiment, seed=self.seed, settings=self.settings, **self.monitor)

    def with_settings(self, settings: Mapping[str, object]) -> Cell:
        """The same cell, ``settings`` taking the place of its own."""
        return replace(self, settings={**self.settings, **settings})


def check_cells(cells: Sequence[Cell]) -> None:
    """Raise where a grid has no cell, or two of one folder, or a folder that leads out of the grid's.

    Raises:
        SettingError: As said.
    """
    if not cells:
        raise SettingError("a grid must have a run; got none. Give cells, or another pattern.")
    seen: set[str] = set()
    for cell in cells:
        if cell.folder in seen or cell.folder in ("", ".", "..") or "/" in cell.folder or "\\" in cell.folder:
            raise SettingError(
                f"folders of a grid must be plain names, each once; got {cell.folder!r}. Name it after arm and seed."
            )
        seen.add(cell.folder)
