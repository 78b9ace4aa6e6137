"""The error of a sketch, measured: an exact ring beside it for a few windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import SettingError
from ..recording.derive import window_grams
from ..theory.gap import gap_position, gap_ratio
from ..theory.sketch import relative_error
from ..theory.spectrum import gram_spectrum
from .blocks import Blocks
from .ring import UpdateRing


class SketchCheck:
    """An exact ring of W - 1 lags, there only while a window is compared.

    Args:
        blocks: The partition.
        window: W.
        first: Windows compared from the start.
        every: Also every so many windows; 0 for never again.

    Raises:
        SettingError: If there is no window to compare.
    """

    def __init__(self, blocks: Blocks, window: int | None, first: int, every: int) -> None:
        if window is None or window < 2 or first < 0 or every < 0:
            raise SettingError(
                f"a check of the sketch needs a window of at least 2 and counts of at least 0; got window={window}, "
                f"check={first}, check_every={every}. Use sketch_check=2."
            )
        self._blocks, self._window, self._first, self._every = blocks, window, first, every
        self._exact: UpdateRing | None = None
        self._rows = 0
        self._bands: list[tuple[np.ndarray, np.ndarray]] = []  # (W) products of "all": exact, sketched
        self._notes: list[Comparison] = []
        self._stopped = False
        self._done: UpdateRing | None = None  # made the sums whose row is still to come

    @property
    def nbytes(self) -> int:
        """Bytes of the exact ring while it is there."""
        return 0 if self._exact is None else self._exact.nbytes

    def reset(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Begin anew at a snapshot."""
        self._rows, self._bands, self._exact = 0, [], None
        self._begin(tensors)

    def stop(self) -> None:
        """Never compare again."""
        self._stopped, self._exact, self._bands = True, None, []

    def sums(self, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        """(B, C) sums of the exact ring, which add up over ranks; no columns where none is there."""
        self._rows += 1
        found = np.empty((len(self._blocks.names), 0))
        if self._exact is not None:
            found = self._exact.sums(tensors)
        if self._rows % self._window == 0:
            # the row of this snapshot still needs to know how to read the sums
            self._done, self._exact = self._exact, None
            self._begin(tensors)
        else:
            self._done = self._exact
        return found

    def row(self, sums: np.ndarray, sketched: np.ndarray) -> None:
        """Take the exact sums of all ranks beside the (B, L+1) sketched products of the same update."""
        ring, self._done = self._done, None
        if ring is None or self._stopped:
            return
        exact = ring.row(sums).products.sum(axis=0)
        mine = np.full(self._window, np.nan)
        n = min(self._window, sketched.shape[1])
        mine[:n] = sketched.sum(axis=0)[:n]
        self._bands.append((exact[: self._window], mine))
        if len(self._bands) == self._window:
            self._compare()
            self._bands = []

    def take(self) -> list[Comparison]:
        """Findings since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def _begin(self, tensors: Mapping[str, torch.Tensor]) -> None:
        number = self._rows // self._window
        due = number < self._first or (self._every > 0 and number % self._every == 0)
        if due and not self._stopped:
            self._exact = UpdateRing(self._blocks, tensors, max(1, self._window - 1), store="host")

    def _compare(self) -> None:
        exact, mine = (window_grams(np.stack(band), self._window)[0] for band in zip(*self._bands, strict=True))
        if np.isfinite(exact).all() and np.isfinite(mine).all():
            self._notes.append(compare(exact, mine))


@dataclass(frozen=True)
class Comparison:
    """How far the sketched Gram of a window is off.

    Attributes:
        window: W.
        product_error: Root mean square of the errors of products, over ``||a|| ||b||``.
        sigma_error: Largest relative error of a resolved singular value; NaN where none is.
        position: Guarded k* of the exact Gram; 0 where there is none.
        position_sketched: The same of the sketched one.
        gap_error: Relative error of the ratio at the exact k*; NaN where there is none.
    """

    window: int
    product_error: float
    sigma_error: float
    position: int
    position_sketched: int
    gap_error: float

    def as_event(self, size: int) -> dict[str, object]:
        """Fields of the event that records it: the error of sigma against the bound that its law gives."""
        return {
            "block": "all",
            "event_kind": "sketch_checked",
            "value": self.sigma_error,
            "threshold": relative_error(self.window, size),
            "detector": "sketch",
            "detail": (
                f"beside an exact ring: products off by {100 * self.product_error:.2g} % of ||a|| ||b|| (law: "
                f"{100 * size**-0.5:.2g} to {100 * (2 / size) ** 0.5:.2g} %), sigma by at most "
                f"{100 * self.sigma_error:.2g} %, "
                f"the ratio at k* by {100 * self.gap_error:.2g} %; k* is {self.position}, sketched "
                f"{self.position_sketched}"
            ),
        }


def compare(exact: np.ndarray, sketched: np.ndarray) -> Comparison:
    """Hold a sketched Gram against the exact one.

    Args:
        exact: (W, W) products of the updates.
        sketched: (W, W) products of their sketches.

    >>> compare(np.diag([4.0, 1.0]), np.diag([4.0, 1.0])).sigma_error
    0.0
    """
    norm = np.sqrt(np.diagonal(exact))
    scale = norm[:, None] * norm
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = ((sketched - exact) / scale)[scale > 0]
    true, found = gram_spectrum(exact), gram_spectrum(sketched)
    sigma, other = true.singular_values, found.singular_values
    position = gap_position(sigma, floor=true.floor)
    ratio = gap_ratio(sigma, position)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma_error = np.abs(other / sigma - 1)[true.resolved]
    return Comparison(
        window=len(exact),
        product_error=float(np.sqrt(np.mean(relative**2))) if relative.size else float("nan"),
        sigma_error=float(np.max(sigma_error)) if sigma_error.size else float("nan"),
        position=int(position),
        position_sketched=int(gap_position(other, floor=found.floor)),
        gap_error=float(abs(gap_ratio(other, position) / ratio - 1)) if position > 0 else float("nan"),
    )
