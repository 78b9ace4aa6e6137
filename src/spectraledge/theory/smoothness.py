"""Is a window one smooth path? Then modes 2 and 3 are its curvature and torsion, not further signals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def legendre_polynomials(window: int) -> Array:
    """Orthonormal discrete Legendre polynomials on ``window`` points, (W, W), column j of degree j.

    >>> bool(np.allclose(legendre_polynomials(4)[:, 0], 0.5))
    True
    """
    tau = np.linspace(-1.0, 1.0, window)
    q, r = np.linalg.qr(np.polynomial.legendre.legvander(tau, window - 1))
    return q * np.sign(np.diag(r))


def legendre_overlaps(time_profiles: ArrayLike, n: int = 4) -> Array:
    """|<u_j, p_{j-1}>| between time profiles and discrete Legendre polynomials.

    Close to 1 in a smooth path, and in any temporally correlated noise. White noise at W = 10 has mean 0.26
    and 95 % point 0.6.

    Args:
        time_profiles: (..., W, W), column j is u_j.
        n: Number of leading modes to compare; at most W - 1 are.

    Returns:
        (..., min(n, W - 1)). Source: derived.
    """
    u = np.asarray(time_profiles, dtype=np.float64)
    window = u.shape[-1]
    n = min(n, window - 1)
    p = legendre_polynomials(window)
    return np.abs(np.einsum("aj,...aj->...j", p[:, :n], u[..., :n]))


def turning_rate(singular_values: ArrayLike) -> Array:
    """Rate r = |d delta / dt| / |delta| per update that a smooth path with this sigma_1/sigma_2 has.

    ``sigma_1/sigma_2 = sqrt(12) / (r sqrt(W^2 - 1))`` for a linear drift seen at the window's centre.
    Valid where :func:`smooth_path` holds. Source: derived.

    Args:
        singular_values: (..., W) with W >= 2.

    Returns:
        (...) per update; NaN where sigma_1 is 0.
    """
    sigma = np.asarray(singular_values, dtype=np.float64)
    window = sigma.shape[-1]
    if window < 2:
        raise SettingError("A window must hold at least 2 updates to turn; got 1. Use window=10 as in the paper.")
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(sigma[..., 0] > 0.0, sigma[..., 1] / sigma[..., 0], np.nan)
    return np.sqrt(12.0 / (window**2 - 1.0)) * ratio


def smooth_path(time_profiles: ArrayLike, level: float = 0.9) -> NDArray[np.bool_]:
    """Whether u_1, u_2, u_3 all follow Legendre polynomials of degree 0, 1, 2 more closely than ``level``.

    In such a window modes 2 and 3 are not evidence of separate signals. Always False for W < 4, where three
    overlaps say nothing. Source: derived.
    """
    overlaps = legendre_overlaps(time_profiles, 3)
    with np.errstate(invalid="ignore"):
        flag = np.asarray((overlaps > level).all(axis=-1))
    return flag if overlaps.shape[-1] == 3 else np.zeros_like(flag)
