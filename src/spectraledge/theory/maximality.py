"""Every cut of the spectrum on its own: its gap, its stability, what it learns, and when its gap collapses.

The gap maximality principle (arXiv:2603.28964v1-v3, part iii) says that only a collapse at k* matters. These
are the series that such a claim is about, for k* and for every other cut; ``event_study`` compares them. The
claim holds half by construction: k* is re-defined as the largest gap after any collapse, and the rate l_k* is
blind to a mix within the span on either side of it, as l_k is for every k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def cut_stability(overlaps: ArrayLike) -> Array:
    """||V_k^T V'_k||_F^2 / k for every cut k: the share of each span that two windows have in common.

    Give overlaps of disjoint windows (W snapshots apart): neighbouring windows share W - 1 updates, and
    overlap whatever the run does.

    Args:
        overlaps: (..., W, W) cosines <v_j, v'_i> of two windows, from ``mode_overlaps``.

    Returns:
        (..., W) in [0, 1], entry k - 1 for cut k; NaN from the first unresolved mode on. Source:
        arXiv:2603.28964v1-v3 (alpha of a span), standard result.

    Raises:
        SettingError: If the matrices are not square.

    >>> cut_stability([[0.0, 1.0], [1.0, 0.0]])  # two modes changed places: the span of both is the same
    array([0., 1.])
    """
    c = np.asarray(overlaps, dtype=np.float64)
    if c.ndim < 2 or c.shape[-1] != c.shape[-2]:
        raise SettingError(f"overlaps must be (..., W, W); got shape {c.shape}. Compare windows of equal size.")
    shared = np.square(c).cumsum(axis=-1).cumsum(axis=-2)
    return np.diagonal(shared, axis1=-2, axis2=-1) / np.arange(1, c.shape[-1] + 1)


def cut_learning_rates(train_projections: ArrayLike, validation_projections: ArrayLike) -> Array:
    """l_k = <Pi_k grad L_train, Pi_k grad L_val> = sum_{j <= k} G_j^train G_j^val, for every cut k.

    Not changed by any rotation within the top-k span.

    Args:
        train_projections: (..., W) <v_j, grad L_train> [loss / parameter].
        validation_projections: (..., W) <v_j, grad L_val> [loss / parameter].

    Returns:
        (..., W) [loss^2 / parameter^2], entry k - 1 for cut k; NaN from the first unresolved mode on. Source:
        derived.
    """
    g, h = np.asarray(train_projections, dtype=np.float64), np.asarray(validation_projections, dtype=np.float64)
    return np.cumsum(g * h, axis=-1)


def collapse_events(gaps: ArrayLike, thresholds: ArrayLike, *, separation: int = 1) -> NDArray[np.bool_]:
    """Windows in which a gap falls below its threshold, having been at or above it before.

    The threshold is the 5 % point of the gap under a null, cut by cut (``gap_null_statistics`` or surrogates);
    a fixed number would fire more at cuts that are narrow by nature.

    Args:
        gaps: (..., T, K) gap of every cut, time in the last axis but one [any unit].
        thresholds: (K,) or (..., T, K), same unit.
        separation: Windows after an event in which the same cut has no other; W, so that two events share no
            update.

    Returns:
        (..., T, K). The first known value of a cut is no event; NaN is neither above nor below. Source:
        derived.

    Raises:
        SettingError: If separation is below 1 or there is no time axis.

    >>> collapse_events([[2.0], [0.5], [0.4], [2.0], [0.5]], [1.0])[:, 0]
    array([False,  True, False, False,  True])
    """
    g = np.asarray(gaps, dtype=np.float64)
    if g.ndim < 2 or separation < 1:
        raise SettingError(
            f"gaps must be (..., T, K) and separation at least 1; got shape {g.shape} and {separation}. "
            "Use separation=W."
        )
    limit = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), g.shape)
    known = np.isfinite(g) & np.isfinite(limit)
    with np.errstate(invalid="ignore"):
        below = known & (g < limit)
    events = np.zeros(g.shape, dtype=bool)
    was_above = np.zeros((*g.shape[:-2], g.shape[-1]), dtype=bool)
    wait = np.zeros_like(was_above, dtype=np.int64)
    for t in range(g.shape[-2]):
        events[..., t, :] = below[..., t, :] & was_above & (wait <= 0)
        wait = np.where(events[..., t, :], separation - 1, wait - 1)
        was_above = np.where(known[..., t, :], ~below[..., t, :], was_above)
    return events


def progress_change(outcome: ArrayLike, horizon: int, *, relative_to_past: bool = True) -> Array:
    """Change of progress at every window: (y_{t+h} - y_t) - (y_t - y_{t-h}), or only its first part.

    Taking off the change over the horizon before compares the run with itself; without it an event in a fast
    phase of training looks like a cause of speed.

    Args:
        outcome: (..., T) validation loss or capability, at the windows' own times.
        horizon: h in windows, chosen before the data are looked at; at least W, else the collapse's own
            updates are part of both sides.
        relative_to_past: Take off the change over the h windows before.

    Returns:
        (..., T), NaN where the horizon leaves the record. Source: derived.

    Raises:
        SettingError: If the horizon is below 1.

    >>> progress_change([3.0, 2.0, 1.0, 1.0, 1.0], 1)
    array([nan,  0.,  1.,  0., nan])
    """
    y = np.asarray(outcome, dtype=np.float64)
    if horizon < 1:
        raise SettingError(f"horizon must be at least 1 window; got {horizon}. Use W.")
    out = np.full(y.shape, np.nan)
    n = y.shape[-1]
    if n > horizon:
        out[..., : n - horizon] = y[..., horizon:] - y[..., : n - horizon]
    if relative_to_past:
        before = np.full(y.shape, np.nan)
        if n > horizon:
            before[..., horizon:] = y[..., horizon:] - y[..., : n - horizon]
        out = out - before
    return out
