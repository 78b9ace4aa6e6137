"""The last W rows of a run, kept up record by record: the newest window as ``Recording.gram`` would give it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..recording import Recording
from ..recording.derive import window_grams

Array = np.ndarray


class RecentRows:
    """Rows that join to the newest one, at most W of them, for all parameters and for the largest blocks.

    Rows on the other side of a seam or of a change of structure make no window with later ones, so they are forgotten
    there. A rewind is rare and may need rows that were forgotten: the recording is read again.

    Args:
        window: W.
        n_groups: Largest number of blocks that are looked at one by one.
        recording: So far; a run may be joined midway.
        history: Gives the recording again, for rewinds.

    Attributes:
        groups: Names of the blocks looked at, in the order of the recording.
        n_left_out: Blocks that are not, in the current segment.
        n_parameters: Of all blocks together.
    """

    def __init__(self, window: int, n_groups: int, recording: Recording, history: Callable[[], Recording]) -> None:
        self.window = window
        self.n_groups = n_groups
        self.groups: list[str] = []
        self.n_left_out = 0
        self.n_parameters = 0
        self._history = history
        self._columns: list[int] = []
        # (t, band (1 + groups, <= W), squared norm of the row's error (1 + groups))
        self._rows: deque[tuple[int, Array, Array]] = deque(maxlen=window)
        self._dtype = "float32"  # of the current segment
        self._dtypes: set[str] = set()  # of those with rows
        self._reload(recording, rows=True)

    def take(self, kind: str, fields: Mapping[str, Any]) -> bool:
        """Take a record; whether it was a row."""
        if kind == "segment":
            self._rows.clear()
            self._open(fields)
        elif kind == "rewind":
            self._reload(self._history(), rows=bool(fields.get("ring", False)))
        elif kind == "row":
            self._push(fields)
            return True
        return False

    def grams(self) -> Array | None:
        """(1 + groups, W, W) products of the newest window, "all" first; None where it is not whole."""
        if len(self._rows) < self.window:
            return None
        band = np.stack([row for _, row, _ in self._rows])  # (W, 1 + groups, W)
        return np.moveaxis(window_grams(np.moveaxis(band, 1, 2), self.window)[0], -1, 0)

    @property
    def error_norm2(self) -> Array:
        """(1 + groups) squared norm of the errors that the rows of the window carry [parameter^2]."""
        return np.stack([error for _, _, error in self._rows], axis=-1).sum(axis=-1)

    @property
    def update_eps(self) -> float:
        """Relative rounding of the subtraction that made this row's update."""
        return 2.0**-53 if self._dtypes | {self._dtype} == {"float64"} else 2.0**-24

    def _push(self, fields: Mapping[str, Any]) -> None:
        t, products = int(fields["t"]), np.asarray(fields["products"], dtype=np.float64)[:, : self.window]
        while self._rows and self._rows[-1][0] >= t:
            self._rows.pop()
        if "seam" in (fields.get("flags") or ()) or (self._rows and self._rows[-1][0] != t - 1):
            self._rows.clear()
        self._dtypes.add(self._dtype)
        self._rows.append((t, self._gathered(products), self._errors(fields.get("error_norm2"), len(products))))

    def _gathered(self, blocks: Array) -> Array:
        """The sum over all blocks, then those looked at."""
        return np.concatenate([blocks.sum(axis=0, keepdims=True), blocks[self._columns]])

    def _errors(self, recorded: Any, n_blocks: int) -> Array:
        """Rows without a recorded error carry none."""
        errors = np.zeros(n_blocks) if recorded is None else np.asarray(recorded, dtype=np.float64)
        return np.nan_to_num(self._gathered(errors), nan=0.0, posinf=np.inf)

    def _open(self, segment: Mapping[str, Any]) -> None:
        names = [str(name) for name in segment["blocks"]]
        self._dtype = str(segment.get("update_dtype", "float32"))
        sizes = _sizes(segment.get("block_info") or ())
        self.n_parameters = int(segment.get("n_parameters") or sum(sizes.values()))
        single = [] if names == ["all"] else list(range(len(names)))
        largest = sorted(single, key=lambda b: (-sizes.get(names[b], 0), b))[: self.n_groups]
        self._columns = sorted(largest)
        self.groups = [names[b] for b in self._columns]
        self.n_left_out = len(single) - len(self._columns)

    def _reload(self, recording: Recording, *, rows: bool) -> None:
        """Go on from the recording: its last segment, and its last rows if the next one joins to them."""
        self._rows.clear()
        segments = recording.meta.get("segments", [])
        if not segments:
            return
        self._dtypes = {str(segments[i].get("update_dtype", "float32")) for i in np.unique(recording.segment)}
        self._open(segments[-1])
        if not rows or not recording.n_updates or recording.segment[-1] != len(segments) - 1:
            return
        first = max(int(recording.seams[-1]) if len(recording.seams) else 0, recording.n_updates - self.window)
        columns = [recording.blocks.index(name) for name in ("all", *self.groups)]
        for t in range(first, recording.n_updates):
            errors = np.zeros(len(columns)) if recording.error_norm2 is None else recording.error_norm2[t, columns]
            errors = np.nan_to_num(errors, nan=0.0, posinf=np.inf)
            self._rows.append((t, recording.products[t, columns, : self.window], errors))


def _sizes(info: Sequence[Any]) -> dict[str, int]:
    return {str(entry["name"]): int(entry.get("n_parameters") or 0) for entry in info if "name" in entry}
