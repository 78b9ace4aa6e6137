"""Whether stability falls around the gap, dominant > gap > subdominant, and how often it does so in noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..recording import Recording
from ..recording.select import BlockChoice
from ..theory.alpha import AlphaKind, stability_coefficients
from ..theory.alpha_null import AlphaNull, block_size
from ..theory.bootstrap import BootstrapInterval
from ..theory.gap import gap_position
from ..theory.gap_rules import Rule
from ..theory.spectrum import UPDATE_EPS_FLOAT64, gram_spectrum
from ..theory.stability import Mode
from .columns import known_mean, plain_interval, time_interval
from .stretches import NULLS, NullName, Stretch, stretches
from .verdict import Outcome, outcome
from .windows import grams_ending_at

GROUPS = ("dominant", "gap", "subdominant")
LEVELS = (0.05, 0.5, 0.95)

_ENTRIES = 4_000_000  # matrix entries of surrogates handled at once
_N_BOOT = 1000


@dataclass(frozen=True, eq=False)
class NullOrder:
    """What the order is under one null, over the same windows of some stretches of the run.

    Attributes:
        groups: (3, 3) means of dominant, gap and subdominant modes at 5, 50 and 95 % of the draws.
        margin: (3) ordering margin at 5, 50 and 95 %.
        alpha: (3, W) mean coefficients at 5, 50 and 95 %.
        alpha_p: (W) P(null alpha_j >= observed).
        share: Share of draws in which the order holds.
        p_value: P(null margin >= observed); at least 1 / (n_draws + 1).
        n_draws: Number of draws.
    """

    groups: np.ndarray
    margin: np.ndarray
    alpha: np.ndarray
    alpha_p: np.ndarray
    share: float
    p_value: float
    n_draws: int


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The order of one coefficient around k*.

    Attributes:
        kind: Which coefficient.
        position: Most frequent k*, from 1.
        groups: (3) means over windows of dominant (j < k*), gap (k*, k* + 1) and subdominant modes.
        margin: Smaller of the mean differences dominant - gap and gap - subdominant, each over windows that
            have both; with its interval over blocks of 2 W windows.
        matched_margin: The same over the windows that the nulls cover.
        nulls: Name of a null to what it gives; empty where no effective dimension is known.
        verdict: On "alpha falls around the gap".
    """

    kind: str
    position: int
    groups: np.ndarray
    margin: BootstrapInterval
    matched_margin: float
    nulls: dict[NullName, NullOrder]
    verdict: Outcome

    def summary(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "kind": self.kind,
            "k_star": self.position,
            **{name: float(value) for name, value in zip(GROUPS, self.groups)},
            "margin": plain_interval(self.margin),
            "matched_margin": self.matched_margin,
            "nulls": {
                name: {
                    **{group: null.groups[:, i].tolist() for i, group in enumerate(GROUPS)},
                    "margin": null.margin.tolist(),
                    "alpha": null.alpha.T.tolist(),
                    "alpha_p": null.alpha_p.tolist(),
                    "ordering_share": null.share,
                    "p_value": null.p_value,
                    "n_draws": null.n_draws,
                }
                for name, null in self.nulls.items()
            },
            "verdict": self.verdict,
        }


def kinds_of(mode: Mode, window: int) -> tuple[AlphaKind, ...]:
    """Coefficients of a mode that a window of this length has."""
    if mode == "strict":
        return ("overlap2_lagW", "overlap2_lag1", "dk")
    return ("dk_dlam", "dk_f", "half_cos") if window >= 4 else ("dk_dlam", "dk_f")


