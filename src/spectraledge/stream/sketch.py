"""A ring of sketched updates: products within a known error, and no memory of the parameters' size.

Every update is mapped to m numbers a block by one fixed random linear map S (a CountSketch). Products of sketches
estimate products of updates: unbiased, with variance at most ``(||a||^2 ||b||^2 + <a, b>^2) / m``. Singular values
of W sketched rows are off by a factor within ``1 +- (sqrt(W) + 3) / sqrt(m)`` (``theory.sketch``): the error is
relative, so weak modes are found as well as strong ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..errors import SettingError
from .blocks import Blocks
from .kernel import kernel_for
from .layout import Layout
from .pending import Pending
from .row import Row, finite
from .sketch_check import SketchCheck
from .sketcher import Sketcher
from .span import Vector

DEFAULT_SIZE = 16_384


class SketchRing:
    """The last ``lags`` updates as sketches; the interface of ``UpdateRing``.

    The sketch is linear, so that of an update is the difference of two of the parameters, taken in float64 (an update
    a millionth the size of the parameters keeps ten digits). Products of sketches do not add up over ranks, sketches
    do: ``sums`` returns what adds up, and ``row`` must be called once for each, on every rank, with the total. From
    the first row on the state is that of the whole vector, the same on every rank; the decay part of an interval that
    is not over is the rank's own.

    ``||theta||^2`` is exact, and so is ``<theta_t, delta_t>``, half of ``||theta_t||^2 - ||theta_{t-1}||^2 +
    ||delta_t||^2``, but for the estimated last term. Entries that did not change cannot be counted: NaN.

    Args:
        blocks: The partition of the local tensors.
        tensors: Local parameters by name.
        lags: L.
        decay: Whether the part of the update that decoupled weight decay makes is sketched, too.
        backend: ``"auto"``, ``"torch"`` or ``"compiled"``.
        size: m, a power of 2 from 2 to 2^24.
        layouts: Where local tensors lie in whole ones; missing ones are whole.
        seed: Of the hash: another seed is an independent sketch.
        check: Windows at the start of the run beside which an exact ring runs, to measure the error.
        check_every: Also every so many windows; 0 for never again.
        window: W of these windows, needed for ``check``.

    Raises:
        SettingError: If an argument cannot be.
    """

    store, precision, half, update_dtype = "sketch", "full", False, "float64"

    def __init__(
        self,
        blocks: Blocks,
        tensors: Mapping[str, torch.Tensor],
        lags: int,
        *,
        decay: bool = False,
        backend: str = "auto",
        size: int = DEFAULT_SIZE,
        layouts: Mapping[str, Layout | None] | None = None,
        seed: int = 0,
        check: int = 0,
        check_every: int = 0,
        window: int | None = None,
    ) -> None:
        if lags < 1:
            raise SettingError(f"lags must be at least 1; got {lags}. Use lags=2*window - 1.")
        check_size(size)
        kernel = kernel_for(backend, whole=True)
        self.blocks, self.lags, self.decay, self.size = blocks, lags, decay, size
        self._sketch = Sketcher(blocks, tensors, size.bit_length() - 1, kernel, layouts, seed)
        n_blocks = len(blocks.names)
        self._updates = np.zeros((lags, n_blocks, size))  # of the whole update, all ranks together
        self._before = np.zeros((n_blocks, size))  # of the last snapshot; before the first row of this rank's part
        self._norm2 = np.zeros(n_blocks)
        self._decay = np.zeros((n_blocks, size)) if decay else None  # of this rank's part
        self._check = SketchCheck(blocks, window, check, check_every) if check or check_every else None
        self._owed = False  # a row is still to be made of the last sums
        self.n_appended = 0
        self.reset(tensors)

    @property
    def backend(self) -> str:
        """``"compiled"`` or ``"torch"``."""
        return self._sketch.backend

    @property
    def sketch_size(self) -> int | None:
        """m."""
        return self.size

    @property
    def n_entries(self) -> int:
        """Numbers held: ``(lags + 1) B m``, one table more with decay."""
        return len(self.blocks.names) * self.size * (self.lags + (2 if self.decay else 1))

    @property
    def nbytes(self) -> int:
        """Bytes held; while a check is on, those of its exact ring as well."""
        return 8 * self.n_entries + (self._check.nbytes if self._check is not None else 0)

    def reset(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Forget all updates and take a new first snapshot."""
        self._before, scalars = self._sketch(tensors)
        self._norm2 = scalars[:, 0]
        if self._decay is not None:
            self._decay[:] = 0.0
        if self._check is not None:
            self._check.reset(tensors)
        self.n_appended, self._owed = 0, False

    def add_decay(self, name: str, tensor: torch.Tensor, factor: float) -> None:
        """Add ``factor * tensor`` to the decay part of the current update; called before every optimizer step."""
        if self._decay is not None:
            self._decay += factor * self._sketch({name: tensor})[0]

    def append(self, tensors: Mapping[str, torch.Tensor]) -> Row:
        """Form the newest update's sketch, return its products, store it."""
        return self.row(self.sums(tensors))

    def start(self, tensors: Mapping[str, torch.Tensor]) -> Pending:
        """``sums``; nothing of it is left for later."""
        pending = Pending(lambda: self.sums(tensors))
        pending.result()
        return pending

    def settle(self) -> None:
        """Nothing is ever under way."""

    def sums(self, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        """The newest update's sketch, which adds up over ranks.

        Args:
            tensors: Local parameters by name, as at construction.

        Returns:
            (B, C) float64: m numbers of the parameters, ``||theta_t||^2`` and the number of entries that are not
            finite; the first time after a reset m numbers and the squared norm of the snapshot before; with decay m
            of the decay part; while a check is on, the exact ring's sums.

        Raises:
            SettingError: If no row was made of the sums before.
        """
        if self._owed:
            raise SettingError("a row must be made of all sums of a sketch, in order; the last is missing. Call row.")
        now, scalars = self._sketch(tensors)
        parts = [now, scalars]
        if self.n_appended == 0:
            parts += [self._before, self._norm2[:, None]]
        if self._decay is not None:
            parts.append(self._decay.copy())
            self._decay[:] = 0.0
        if self._check is not None:
            parts.append(self._check.sums(tensors))
        self._owed = True
        return np.concatenate(parts, axis=1)

    def row(self, sums: np.ndarray) -> Row:
        """The row that the sketch of the whole update makes up, which is stored.

        Args:
            sums: As ``sums`` gives, or those of all ranks added.
        """
        m, n_blocks = self.size, len(self.blocks.names)
        now, norm2, nonfinite, at = sums[:, :m].copy(), sums[:, m].copy(), sums[:, m + 1].copy(), m + 2
        if self.n_appended == 0:
            self._before, self._norm2, at = sums[:, at : at + m], sums[:, at + m], at + m + 1
        decay = sums[:, at : at + m] if self.decay else None
        with np.errstate(invalid="ignore"):  # infinities cancel to NaN, which is what they are worth
            delta, increase = now - self._before, norm2 - self._norm2
        products = np.full((n_blocks, self.lags + 1), np.nan)
        decay_products = None if decay is None else products.copy()
        for lag, table in enumerate([delta, *(self._updates[slot] for slot in self._slots())]):
            products[:, lag] = (table * delta).sum(axis=1)
            if decay_products is not None:
                decay_products[:, lag] = (table * decay).sum(axis=1)
        self._updates[self.n_appended % self.lags] = delta
        self._before, self._norm2 = now, norm2
        self.n_appended += 1
        self._owed = False
        if self._check is not None:
            self._check.row(sums[:, at + (m if self.decay else 0) :], products)
        return Row(
            products=finite(products),
            theta_dot=finite((increase + products[:, 0]) / 2),
            theta_norm2=finite(norm2),
            unchanged=np.full(n_blocks, np.nan),
            nonfinite=nonfinite,
            decay_products=None if decay_products is None else finite(decay_products),
            decay_norm2=None if decay is None else finite((decay**2).sum(axis=1)),
        )

    def take_notes(self) -> list[dict[str, object]]:
        """Errors measured since the last call, as fields of events: one for each window beside an exact ring."""
        found = [] if self._check is None else self._check.take()
        return [note.as_event(self.size) for note in found]

    def error_norm2(self, window: int) -> float:
        """0: the error of a sketch is relative, see ``sketch_size``."""
        return 0.0

    def span_gram(self, window: int) -> np.ndarray:
        """(W, W) estimated products of the newest ``window`` updates, the newest first [parameter^2]."""
        rows = self._updates[self._slots()[:window]].reshape(min(window, self.n_appended, self.lags), -1)
        return rows @ rows.T

    def products_with(self, vector: Vector, *, lags: int | None = None) -> np.ndarray:
        """(B, L+1) estimated ``<x, delta_{t-l}>`` of a P-vector by name, on one rank; NaN where none is stored."""
        x = self._sketch(vector)[0]
        products = np.full((len(self.blocks.names), self.lags + 1), np.nan)
        for lag, slot in enumerate(self._slots()[:lags]):
            products[:, lag] = (self._updates[slot] * x).sum(axis=1)
        return products

    def combine(self, coefficients: np.ndarray) -> dict[str, torch.Tensor]:
        """Not possible.

        Raises:
            SettingError: Always.
        """
        raise SettingError(
            "a vector in the space of the parameters needs the updates themselves; a sketch keeps their products "
            'only. Use store="host" or store="file".'
        )

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The buffers themselves (not copies), by a stable name."""
        out = {
            "ring.sketch.updates": torch.from_numpy(self._updates),
            "ring.sketch.before": torch.from_numpy(self._before),
            "ring.sketch.norm2": torch.from_numpy(self._norm2),
        }
        if self._decay is not None:
            out["ring.sketch.decay"] = torch.from_numpy(self._decay)
        return out

    def load_state_tensors(self, state: Mapping[str, torch.Tensor], n_appended: int) -> None:
        """Restore the buffers that ``state_tensors`` gave; a check that was on is not resumed.

        Raises:
            SettingError: If the state was saved by a ring of another kind or size.
        """
        mine = self.state_tensors()
        saved = {name: tuple(t.shape) for name, t in state.items()}
        wanted = {name: tuple(t.shape) for name, t in mine.items()}
        if saved != wanted:
            raise SettingError(
                f"the saved ring must have this ring's layout {wanted}; got {saved}. "
                "Attach with the blocks, lags and options it was saved with."
            )
        for name, tensor in mine.items():
            tensor.copy_(state[name])
        if self._check is not None:
            self._check.stop()
        self.n_appended, self._owed = n_appended, False

    def _slots(self) -> list[int]:
        stored = min(self.n_appended, self.lags)
        return [(self.n_appended - 1 - lag) % self.lags for lag in range(stored)]


def check_size(size: int) -> int:
    """A size that buckets can have.

    Raises:
        SettingError: If it is no power of 2 from 2 to 2^24.

    >>> check_size(1024)
    1024
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 2 or size & (size - 1) or size > 1 << 24:
        near = 1 << max(1, min(24, round(float(np.log2(max(size, 2)))))) if isinstance(size, int) else DEFAULT_SIZE
        raise SettingError(f"sketch_size must be a power of 2 from 2 to 2^24; got {size!r}. Use sketch_size={near}.")
    return size
