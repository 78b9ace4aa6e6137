"""Surrogates that keep the power spectrum and nothing else: Fourier phases drawn anew, or a shift in time."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.permutation import MaxStatisticTest
from spectraledge.theory.spectrum import as_grams

Array = NDArray[np.float64]
Phases = Literal["common", "independent"]


def phase_randomised(
    series: ArrayLike, n_draws: int, rng: np.random.Generator, *, phases: Phases = "common"
) -> Array:
    """Draw series with the power spectrum of the given ones and uniform Fourier phases.

    ``X'_f = X_f exp(i phi_f)``: the mean and the circular autocovariance stay exactly. With ``common`` phases the
    circular cross-covariances of all columns stay as well, with ``independent`` ones each column gets its own and
    they are gone. To the transform the record is a circle: where its two ends differ, as with a trend, the jump
    enters the spectrum as noise. Take trends out before.

    Args:
        series: (T,) or (T, d), time first, finite.
        n_draws: Number of draws.
        rng: Source of randomness.
        phases: ``common`` to all columns, or ``independent``.

    Returns:
        (n_draws, T) or (n_draws, T, d) [unit of the series]. Source: standard result (Theiler et al. 1992; common
        phases Prichard and Theiler 1994).

    Raises:
        SettingError: If the series is shorter than 4, not finite, or the choice unknown.

    >>> x = np.arange(6.0) % 4
    >>> y = phase_randomised(x, 1, np.random.default_rng(0))[0]
    >>> bool(np.allclose(np.abs(np.fft.rfft(x)), np.abs(np.fft.rfft(y))))
    True
    """
    x = np.asarray(series, dtype=np.float64)
    if phases not in get_args(Phases):
        raise SettingError(f"phases must be common or independent; got {phases!r}. Common phases keep correlations.")
    if x.ndim not in (1, 2) or len(x) < 4 or n_draws < 1 or not np.isfinite(x).all():
        raise SettingError(
            f"series must be (T,) or (T, d), finite, with T at least 4, and n_draws at least 1; got shape {x.shape} "
            f"and {n_draws}. Leave missing values out."
        )
    columns = x.reshape(len(x), -1)
    turns = _turns(len(x), n_draws, columns.shape[1] if phases == "independent" else 1, rng)
    drawn = np.fft.irfft(np.fft.rfft(columns, axis=0) * turns, n=len(x), axis=1)
    return np.asarray(drawn, dtype=np.float64).reshape(n_draws, *x.shape)


def phase_randomised_gram(gram: ArrayLike, n_draws: int, rng: np.random.Generator) -> Array:
    """Gram of rows whose time course was given common random phases, from the Gram alone.

    Common phases act on time as one orthogonal circulant matrix C, so that the rows X become C X and their products
    ``C G C^T``, whatever the number of parameters: no projection of the rows is needed. All eigenvalues of the whole
    record stay, windows of it do not; the mean of ``C G C^T`` over phases is the circulant part of G.

    Args:
        gram: (T, T) products of *all* pairs of rows [parameter^2]; a band is not enough.
        n_draws: Number of draws.
        rng: Source of randomness.

    Returns:
        (n_draws, T, T) [parameter^2]. Source: standard result for rows; the form for Grams derived.

    Raises:
        SettingError: If a product is missing or T is below 4.

    >>> draws = phase_randomised_gram(np.diag([1.0, 2.0, 3.0, 4.0]), 3, np.random.default_rng(0))
    >>> np.linalg.eigvalsh(draws).round(6)[0]
    array([1., 2., 3., 4.])
    """
    g = as_grams(gram)
    if g.ndim != 2 or len(g) < 4 or not np.isfinite(g).all():
        raise SettingError(
            f"gram must be one (T, T) matrix of all products with T at least 4; got shape {g.shape}. Record every "
            "lag of the stretch."
        )
    turns = _turns(len(g), n_draws, 1, rng)
    # C G: columns of G are turned; then the same along the other axis.
    left = np.fft.irfft(np.fft.rfft(g, axis=0) * turns, n=len(g), axis=1)
    right = np.fft.rfft(left, axis=2) * np.swapaxes(turns, 1, 2)
    both = np.fft.irfft(right, n=len(g), axis=2)
    return 0.5 * (both + np.swapaxes(both, 1, 2))


def circular_shifts(series: ArrayLike, n: int, rng: np.random.Generator) -> Array:
    """Copies of a series turned by different amounts, none of them 0: all T - 1 where n allows.

    Args:
        series: (T, ...) time first.
        n: Number of copies wanted.
        rng: Source of randomness, used only where n < T - 1.

    Returns:
        (min(n, T - 1), T, ...). Source: standard result.

    Raises:
        SettingError: If the series is shorter than 2 or n below 1.

    >>> circular_shifts([1.0, 2.0, 3.0], 9, np.random.default_rng(0))
    array([[3., 1., 2.],
           [2., 3., 1.]])
    """
    x = np.asarray(series, dtype=np.float64)
    if x.ndim < 1 or len(x) < 2 or n < 1:
        raise SettingError(f"A shift needs a series of at least 2 and n of at least 1; got shape {x.shape} and {n}.")
    shifts = np.arange(1, len(x))
    if n < len(shifts):
        shifts = rng.choice(shifts, size=n, replace=False)
    return x[(np.arange(len(x)) - shifts[:, None]) % len(x)]


def surrogate_test(observed: ArrayLike, null: ArrayLike) -> MaxStatisticTest:
    """Place K statistics among those of surrogates, corrected for having looked at all of them.

    Args:
        observed: (K,) larger for more dependence.
        null: (n, K) the same of n surrogates. One without a number counts against the finding.

    Returns:
        Family-wise p-values ``(1 + #{max over K >= observed}) / (1 + n)``; ``n_shifts`` is n. Source: standard result
        (Westfall and Young 1993).

    Raises:
        SettingError: If shapes do not match.

    >>> surrogate_test([3.0, 1.0], [[0.0, 0.5], [2.0, 0.0], [0.0, 1.5]]).p_adjusted
    array([0.25, 0.75])
    """
    x, draws = np.atleast_1d(np.asarray(observed, dtype=np.float64)), np.asarray(null, dtype=np.float64)
    if x.ndim != 1 or draws.ndim != 2 or draws.shape[1] != len(x) or len(draws) < 1:
        raise SettingError(f"null must be (n, K) for {len(x)} statistics; got {draws.shape}. One row per surrogate.")
    made = np.isfinite(x)
    largest = np.where(np.isfinite(draws), draws, np.inf)[:, made].max(axis=-1, initial=-np.inf)
    p = np.where(made, (1.0 + (largest[:, None] >= x).sum(axis=0)) / (1.0 + len(draws)), np.nan)
    return MaxStatisticTest(x, p, float(p[made].min()) if made.any() else float("nan"), len(draws))


def _turns(n: int, n_draws: int, width: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """(n_draws, n // 2 + 1, width) unit factors that leave a real series real and its mean as it is."""
    turns = np.exp(2j * np.pi * rng.random((n_draws, n // 2 + 1, width)))
    turns[:, 0] = 1.0
    if n % 2 == 0:
        turns[:, -1] = np.where(turns[:, -1].real >= 0.0, 1.0, -1.0)  # its own mirror image: only a sign
    return turns
