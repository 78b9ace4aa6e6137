"""Statistics of windows on surrogate histories, matched window by window to those of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..theory.surrogates import NullKind, fit_null
from .stretches import Stretch

_ENTRIES = 4_000_000  # matrix entries of surrogates handled at once


@dataclass(frozen=True, eq=False)
class WindowDraws:
    """Draws of a statistic under a null, for M of the N places of a run.

    Attributes:
        covered: (M) places whose own rows were redrawn.
        values: (M, n_draws, ...) the statistic there; a draw is one history through all M places of a stretch.
        nearest: (N) for every place the entry of ``covered`` that is closest to it.
    """

    covered: np.ndarray
    values: np.ndarray
    nearest: np.ndarray

    def at_all(self) -> np.ndarray:
        """(N, n_draws, ...): every place with the draws of the nearest covered one."""
        return self.values[self.nearest]


def window_draws(
    found: Sequence[Stretch],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    size: int,
    window: int,
    n_places: int,
    kind: NullKind,
    n_draws: int,
    rng: np.random.Generator,
) -> WindowDraws | None:
    """Redraw each stretch of a run under a null with its own norms, momentum and effective dimension.

    Places a quarter of a window apart are evaluated: closer ones share most of their rows.

    Args:
        found: From ``stretches``.
        statistic: (draws, n, size, size) Grams of n places, oldest row first, to (draws, n, ...).
        size: Rows that the statistic of one place needs.
        window: W.
        n_places: N = rows of the run - size + 1; place i holds rows i .. i + size - 1.
        kind: Null, see ``theory.surrogates.fit_null``.
        n_draws: Surrogates.
        rng: Source of randomness.

    Returns:
        The draws; None where no stretch is long enough. Source: derived.
    """
    covered, values = [], []
    for stretch in found:
        first = np.arange(0, len(stretch) - size + 1, max(1, window // 4))
        if not len(first):
            continue
        model = fit_null(kind, stretch.gram, stretch.p_eff, stretch.row_correlation)
        index = first[:, None] + np.arange(size)
        at_once = max(1, _ENTRIES // (len(first) * size**2 + len(stretch) ** 2))
        parts = []
        for start in range(0, n_draws, at_once):
            grams = model.sample(min(at_once, n_draws - start), rng)
            parts.append(statistic(grams[:, index[:, :, None], index[:, None, :]]))
        covered.append(stretch.start + first)
        values.append(np.moveaxis(np.concatenate(parts), 0, 1))
    if not covered:
        return None
    places = np.concatenate(covered)
    distance = np.abs(np.arange(n_places)[:, None] - places)
    return WindowDraws(places, np.concatenate(values), distance.argmin(axis=1))
