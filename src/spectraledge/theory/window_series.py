"""Spectra of consecutive windows as predictors see them, and what is to be predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.gap import width
from spectraledge.theory.signal_flow import check_choice
from spectraledge.theory.spectrum import as_grams, gram_spectrum

Array = NDArray[np.float64]
Quantity = Literal["lambda", "d", "g"]


@dataclass(frozen=True)
class WindowSeries:
    """N consecutive windows, one update apart.

    Attributes:
        grams: (N, W, W) oldest update first [parameter^2].
        blocks: (N - 1, W + 1, W + 1) of each window and the update after it; None if not at hand.
        singular_values: (N, W) [parameter].
        time_profiles: (N, W, W).
    """

    grams: Array
    blocks: Array | None
    singular_values: Array
    time_profiles: Array

    @property
    def window(self) -> int:
        """W."""
        return int(self.grams.shape[-1])

    def __len__(self) -> int:
        return len(self.grams)

    def head(self, n: int) -> WindowSeries:
        """The first n windows: all that was known then."""
        blocks = None if self.blocks is None else self.blocks[: max(n - 1, 0)]
        return WindowSeries(self.grams[:n], blocks, self.singular_values[:n], self.time_profiles[:n])


def window_series(grams: ArrayLike, blocks: ArrayLike | None = None) -> WindowSeries:
    """Diagonalise the windows of one record.

    Args:
        grams: (N, W, W) of consecutive windows, NaN where a product is missing.
        blocks: (N - 1, W + 1, W + 1) of each window and the update after it; needed by the exact predictor.

    Raises:
        SettingError: If the shapes do not belong together.
    """
    grams = as_grams(grams)
    held = None if blocks is None else as_grams(blocks)
    if grams.ndim != 3 or (
        held is not None and held.shape != (len(grams) - 1, grams.shape[-1] + 1, grams.shape[-1] + 1)
    ):
        raise SettingError(
            f"grams must be (N, W, W) and blocks (N - 1, W + 1, W + 1); got {grams.shape} and "
            f"{None if held is None else held.shape}. Gather both from the same band."
        )
    spectrum = gram_spectrum(grams)
    return WindowSeries(grams, held, spectrum.singular_values, spectrum.time_profiles)


def full_gram_windows(gram: ArrayLike, window: int) -> tuple[Array, Array]:
    """Grams (T - W + 1, W, W) and blocks (T - W, W + 1, W + 1) of a record whose (T, T) products are all known.

    Raises:
        SettingError: If the record is not longer than a window.
    """
    gram = as_grams(gram)
    if gram.ndim != 2 or not 1 <= window < len(gram):
        raise SettingError(
            f"gram must be (T, T) with T above the window {window}; got {gram.shape}. Record more updates."
        )
    return moving_grams(gram, window), moving_grams(gram, window + 1)


def moving_grams(gram: Array, window: int) -> Array:
    """(..., T - W + 1, W, W) Grams of all windows of records (..., T, T)."""
    index = np.arange(gram.shape[-1] - window + 1)[:, None] + np.arange(window)
    return gram[..., index[:, :, None], index[:, None, :]]


def future(values: ArrayLike, horizon: int) -> Array:
    """Row n holds what row n + horizon held; NaN where the record ends before. Shape as ``values``."""
    values = np.asarray(values, dtype=np.float64)
    check_horizon(horizon)
    out = np.full(values.shape, np.nan)
    out[: max(len(values) - horizon, 0)] = values[horizon:]
    return out


def quantity(
    singular_values: ArrayLike, kind: Quantity, *, mode: int = 1, position: ArrayLike | None = None
) -> Array:
    """One series out of (measured or predicted) singular values.

    Args:
        singular_values: (N, W) [parameter].
        kind: ``lambda``: sigma_j^2; ``d``: sigma_j; ``g``: sigma_k - sigma_{k+1}.
        mode: j, 1-indexed.
        position: (N) or scalar k for ``g``, held fixed between now and the horizon; 0 gives NaN.

    Returns:
        (N) [parameter^2 for lambda, parameter otherwise].

    Raises:
        SettingError: For an unknown kind, a mode out of range, or ``g`` without a position.
    """
    check_choice("kind", kind, ("lambda", "d", "g"))
    sigma = np.asarray(singular_values, dtype=np.float64)
    if kind == "g":
        if position is None:
            raise SettingError('kind="g" needs the position of the gap; got none. Pass gap_position of now.')
        return width(sigma, position)
    if not 1 <= mode <= sigma.shape[-1]:
        raise SettingError(f"mode must lie in 1..{sigma.shape[-1]}; got {mode}. Modes are 1-indexed.")
    return sigma[..., mode - 1] ** (2 if kind == "lambda" else 1)


def check_horizon(horizon: int) -> None:
    """Raise SettingError unless the horizon is at least 1."""
    if horizon < 1:
        raise SettingError(f"horizon must be at least 1 snapshot; got {horizon}. Use W for disjoint windows.")
