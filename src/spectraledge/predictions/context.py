"""What several predictions look at, computed once a run: spectra, and null histories fitted to the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..dynamics.windows import grams_ending_at
from ..errors import DataError, SettingError
from ..recording import Spectra
from ..theory.surrogates import NullKind, fit_null
from ..theory.window_series import moving_grams
from .runs import Run

Array = NDArray[np.float64]
Mode = Literal["strict", "author", "both"]

NULLS: tuple[NullKind, ...] = ("norm_matched", "constant_drift", "smooth_drift")
"""Rows of the observed norms in random directions; the same around one common direction; around a turning one."""

# Histories of a null are cut to this many rows, and drawn a few at a time: 20 of 300 x 300 take 15 MB.
_MOST_ROWS, _CHUNK = 300, 20


@dataclass(eq=False)
class Context:
    """Settings of a judgement, and what has been computed so far.

    Attributes:
        window: Rows W.
        stride: Updates in a row.
        block: Block or pattern.
        draws: Histories of each null.
        seed: Of draws, intervals and permutations.
        mode: Which of the two sides are wanted; both are always computed where that is cheap.
    """

    window: int = 10
    stride: int = 1
    block: str = "all"
    draws: int = 99
    seed: int = 0
    mode: Mode = "both"
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in ("strict", "author", "both"):
            raise SettingError(f"mode must be strict, author or both; got {self.mode!r}. The default is both.")
        if self.window < 3 or self.draws < 19:
            raise SettingError(
                f"window must be at least 3 and draws at least 19; got {self.window} and {self.draws}. "
                "Use window=10 and draws=99."
            )

    def rng(self, *words: int) -> np.random.Generator:
        """A generator of its own for every use: the same judgement gives the same numbers in any order."""
        return np.random.default_rng([self.seed, *words])

    def spectra(self, run: Run) -> Spectra:
        """Spectra of all windows of a run.

        Raises:
            DataError: If the run is shorter than a window.
        """
        return self.kept(("spectra", id(run)), lambda: run.recording.spectra(self.window, self.stride, self.block))

    def whole(self, run: Run) -> NDArray[np.intp]:
        """(N) indices of the windows that are complete."""
        return np.flatnonzero(np.isfinite(self.spectra(run).singular_values).all(axis=1))

    def null_singular_values(self, run: Run, kind: NullKind) -> Array:
        """(draws, N, W) singular values of all windows of histories drawn from a null fitted to the run.

        Histories have the run's length, at most 300 rows: its first.

        Raises:
            DataError: If the run does not tell the effective dimension of its noise, or is shorter than a window.
        """
        return self.kept(("null", id(run), kind), lambda: self._draw(run, kind))

    def null_pass_rate(self, run: Run, kind: NullKind, passes: Callable[[Array], bool]) -> float:
        """Share of null histories of which ``passes`` is true; it is given (N, W) singular values."""
        return float(np.mean([bool(passes(history)) for history in self.null_singular_values(run, kind)]))

    def largest_null_pass_rate(self, runs: Sequence[Run], passes: Callable[[Array], bool]) -> tuple[str, float]:
        """The null that passes most often, and how often: the mean over runs; ("", NaN) where none can be drawn."""
        best = ("", float("nan"))
        for kind in NULLS:
            rates = []
            for run in runs:
                try:
                    rates.append(self.null_pass_rate(run, kind, passes))
                except DataError:
                    continue
            if rates and not best[1] >= np.mean(rates):
                best = (kind, float(np.mean(rates)))
        return best

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """``make()``, computed once for this key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _draw(self, run: Run, kind: NullKind) -> Array:
        spectra = self.spectra(run)
        rows = run.recording.band(self.block, stride=self.stride)
        whole = _longest_stretch(np.isfinite(rows[:, 0]) & (rows[:, 0] > 0))
        rows = rows[whole][:_MOST_ROWS]
        known = spectra.p_eff[np.isfinite(spectra.p_eff)]
        if not len(known) or len(rows) < self.window:
            raise DataError(
                f"a null must know the effective dimension of the noise; {run.name} does not tell it. "
                "Record a longer run without seams."
            )
        gram = grams_ending_at(rows, len(rows), np.array([len(rows) - 1]))[0]
        correlation = np.zeros(len(gram))  # momentum reaches no further than two windows
        n_lags = min(len(gram), spectra.row_correlation.shape[1])
        correlation[:n_lags] = spectra.row_correlation[0, :n_lags]
        model = fit_null(kind, gram, float(np.median(known)), correlation)
        rng = self.rng(1, NULLS.index(kind))
        found = np.empty((self.draws, len(gram) - self.window + 1, self.window))
        for first in range(0, self.draws, _CHUNK):
            part = found[first : first + _CHUNK]
            histories = moving_grams(model.sample(len(part), rng=rng), self.window)
            part[:] = np.sqrt(np.linalg.eigvalsh(histories)[..., ::-1].clip(min=0.0))
        return found


def _longest_stretch(known: NDArray[np.bool_]) -> slice:
    """The longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    if not len(edges):
        return slice(0, 0)
    starts, ends = edges[::2], edges[1::2]
    i = int(np.argmax(ends - starts))
    return slice(int(starts[i]), int(ends[i]))
