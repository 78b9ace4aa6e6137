"""The probes of a recording next to the windows that they were made in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..recording import Recording
from ..recording.probe import ProbeRecord
from ..theory.spectrum import GramSpectrum, gram_spectrum
from .windows import grams_ending_at

HINT = (
    "Run with --probe-every, or pass probe=spectraledge.Probe(train=..., val=...) and probe_every=... to "
    "spectraledge.attach."
)


@dataclass(frozen=True, eq=False)
class Probed:
    """N probes of one window length.

    Attributes:
        probes: (N) records, in order.
        t: (N) index of the update that ends at each.
        window: W.
        gram: (N, W, W) of the probed windows, over all blocks [parameter^2].
        spectrum: Of these.
        block: Probes whose windows may share updates: the block of a bootstrap, two windows long.
    """

    probes: tuple[ProbeRecord, ...]
    t: np.ndarray
    window: int
    gram: np.ndarray
    spectrum: GramSpectrum
    block: int

    def on_window(self, products: np.ndarray) -> np.ndarray:
        """(..., W), oldest update first, of products (..., L+1) with the updates, newest first."""
        return products[..., : self.window][..., ::-1]

    def steps(self) -> np.ndarray:
        """(N) optimizer step of each probe."""
        return np.array([probe.step for probe in self.probes], dtype=np.int64)


def probed(recording: Recording, *, followed: bool = False) -> Probed:
    """The probes of a recording; where window lengths differ, those of the most frequent one.

    Args:
        recording: The run.
        followed: Only probes whose next update was recorded in one piece.

    Raises:
        DataError: If there are none.
    """
    probes = [p for p in recording.probes if 0 <= p.t < recording.n_updates]
    if not probes:
        raise DataError(f"A recording must hold probes for curvature and the loss; it holds none. {HINT}")
    if followed:
        probes = [p for p in probes if p.next_products is not None and p.t + 1 < recording.n_updates]
        if not probes:
            raise DataError(
                "At least one probe must be followed by the next update in one piece; none is. "
                "Let the run go on for another snapshot after its last probe."
            )
    sizes, counts = np.unique([p.window for p in probes], return_counts=True)
    window = int(sizes[np.argmax(counts)])
    probes = [p for p in probes if p.window == window]
    t = np.array([p.t for p in probes], dtype=np.int64)
    gram = grams_ending_at(recording.band(), window, t)
    spacing = float(np.median(np.diff(t))) if len(t) > 1 else 1.0
    return Probed(
        probes=tuple(probes),
        t=t,
        window=window,
        gram=gram,
        spectrum=gram_spectrum(gram, update_eps=recording.update_eps),
        block=max(1, int(np.ceil(2 * window / max(spacing, 1.0)))),
    )
