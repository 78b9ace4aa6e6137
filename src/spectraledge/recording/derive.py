"""Windows, strides and cross windows gathered from the band of inner products. Pure functions on arrays.

A band is ``band[t, l] = <delta_t, delta_{t-l}>``, l = 0..L. A window ending at row t holds rows t-W+1..t; its
Gram matrix is a rearrangement of the band. Rows coarsen by bilinearity: the product of two sums of updates is
the sum of the products. (Standard; the layout is described in docs/recording.md.)
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError, SettingError


def check_window(window: int, stride: int, n_updates: int, lags: int, *, lag: int = 0) -> None:
    """Refuse a window that the band, or the run, does not hold.

    Args:
        window: Rows W of a window.
        stride: Updates m added up into one row.
        n_updates: Updates T in the recording.
        lags: Largest lag L of the band, in updates.
        lag: Distance in rows between two windows that are compared; 0 for one window.

    Raises:
        SettingError: If the window is below 2, the stride below 1, or the band too narrow.
        DataError: If there are fewer updates than needed.
    """
    if window < 2:
        raise SettingError(
            f"window must be at least 2; got {window}. A single update has no gap: use window=10 as in the paper."
        )
    if stride < 1:
        raise SettingError(f"stride must be at least 1; got {stride}. stride=1 takes every recorded update.")
    if lag < 0:
        raise SettingError(f"lag must be at least 0; got {lag}. lag=window compares disjoint windows.")
    needed = stride * (window + lag)
    if needed > lags + 1:
        rows = f"(window {window} + lag {lag})" if lag else f"window {window}"
        raise SettingError(
            f"stride {stride} x {rows} must be at most lags + 1 = {lags + 1}; got {needed}. "
            f"Record with lags={needed - 1}, or use a smaller window{', lag' if lag else ''} or stride."
        )
    if n_updates < needed:
        raise DataError(
            f"A run must have at least {needed} updates for windows of {window} at stride {stride}"
            f"{f' and lag {lag}' if lag else ''}; it has {n_updates}. "
            "Use a smaller window, or record more often (every=...)."
        )


def coarsen(products: np.ndarray, n_steps: np.ndarray | None, stride: int) -> np.ndarray:
    """The band of rows that each add up ``stride`` consecutive updates.

    Row i holds updates i*m..i*m+m-1, counted from the first one; a remainder at the end is left out. Rows
    with a missing product inside, hence those across a seam, are NaN, and so are rows whose updates did not
    all take the same number of steps.

    Args:
        products: (T, ..., L+1) band [parameter^2].
        n_steps: (T) optimizer steps of each update, or None to trust that they are equal.
        stride: m.

    Returns:
        (T // m, ..., (L+1) // m) band.

    Raises:
        SettingError: If the stride is below 1 or above L+1.

    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> band = np.array([[x[t] * x[t - l] if t >= l else np.nan for l in range(4)] for t in range(4)])
    >>> coarsen(band, None, 2)      # rows 1+2 and 3+4
    array([[ 9., nan],
           [49., 21.]])
    """
    width = products.shape[-1]
    if not 1 <= stride <= width:
        raise SettingError(
            f"stride must be from 1 to lags + 1 = {width}; got {stride}. Record with lags={max(stride - 1, 0)}."
        )
    if stride == 1:
        return products
    m = stride
    n_rows, n_lags = len(products) // m, width // m
    fine = products[: n_rows * m].reshape(n_rows, m, *products.shape[1:])
    band = np.zeros((n_rows, *products.shape[1:-1], n_lags))
    for lag in range(n_lags):
        for a in range(m):
            for b in range(m):
                distance = lag * m + a - b  # update i*m+a against update (i-lag)*m+b
                newer = a if distance >= 0 else b  # below 0 only inside one row
                band[..., lag] += fine[:, newer, ..., abs(distance)]
    if n_steps is not None:
        counts = np.asarray(n_steps)[: n_rows * m].reshape(n_rows, m)
        band[np.any(counts != counts[:, :1], axis=1)] = np.nan
        uneven = np.isnan(band[..., 0])
        for lag in range(1, n_lags):  # a row is of no use as a partner either
            band[lag:, ..., lag][uneven[:-lag]] = np.nan
    return band


def window_grams(band: np.ndarray, window: int) -> np.ndarray:
    """Gram matrices of all windows.

    Args:
        band: (T, L+1) products.
        window: W, at most L+1.

    Returns:
        (T-W+1, W, W); rows and columns run from the oldest update to the newest. A matrix with a missing
        product holds NaN.
    """
    return _gather(band, window, 0)


def cross_grams(band: np.ndarray, window: int, lag: int) -> np.ndarray:
    """Products between the rows of each window and those of the window that ends ``lag`` rows earlier.

    Args:
        band: (T, L+1) products.
        window: W.
        lag: Distance of the two windows in rows, at most L+1-W; W and more make them disjoint.

    Returns:
        (T-W+1-lag, W, W): entry [n, i, j] is <row i of the later window, row j of the earlier one>.
    """
    return _gather(band, window, lag)


def _gather(band: np.ndarray, window: int, lag: int) -> np.ndarray:
    n = max(len(band) - window + 1 - lag, 0)
    rows = np.arange(window)
    later = lag + rows[:, None]  # positions counted from the first row of the earlier window
    earlier = np.broadcast_to(rows[None, :], (window, window))
    newer, distance = np.maximum(later, earlier), np.abs(later - earlier)
    return band[np.arange(n)[:, None, None] + newer, distance]


def row_normalise(band: np.ndarray) -> np.ndarray:
    """The band of rows of length 1: cosines. A zero row has no direction: NaN.

    Args:
        band: (T, L+1).
    """
    norm = np.sqrt(band[:, 0])
    norm[norm == 0] = np.nan
    return scale_rows(band, 1 / norm)


def scale_rows(band: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The band of ``factor[t] * delta_t``.

    Args:
        band: (T, L+1).
        factor: (T).
    """
    scaled = band * factor[:, None]
    for lag in range(band.shape[1]):
        scaled[lag:, lag] *= factor[: max(len(factor) - lag, 0)]
    return scaled


def theta_band(products: np.ndarray, theta_dot: np.ndarray) -> np.ndarray:
    """Products of the parameters with the updates that led to them.

    <theta_t, delta_{t-l}> = <theta_{t-1}, delta_{t-l}> + <delta_t, delta_{t-l}>, so all lags follow from
    lag 0 (derived).

    Args:
        products: (T, L+1) band.
        theta_dot: (T) <theta_t, delta_t>.

    Returns:
        (T, L+1) array of <theta_t, delta_{t-l}>; NaN where a product on the way is missing.
    """
    band = np.full(products.shape, np.nan)
    band[:, 0] = theta_dot
    for lag in range(1, products.shape[1]):
        band[lag:, lag] = band[lag - 1 : -1, lag - 1] + products[lag:, lag]
    return band
