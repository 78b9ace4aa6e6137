"""Histories on which the bounds of rotation are used up, and on which the published form of them fails.

Each has exact answers, so a bound that is tightened too far shows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WorstCase:
    """Updates of two windows of W that share all but m updates.

    Attributes:
        updates: (W + m, P) in order of time [parameter].
        window: W.
        k: Dimension of the span that turns by 90 degrees.
    """

    updates: Array
    window: int
    k: int

    @property
    def block(self) -> Array:
        """(W + m, W + m) inner products of all updates [parameter^2]."""
        return self.updates @ self.updates.T

    @property
    def reversed(self) -> WorstCase:
        """The same updates backwards: the windows change places, and so do their gaps."""
        return WorstCase(self.updates[::-1].copy(), self.window, self.k)


def sharp_rotation(excess: float = 0.01, *, common: float = 1.0, k: int = 1) -> WorstCase:
    """Directions 1..k turn by 90 degrees, and every bound allows only (1 + 2 excess) times that.

    ``M = (1 + c) I_k + c I_k`` on two sets of k axes; each of k updates moves from the first set to the second,
    with energy 1/2 + excess, and the sets change places. Gap 1, ||dM||_2 = 1/2 + excess, ||dM||_F =
    sqrt(2 k) ||dM||_2, and for k = 1 spread 1 + 2 excess: at excess -> 0 the constants 1 (spread), 2 (spectral)
    and sqrt(2) (Frobenius) are reached together. The published constant 1 with ||dM||_F promises a sine near 0.71
    for k = 1, and an alpha of 0.5 instead of 0. (The author's code takes the gap of the later window, which is
    2 excess here and 1 in the reversed case.)

    Args:
        excess: Energy beyond the crossing, in (0, 1/2).
        common: Energy c >= 0 that both sets keep.
        k: Number of updates replaced.

    Returns:
        W = 3k updates (2k for ``common=0``) in 2k dimensions. Source: derived.

    Raises:
        SettingError: If excess, common or k is out of range.

    >>> case = sharp_rotation(0.1)
    >>> case.updates.shape, case.window
    ((4, 2), 3)
    """
    _check(excess, common)
    if k < 1:
        raise SettingError(f"k must be at least 1; got {k}. Use k=1 for a single direction.")
    first, second = np.eye(2 * k)[:k], np.eye(2 * k)[k:]
    moved = np.sqrt(0.5 + excess)
    kept = [np.sqrt(0.5 - excess + common) * first] + ([np.sqrt(common) * second] if common else [])
    updates = np.concatenate([moved * first, *kept, moved * second])
    return WorstCase(updates, len(updates) - k, k)


def unchanged_spectrum(common: float = 1.0) -> WorstCase:
    """The leading direction turns by 90 degrees while no eigenvalue changes.

    The change of eigenvalues is 0, so the author's bound is 0 and the author's alpha is 1 for every mode; the
    true squared overlap of mode 1 is 0.

    Args:
        common: Energy that both axes keep, >= 0.

    Source: derived.

    >>> case = unchanged_spectrum()
    >>> before, after = case.updates[:3], case.updates[1:]
    >>> np.diag(before.T @ before), np.diag(after.T @ after)
    (array([2., 1.]), array([1., 2.]))
    """
    _check(0.25, common)
    # The first axis gives its unit of energy away whole; both keep ``common``.
    x, y = np.eye(2)
    updates = np.stack([x, np.sqrt(common) * x, np.sqrt(common) * y, y])
    return WorstCase(updates, 3, 1)


def sharp_pair(excess: float = 0.01) -> WorstCase:
    """Direction and time profile of mode 1 both turn by 90 degrees, and Wedin's bound allows (1 + 2 excess) of it.

    ``X = diag(1, 0)`` becomes ``diag(1/2 - excess, 1/2 + excess)``: disjoint windows of W = 2, sigma gap 1,
    ``2 ||X' - X||_F = sqrt(2) (1 + 2 excess)``, and sqrt(sin^2 U + sin^2 V) = sqrt(2). The constant 2 is sharp.

    Args:
        excess: In (0, 1/2).

    Source: derived.
    """
    _check(excess, 0.0)
    updates = np.array([[1.0, 0.0], [0.0, 0.0], [0.5 - excess, 0.0], [0.0, 0.5 + excess]])
    return WorstCase(updates, 2, 1)


def sharp_profile(excess: float = 0.01, *, common: float = 1.0) -> WorstCase:
    """The leading time profile turns by 90 degrees, and its bound allows (1 + 2 excess) of it.

    Two updates of equal energy whose inner product goes from -1/2 to excess: u_1 goes from (1, -1) to (1, 1).
    Gap 1, ``2 ||w|| = 1 + 2 excess``.

    Args:
        excess: In (0, 1/2).
        common: Energy beyond 1/2 of each update, >= 0.

    Source: derived.
    """
    _check(excess, common)
    energy = 0.5 + common
    updates = [[inner / np.sqrt(energy), np.sqrt(energy - inner**2 / energy)] for inner in (-0.5, excess)]
    return WorstCase(np.array([updates[0], [np.sqrt(energy), 0.0], updates[1]]), 2, 1)


def _check(excess: float, common: float) -> None:
    if not 0.0 < excess < 0.5:
        raise SettingError(f"excess must lie in (0, 1/2); got {excess}. Use 0.005 to be within 1 % of the bound.")
    if not common >= 0.0:
        raise SettingError(f"common must not be negative; got {common}. It is an energy: use 1.")