def group_means(alpha: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Means of the coefficients before, at and behind the gap, window by window.

    Args:
        alpha: (..., W); NaN entries are left out.
        position: (...) k* from 1; 0 for a window without one.

    Returns:
        (..., 3) for j < k*, j in {k*, k* + 1} and j > k* + 1; NaN for a group without modes. Source:
        groups of the author's code; there the most frequent k* holds for all windows.

    >>> group_means(np.array([0.9, 0.5, 0.3, 0.0]), np.array(2))
    array([0.9, 0.4, 0. ])
    """
    j = np.arange(1, alpha.shape[-1] + 1)
    k = np.asarray(position)[..., None]
    members = (j < k, (j == k) | (j == k + 1), j > k + 1)
    return np.stack([known_mean(np.where(m & (k > 0), alpha, np.nan), axis=-1) for m in members], axis=-1)


def order_margin(groups: np.ndarray) -> np.ndarray:
    """min of mean(dominant - gap) and mean(gap - subdominant), each over the windows that have both groups.

    Differences inside windows, so that windows without dominant modes (k* = 1) do not enter one side only.

    Args:
        groups: (..., N, 3) from ``group_means``.

    Returns:
        (...); NaN where no window has two neighbouring groups.
    """
    steps = known_mean(groups[..., :-1] - groups[..., 1:], axis=-2)
    known = np.isfinite(steps)
    return np.where(known.any(axis=-1), np.min(np.where(known, steps, np.inf), axis=-1), np.nan)


def common_position(position: np.ndarray, window: int) -> np.ndarray:
    """Most frequent k* along the last axis, given to all windows of it; 0 where no window has one."""
    counts = np.stack([(position == k).sum(axis=-1) for k in range(1, window)], axis=-1)
    best = np.where(counts.max(axis=-1) > 0, counts.argmax(axis=-1) + 1, 0)
    return np.broadcast_to(best[..., None], position.shape)


def alpha_hierarchy(
    recording: Recording,
    alpha: Mapping[AlphaKind, np.ndarray],
    window: int,
    block: BlockChoice,
    stride: int,
    *,
    n_draws: int,
    seed: int,
    mode: Mode,
    rule: Rule,
) -> dict[AlphaKind, Hierarchy]:
    """Order of every coefficient around k*, with its interval, nulls and verdict.

    Each window takes its own k*; in author mode the most frequent k* of a history is taken for all of its
    windows, in the data and in every draw alike.

    Args:
        recording: The run.
        alpha: Coefficients (N, W) of the windows that end at rows W, W + 1, ...
        window: W.
        block: Block or union.
        stride: Updates in a row.
        n_draws: Draws of each null; 0 for no nulls.
        seed: Of draws and intervals.
        mode: ``strict`` or ``author``.
        rule: For k*.

    Returns:
        One entry a coefficient. Source: derived.
    """
    band = recording.band(block, stride=stride)
    ends = np.arange(window, len(band))
    found = stretches(recording, window, block, stride) if n_draws > 0 else []
    draws = {
        name: _null_windows(found, name, tuple(alpha), window, mode, rule, n_draws, np.random.default_rng(seed))
        for name in NULLS
        if found
    }
    out = {}
    for kind, values in alpha.items():
        size = block_size(kind, window)
        position = _positions(grams_ending_at(band, window, ends), rule, recording.update_eps)
        position = np.where(np.isfinite(values).any(axis=-1), position, 0)
        if mode == "author":
            position = common_position(position, window)
        groups = group_means(values, position)
        margin = time_interval(
            order_margin,
            groups,
            block=min(2 * window, max(len(groups), 1)),
            n_boot=_N_BOOT,
            rng=np.random.default_rng(seed),
        )
        covered = [s.start + _last_rows(len(s), size, window) - window for s in found]
        index = np.concatenate([np.empty(0, dtype=np.int64), *covered])
        matched_groups, matched_alpha = groups[index], values[index]
        matched = float(order_margin(matched_groups)) if len(index) else float("nan")
        nulls = {
            name: _null_order(kind, *by_kind[kind], matched, known_mean(matched_alpha, axis=0))
            for name, by_kind in draws.items()
        }
        known = position[position > 0]
        out[kind] = Hierarchy(
            kind=kind,
            position=int(np.bincount(known).argmax()) if len(known) else 0,
            groups=known_mean(groups, axis=0),
            margin=margin,
            matched_margin=matched,
            nulls=nulls,
            verdict=outcome(
                margin,
                null_shares=[null.share for null in nulls.values()],
                p_values=[null.p_value for null in nulls.values()],
            ),
        )
    return out


def _null_windows(
    found: Sequence[Stretch],
    name: NullName,
    kinds: Sequence[AlphaKind],
    window: int,
    mode: Mode,
    rule: Rule,
    n_draws: int,
    rng: np.random.Generator,
) -> dict[AlphaKind, tuple[np.ndarray, np.ndarray]]:
    """For every coefficient the groups (n_draws, windows, 3) and alpha (n_draws, windows, W) of surrogates."""
    collected: dict[AlphaKind, list[tuple[np.ndarray, np.ndarray]]] = {kind: [] for kind in kinds}
    for stretch in found:
        model = stretch.null(name)
        n = len(stretch)
        at_once = int(max(1, _ENTRIES // (n * max(n, 4 * window**2))))
        parts: dict[AlphaKind, list[tuple[np.ndarray, np.ndarray]]] = {kind: [] for kind in kinds}
        for start in range(0, n_draws, at_once):
            grams = model.sample(min(at_once, n_draws - start), rng)
            for kind in kinds:
                size = block_size(kind, window)
                i = _last_rows(n, size, window)[:, None] - size + 1 + np.arange(size)
                blocks = grams[:, i[:, :, None], i[:, None, :]]
                alpha = stability_coefficients(
                    blocks,
                    window,
                    kind,
                    mode=mode,
                    update_eps=UPDATE_EPS_FLOAT64,
                )
                position = _positions(blocks[..., -window:, -window:], rule, UPDATE_EPS_FLOAT64)
                parts[kind].append((alpha, position))
        for kind, pieces in parts.items():
            collected[kind].append(tuple(np.concatenate(x) for x in zip(*pieces)))  # type: ignore[arg-type]
    out = {}
    for kind, by_stretch in collected.items():
        alpha, position = (np.concatenate(x, axis=1) for x in zip(*by_stretch))
        if mode == "author":
            position = common_position(position, window)
        out[kind] = (group_means(alpha, position), alpha)
    return out


def _null_order(
    kind: AlphaKind, groups: np.ndarray, alpha: np.ndarray, matched: float, matched_alpha: np.ndarray
) -> NullOrder:
    margins = order_margin(groups)
    margins = margins[np.isfinite(margins)]
    by_mode = AlphaNull(kind, known_mean(alpha, axis=1))
    reached = int(np.sum(margins >= matched))
    known = len(margins) > 0 and np.isfinite(matched)
    return NullOrder(
        groups=_quantiles(known_mean(groups, axis=1)),
        margin=_quantiles(margins[:, None])[:, 0],
        alpha=by_mode.quantiles(LEVELS),
        alpha_p=by_mode.p_values(matched_alpha),
        share=float(np.mean(margins > 0.0)) if len(margins) else float("nan"),
        p_value=(1.0 + reached) / (len(margins) + 1.0) if known else float("nan"),
        n_draws=len(margins),
    )


def _positions(grams: np.ndarray, rule: Rule, update_eps: float) -> np.ndarray:
    spectrum = gram_spectrum(grams, update_eps=update_eps)
    return gap_position(spectrum.singular_values, rule=rule, floor=spectrum.floor)


def _last_rows(n_rows: int, size: int, window: int) -> np.ndarray:
    """Last rows of the blocks looked at in a stretch, a quarter of a window apart: closer ones say little more."""
    return np.arange(max(size, window + 1) - 1, n_rows, max(1, window // 4))


def _quantiles(draws: np.ndarray) -> np.ndarray:
    """(3, m) quantiles of the finite draws of every column."""
    out = np.full((len(LEVELS), draws.shape[1]), np.nan)
    for i, column in enumerate(draws.T):
        finite = column[np.isfinite(column)]
        if len(finite):
            out[:, i] = np.quantile(finite, LEVELS)
    return out
