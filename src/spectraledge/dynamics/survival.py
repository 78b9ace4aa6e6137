"""What is left of a span of directions as a run goes on: measured, guaranteed, and if every turn were new."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from ..recording.select import BlockChoice, block_label
from ..theory.bootstrap import BootstrapInterval
from ..theory.gap import gap_position
from ..theory.overlap import subspace_overlap
from ..theory.rotation import independent_survival, principal_angles, survival_bound
from .columns import Table, known_mean, plain_interval, time_interval


@dataclass(frozen=True, eq=False)
class Survival:
    """Survival of the span V_k of one window. M windows from the reference on.

    Attributes:
        steps: (M) optimizer step of each window; the first is the reference.
        k: Dimension of the span.
        direct: (M) ||V_k(t_0)^T V_k(t)||_F^2 / k; NaN beyond the recorded lags.
        hops: Name of a chain, ``1`` or the longest reach in rows, to the rows between its windows.
        guaranteed: Chain to (M) cos^2(min(pi/2, sum of largest angles)): a lower bound of ``direct`` at any
            distance. Short hops add small angles that are mostly not in one plane, so the longest reach bounds
            best.
        independent: Chain to (M) prod cos^2(angles): the value if every hop turned in a plane of its own, no
            bound.
        lags: (R) distances in rows.
        curve: Mean over all windows of the overlap with the window that far before, with intervals over blocks
            of 2 W windows; (R) each. Below lag W windows share rows and overlap whatever the run does.
        window, stride, block: Settings.
        notes: What is missing and why.
    """

    steps: np.ndarray
    k: int
    direct: np.ndarray
    hops: dict[str, int]
    guaranteed: dict[str, np.ndarray]
    independent: dict[str, np.ndarray]
    lags: np.ndarray
    curve: BootstrapInterval
    window: int
    stride: int
    block: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a window from the reference on."""
        table: Table = {"step": self.steps, "direct": self.direct}
        for name in self.hops:
            table |= {
                f"guaranteed_hop{name}": self.guaranteed[name],
                f"independent_hop{name}": self.independent[name],
            }
        return table

    def summary(self) -> dict[str, Any]:
        """When survival is last certain, what is left at the reach of the record and at its end."""
        reach = np.flatnonzero(np.isfinite(self.direct))
        return {
            "step": int(self.steps[0]),
            "k": self.k,
            "window": self.window,
            "stride": self.stride,
            "block": self.block,
            "reach_step": int(self.steps[reach[-1]]) if len(reach) else None,
            "direct_at_reach": float(self.direct[reach[-1]]) if len(reach) else float("nan"),
            "chains": {
                name: {
                    "rows": self.hops[name],
                    "half_certain_until": _last(self.steps, self.guaranteed[name] >= 0.5),
                    "guaranteed_at_end": float(self.guaranteed[name][-1]),
                    "independent_at_end": float(self.independent[name][-1]),
                }
                for name in self.hops
            },
            "curve": [{"lag": int(lag)} | plain_interval(self.curve, i) for i, lag in enumerate(self.lags)],
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a distance: mean overlap of all windows that far apart, and survival of the reference."""
        return [
            {
                "lag": int(lag),
                "shared_rows": max(self.window - int(lag), 0),
                **{
                    f"mean_overlap{'' if x == 'value' else '_' + x}": y
                    for x, y in plain_interval(self.curve, i).items()
                },
                "direct": _entry(self.direct, lag),
                **{f"guaranteed_hop{name}": _entry(a, lag) for name, a in self.guaranteed.items()},
                **{f"independent_hop{name}": _entry(a, lag) for name, a in self.independent.items()},
            }
            for i, lag in enumerate(self.lags)
        ]


def survival(
    recording: Recording,
    window: int = 10,
    *,
    start: int | None = None,
    k: int | None = None,
    block: BlockChoice = "all",
    stride: int = 1,
    n_boot: int = 500,
    seed: int = 0,
) -> Survival:
    """How much of the span of the first k directions of one window later windows still hold.

    Guaranteed: largest principal angles are a metric, so angles of successive windows add at most and the
    overlap is at least cos^2(min(pi/2, sum Theta_i)). The product prod cos^2 Theta_i that is sometimes read as a
    bound is the value for rotations in independent planes. Both are given for chains of neighbouring windows
    and of windows as far apart as the record reaches, the last hop being as long as is left.

    Args:
        recording: T updates.
        window: Rows W of a window.
        start: Optimizer step: the first whole window that ends there or later is the reference; the first of
            all where None.
        k: Dimension of the span; the guarded k* of the reference where None.
        block: Block or union.
        stride: Updates in a row.
        n_boot: Resamples behind the mean overlaps.
        seed: Of these.

    Returns:
        Series from the reference on. Source: derived (the paper's statement on survival is not legible).

    Raises:
        SettingError: If k is out of range, or the band too narrow for two neighbouring windows.
        DataError: If no window from ``start`` on is whole.
    """
    recording.cross_gram(window, 1, stride, block)  # refuses what cannot be
    spectra = recording.spectra(window, stride, block)
    whole = np.isfinite(spectra.singular_values).all(axis=1)
    begin = np.flatnonzero(whole & (spectra.steps >= (-np.inf if start is None else start)))
    if not len(begin):
        raise DataError(f"A whole window of {window} updates must end at step {start} or later; none does.")
    a = int(begin[0])
    if k is None:
        k = int(gap_position(spectra.singular_values[a], floor=spectra.floor[a]))
        if k == 0:
            raise DataError(f"The window at step {spectra.steps[a]} must have a resolved gap; it has none. Pass k.")
    if not 1 <= k <= window:
        raise SettingError(f"k must lie in 1..{window}, the directions of a window; got {k}. Leave it out for k*.")
    reach = (recording.lags + 1) // stride - window
    by_lag = {m: _angles(recording, window, m, block, stride, k) for m in range(1, reach + 1)}
    n = len(spectra.steps) - a
    direct = np.full(n, np.nan)
    direct[0] = 1.0 if spectra.resolved[a, k - 1] else np.nan
    for m, (_, shared) in by_lag.items():
        if m < n:
            direct[m] = shared[a]  # entry i of lag m compares window i + m with window i
    hops = {"1": 1, str(reach): reach}
    chains = {name: _chain(by_lag, a, n, hop) for name, hop in hops.items()}
    lags = np.array([m for m in by_lag if len(by_lag[m][1])], dtype=np.int64)
    notes = []
    if reach < n - 1:
        notes.append(
            f"the direct overlap reaches {reach} rows: beyond, products of the two windows' updates were not "
            f"recorded ({recording.lags} lags)"
        )
    if reach < window:
        notes.append("no two disjoint windows can be compared: all overlaps include shared rows")
    if not all(np.isfinite(chain[0]).all() for chain in chains.values()):
        notes.append("a seam, a lost update or an unresolved direction breaks a chain: NaN from there on")
    return Survival(
        steps=spectra.steps[a:],
        k=k,
        direct=direct,
        hops=hops,
        guaranteed={name: chain[0] for name, chain in chains.items()},
        independent={name: chain[1] for name, chain in chains.items()},
        lags=lags,
        curve=_mean_overlaps([by_lag[int(m)][1] for m in lags], 2 * window, n_boot, seed),
        window=window,
        stride=stride,
        block=block_label(block),
        notes=tuple(notes),
    )


def _angles(
    recording: Recording, window: int, lag: int, block: BlockChoice, stride: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Largest angle and share in common of V_k of windows i and i + lag, for every i."""
    rows = recording.n_updates // stride
    if rows < window + lag:
        return np.empty(0), np.empty(0)
    _, overlaps = recording.overlaps(window, lag, block, stride)
    return principal_angles(overlaps, k)[:, -1], subspace_overlap(overlaps, k)


def _chain(
    by_lag: dict[int, tuple[np.ndarray, np.ndarray]], a: int, n: int, hop: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n) guaranteed and independent survival along windows a, a + hop, a + 2 hop, ..., and the rest of the way."""
    guaranteed, independent = np.full(n, np.nan), np.full(n, np.nan)
    guaranteed[0] = independent[0] = 1.0
    passed: list[float] = []
    for i in range(1, n):
        done, rest = divmod(i - 1, hop)
        angle = by_lag[rest + 1][0][a + done * hop]
        angles = np.array([*passed, angle])
        # cos^2 of a rounded pi/2 is 4e-33, not 0: nothing is guaranteed there.
        lost = angles.sum() >= 0.5 * np.pi
        guaranteed[i] = 0.0 if lost else survival_bound(angles)
        independent[i] = independent_survival(angles)
        if rest + 1 == hop:
            passed.append(float(angle))
    return guaranteed, independent


def _mean_overlaps(shared: list[np.ndarray], block: int, n_boot: int, seed: int) -> BootstrapInterval:
    """Mean overlap at every lag; series of longer lags are filled up with NaN so that blocks stay in step."""
    n = max((len(x) for x in shared), default=0)
    table = np.full((n, len(shared)), np.nan)
    for i, x in enumerate(shared):
        table[n - len(x) :, i] = x
    return time_interval(known_mean, table, block=block, n_boot=n_boot, rng=np.random.default_rng(seed))


def _last(steps: np.ndarray, holds: np.ndarray) -> int | None:
    """Last step up to which something holds without a break."""
    broken = np.flatnonzero(~holds)
    end = int(broken[0]) if len(broken) else len(holds)
    return int(steps[end - 1]) if end else None


def _entry(values: np.ndarray, lag: int) -> float:
    return float(values[lag]) if lag < len(values) else float("nan")
