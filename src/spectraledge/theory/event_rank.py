"""Is the change of outputs at events closer to rank one than in matched windows? A permutation test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.encoding import rank_one_share

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EventRank:
    """Rank-one shares at events against those of matched windows.

    Attributes:
        events: (E,) index of the first update of each event window that was compared.
        event_shares: (E,) share of the top singular value there.
        control_shares: (E, C) shares of the windows matched to each event.
        effect: Mean over events of the share less the mean of its controls.
        p_value: Chance of an effect as large if the event were any one of its matched windows, one-sided. It cannot
            fall below (C + 1)^-E.
        excess_change: (E,) log of the event's ||F||_F over the mean of its controls': how well they match.
        left_out: Events without C disjoint controls, or whose window leaves the series.
    """

    events: NDArray[np.int64]
    event_shares: Array
    control_shares: Array
    effect: float
    p_value: float
    excess_change: Array
    left_out: tuple[int, ...]


def event_rank_test(
    outputs: ArrayLike,
    events: Sequence[int],
    window: int,
    *,
    n_controls: int = 4,
    n_permutations: int = 9999,
    rng: np.random.Generator,
) -> EventRank:
    """Is the change of outputs at events closer to rank one than in other windows with as large a change?

    Each event gets the ``n_controls`` windows nearest in log ||F||_F that overlap neither an event window nor each
    other nor another event's controls. The permutation picks one window of each set as "the event".

    Args:
        outputs: (T + 1, N) f(theta_t) on a fixed probe, snapshot by snapshot.
        events: Snapshot indices t; the window of an event holds the ``window`` updates centred on it.
        window: Updates per window, at least 2.
        n_controls: C, matched windows per event.
        n_permutations: Draws; all assignments are counted instead where there are no more of them.
        rng: Source of randomness.

    Returns:
        The test. Source: arXiv:2603.28964v1-v3 (the claim), derived (the test).

    Raises:
        SettingError: If no event can be compared, or an option is out of range.
    """
    f = np.asarray(outputs, dtype=np.float64)
    if f.ndim != 2 or window < 2 or n_controls < 1 or len(f) <= window:
        raise SettingError(
            f"outputs must be (snapshots, N) with more snapshots than window, window at least 2 and n_controls at "
            f"least 1; got shape {f.shape}, {window} and {n_controls}. Record the probe more often."
        )
    steps = np.diff(f, axis=0)
    starts = np.arange(len(steps) - window + 1)
    windows = steps[starts[:, None] + np.arange(window)]
    share = rank_one_share(windows)
    with np.errstate(divide="ignore"):
        size = np.log(np.linalg.norm(windows, axis=(-2, -1)))
    wanted = {int(t): int(t) - window // 2 for t in events}
    inside = {t: s for t, s in wanted.items() if 0 <= s < len(starts) and np.isfinite(share[s])}
    free = np.isfinite(share)
    for s in wanted.values():
        free &= np.abs(starts - s) >= window
    chosen: dict[int, list[int]] = {}
    for t, s in inside.items():
        found = _nearest(size, size[s], free, starts, window, n_controls)
        if len(found) == n_controls:
            chosen[t] = found
            for control in found:
                free &= np.abs(starts - control) >= window
    if not chosen:
        raise SettingError(
            f"at least one event must have {n_controls} disjoint control windows of {window} updates; of "
            f"{len(wanted)} events none has. Use a shorter window, fewer controls, or a longer series."
        )
    at = np.array([inside[t] for t in chosen])
    controls = np.array(list(chosen.values()))
    sets = np.column_stack([share[at], share[controls]])
    return EventRank(
        events=at,
        event_shares=sets[:, 0],
        control_shares=sets[:, 1:],
        effect=float(np.mean(sets[:, 0] - sets[:, 1:].mean(axis=1))),
        p_value=_permutation_p(sets, n_permutations, rng),
        excess_change=size[at] - size[controls].mean(axis=1),
        left_out=tuple(t for t in wanted if t not in chosen),
    )


def _nearest(
    size: Array, goal: float, free: NDArray[np.bool_], starts: NDArray[np.int64], window: int, n: int
) -> list[int]:
    """Up to n disjoint free windows whose size is nearest to ``goal``; the earliest among equals."""
    free = free.copy()
    found: list[int] = []
    while len(found) < n and free.any():
        best = int(np.argmin(np.where(free, np.abs(size - goal), np.inf)))
        found.append(best)
        free &= np.abs(starts - best) >= window
    return found


def _permutation_p(sets: Array, n_permutations: int, rng: np.random.Generator) -> float:
    """One-sided p of column 0 being the event of every row."""
    n_events, n = sets.shape
    # The sum of the picked shares orders assignments as the effect does: the rest of each set is its total less it.
    observed = sets[:, 0].sum()
    slack = 1e-12 * np.abs(sets).sum()
    if n**n_events <= n_permutations:
        sums = np.zeros(1)
        for row in sets:
            sums = (sums[:, None] + row).reshape(-1)
        return float((sums >= observed - slack).mean())
    picked = rng.integers(0, n, (n_permutations, n_events))
    sums = sets[np.arange(n_events), picked].sum(axis=1)
    return float((1 + (sums >= observed - slack).sum()) / (1 + n_permutations))
