"""The published rules that name phases, as they are: they name phases in every series.

The thesis' replication code and the earlier paper it cites ("SED") use different rules, so their boundaries
are not the same objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]

MEAN_POINTS = 5
SLOPE_SHARE = 0.01
PLATEAU_SHARE = 0.85
COLLAPSE_RATIO = 1.20


@dataclass(frozen=True)
class AuthorPhases:
    """Phases by a published rule.

    Attributes:
        labels: (T,) ``rise``, ``plateau`` or ``collapse`` for every window.
        plateau: First and last index of the plateau around the peak (``sed``); None for the other rule.
        collapse: Index of the first window after the peak with R below 1.20 (``sed``); None where there is
            none.
    """

    labels: NDArray[np.str_]
    plateau: tuple[int, int] | None
    collapse: int | None


def thesis_phases(ratio: ArrayLike) -> AuthorPhases:
    """Sign of the slope of a centred 5-point mean of R against 0.01 sd(R) per window.

    The mean is shortened at the ends. The rule has no error rate: of white-noise series of 60 windows 93 % hold
    all three labels, and 4 % of their windows are "plateau". Source: author's code for arXiv:2603.28964
    (threshold and mean; how its ends are padded was not recoverable).

    Args:
        ratio: (T,) R, T >= 2.

    Raises:
        SettingError: For fewer than 2 values.

    >>> thesis_phases([1.0, 2.0, *[3.0] * 10, 2.0, 1.0]).labels[[0, 7, 13]].tolist()
    ['rise', 'plateau', 'collapse']
    """
    r = _series(ratio)
    half = MEAN_POINTS // 2
    padded = np.concatenate([[0.0], np.cumsum(r)])
    n = len(r)
    start, stop = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    smooth = (padded[stop] - padded[start]) / (stop - start)
    slope, limit = np.gradient(smooth), SLOPE_SHARE * r.std()
    labels = np.where(slope > limit, "rise", np.where(slope < -limit, "collapse", "plateau"))
    return AuthorPhases(labels, None, None)


def sed_phases(ratio: ArrayLike, *, collapse_ratio: float = COLLAPSE_RATIO) -> AuthorPhases:
    """Plateau: the contiguous windows about the peak with R >= 0.85 of it; rise before, collapse after.

    The collapse event is the first window after the peak with R below ``collapse_ratio``: a fixed number,
    which noise of low effective dimension never exceeds in the first place.

    Args:
        ratio: (T,) sigma_2 / sigma_3.
        collapse_ratio: tau; 1.15, 1.20, 1.25 and 1.30 were used.

    Returns:
        Phases. Source: author's code of the paper on spectral edge dynamics cited by arXiv:2603.28964.

    Raises:
        SettingError: For fewer than 2 values.

    >>> found = sed_phases([1.0, 1.5, 1.7, 1.8, 1.6, 1.3, 1.1])
    >>> found.plateau, found.collapse
    ((2, 4), 6)
    """
    r = _series(ratio)
    peak = int(np.argmax(r))
    high = r >= PLATEAU_SHARE * r[peak]
    first = peak
    while first > 0 and high[first - 1]:
        first -= 1
    last = peak
    while last < len(r) - 1 and high[last + 1]:
        last += 1
    index = np.arange(len(r))
    labels = np.where(index < first, "rise", np.where(index > last, "collapse", "plateau"))
    below = np.flatnonzero((index > peak) & (r < collapse_ratio))
    return AuthorPhases(labels, (first, last), int(below[0]) if len(below) else None)


def _series(ratio: ArrayLike) -> Array:
    r = np.asarray(ratio, dtype=np.float64)
    if r.ndim != 1 or len(r) < 2 or not np.isfinite(r).all():
        raise SettingError(
            f"ratio must be a finite series of at least 2 windows; got shape {r.shape}. Leave out unresolved ones."
        )
    return r
