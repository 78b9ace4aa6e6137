"""What detectors look at: a few numbers of each window, free of scale and near to normal in noise.

Rows are divided by their lengths first, so that updates that shrink, or a learning rate that follows a schedule,
leave every feature as it is. (Derived.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import SettingError
from ..recording.derive import cross_grams, row_normalise, window_grams
from ..theory.gap import gap_position, ratios, width
from ..theory.spectrum import GramSpectrum, gram_spectrum

# cos = 1 - 1e-6 is as close to parallel as two float32 update windows can be told apart.
_LARGEST_COSINE = 1.0 - 1e-6
# Smallest share of ||M||^2 that a change of M can be told from rounding by (half of the digits are lost).
_SMALLEST_CHANGE = 1e-12


@dataclass(frozen=True, eq=False)
class WindowFeatures:
    """Features of the windows that end at each of N rows; NaN where a product is missing or a mode unresolved.

    sigma_j are those of unit rows, so that sum sigma_j^2 = W. b is the root of the mean sigma_j^2 of the smaller
    half, j > W // 2: the floor as seen in the window itself.

    Attributes:
        excess1: (N) log(sigma_1 / b).
        excess2: (N) log(sigma_2 / b); NaN for W < 4.
        excess3: (N) log(sigma_3 / b); NaN for W < 6.
        log_ratio: (N) log of the largest sigma_k / sigma_{k+1}, k <= W // 2.
        overlap: (N) atanh |cos(v_1(t), v_1(t - W))| of two disjoint windows.
        adiabatic: (N) log A_rel, A_rel = ||M(t) - M(t - W)||_F / g(t - W)^2 as in ``theory.adiabatic``.
        log_ratios: (N, W // 2) log(sigma_k / sigma_{k+1}) at every position.
    """

    excess1: np.ndarray
    excess2: np.ndarray
    excess3: np.ndarray
    log_ratio: np.ndarray
    overlap: np.ndarray
    adiabatic: np.ndarray
    log_ratios: np.ndarray


def window_features(band: np.ndarray, window: int, last: int | None = None) -> WindowFeatures:
    """Features of every row of a band.

    Args:
        band: (N, L+1) products [parameter^2], NaN where missing; L >= W - 1, and L >= 2W - 1 for ``overlap`` and
            ``adiabatic``, which are NaN otherwise.
        window: W >= 3.
        last: Only the last so many rows; they equal those of the whole band to the bit.

    Returns:
        N (or ``last``) rows; the first W - 1 (2W - 1) of the band hold NaN. Source: derived.

    Raises:
        SettingError: If the window is below 3 or does not fit the band.

    >>> rows = np.random.default_rng(0).standard_normal((30, 500))
    >>> band = np.array([[rows[t] @ rows[t - l] if t >= l else np.nan for l in range(10)] for t in range(30)])
    >>> found = window_features(band, 5)
    >>> bool(np.isnan(found.log_ratio[3])), bool(np.allclose(found.overlap[10:], 0, atol=0.2))
    (True, True)
    """
    check_window(window, band.shape[1] - 1)
    half = window // 2
    n = len(band) if last is None else min(last, len(band))
    cosines = row_normalise(np.asarray(band, dtype=np.float64))
    grams = window_grams(cosines, window)
    two = band.shape[1] >= 2 * window
    # Windows asked for, and where each one's partner W rows before it stands among those that are diagonalised.
    asked = np.arange(max(len(grams) - n, 0), len(grams))
    partner = asked[asked >= window] - window if two else asked[:0]
    used = np.union1d(asked, partner)
    spectrum = gram_spectrum(grams[used])
    now = np.searchsorted(used, asked)
    sigma, floor = spectrum.singular_values[now], spectrum.floor[now]
    resolved = spectrum.resolved[now]
    # A noise-free stretch has a smaller half of rounding alone: what is reported is then a lower bound.
    bulk = np.maximum(np.sqrt(np.square(sigma[:, half:]).mean(axis=1)), floor)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = [
            np.log(np.where(resolved[:, j], sigma[:, j], np.nan) / bulk) if j < half else np.full(len(sigma), np.nan)
            for j in range(3)
        ]
        log_ratios = np.log(ratios(sigma, floor)[:, :half])
        largest = np.fmax.reduce(log_ratios, axis=1)
    cross = cross_grams(cosines, window, window)[partner] if len(partner) else np.empty((0, window, window))
    between = _between(cross, spectrum, now[len(now) - len(partner) :], np.searchsorted(used, partner))
    return WindowFeatures(*(_at_end(x, n) for x in (*excess, largest, *between, log_ratios)))


def check_window(window: int, lags: int) -> None:
    """Raise SettingError unless detectors can work with this window on a band of so many lags."""
    if window < 3:
        raise SettingError(
            f"window must be at least 3 for detectors; got {window}. Two updates have no floor: use window=10."
        )
    if lags < window - 1:
        raise SettingError(
            f"window must be at most lags + 1 = {lags + 1}; got {window}. Record with lags={2 * window - 1}."
        )


def _between(
    cross: np.ndarray, spectrum: GramSpectrum, now: np.ndarray, before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Overlap and A of window pairs ``now[i]``, ``before[i]`` whose products are ``cross[i]``."""
    sigma, u, floor = spectrum.singular_values, spectrum.time_profiles[:, :, 0], spectrum.floor
    # Plain sums over the last axis: the same to the bit for one window and for many, which a matrix product is not.
    projected = (cross * u[before][:, None, :]).sum(axis=2)
    first = np.where(spectrum.resolved[:, 0], sigma[:, 0], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.abs((projected * u[now]).sum(axis=1)) / (first[now] * first[before])
        overlap = np.arctanh(np.minimum(cosine, _LARGEST_COSINE))
        energy = np.square(np.square(sigma)).sum(axis=1)
        total = energy[now] + energy[before]
        shared = np.square(cross).sum(axis=2).sum(axis=1)
        change = np.maximum(total - 2.0 * shared, _SMALLEST_CHANGE * total)
        position = gap_position(sigma[before], floor=floor[before])
        gap = np.maximum(width(sigma[before], position), floor[before])
        adiabatic = 0.5 * np.log(change) - 2.0 * np.log(gap)
    return overlap, adiabatic


def _at_end(values: np.ndarray, n: int) -> np.ndarray:
    """``values`` at the end of n rows, NaN before."""
    out = np.full((n, *values.shape[1:]), np.nan)
    out[n - len(values) :] = values
    return out
