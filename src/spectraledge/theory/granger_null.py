"""How often do Granger tests find that one series leads another where none does?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import lfilter

from spectraledge.errors import SettingError
from spectraledge.theory.granger import GrangerMethod, granger
from spectraledge.theory.intervals import clopper_pearson
from spectraledge.theory.signal_flow import check_choice

Array = NDArray[np.float64]
GrangerNull = Literal["ar1", "overlap", "common"]


@dataclass(frozen=True)
class TestSize:
    """Share of null records in which a test rejects.

    Attributes:
        rate: The share.
        low: Lower end of its exact 95 % interval.
        high: Upper end.
        level: What it should be.
        n_runs: Records with a p-value.
    """

    __test__ = False  # not a test case to a test runner

    rate: float
    low: float
    high: float
    level: float
    n_runs: int


def granger_size(
    null: GrangerNull = "overlap",
    *,
    mode: Literal["strict", "author"] = "strict",
    method: GrangerMethod = "subsample",
    length: int = 200,
    window: int = 10,
    phi: float = 0.9,
    level: float = 0.05,
    n_runs: int = 500,
    n_draws: int = 99,
    rng: np.random.Generator,
) -> TestSize:
    """Rejection rate of :func:`spectraledge.theory.granger.granger` on series of which neither leads.

    ``ar1``: two independent AR(1). ``overlap``: means over W values of two independent white series, as the
    statistics of moving windows are. ``common``: an AR(1) that both follow at the same time, each with noise of its
    own of the same variance, averaged over W: neither leads, but the past of each tells something of the cause, so
    that rejecting is right in the letter. The rate says what a rejection does not mean.

    Args:
        null: One of the three.
        mode: Of the test.
        method: Of the test.
        length: T, values in a record.
        window: W that the test is told, and that ``overlap`` and ``common`` average over.
        phi: Coefficient of ``ar1`` and of the cause in ``common``.
        level: Below which p rejects.
        n_runs: Records.
        n_draws: Surrogates of a record.
        rng: Source of randomness.

    Returns:
        The rate. Source: derived.

    Raises:
        SettingError: For an unknown null, or phi not below 1.
    """
    y, x = null_series(null, n_runs, length, window=window, phi=phi, rng=rng)
    p = granger(y, x, window=window, mode=mode, method=method, n_draws=n_draws, rng=rng).p_value
    made = np.isfinite(p)
    hits, n = int(np.sum(p[made] <= level)), int(made.sum())
    low, high = clopper_pearson(hits, n)
    return TestSize(hits / n if n else float("nan"), float(low), float(high), level, n)


def null_series(
    null: GrangerNull,
    n_runs: int,
    length: int,
    *,
    window: int = 10,
    phi: float = 0.9,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Pairs of series of which neither leads, (n_runs, length) each; see :func:`granger_size`.

    Raises:
        SettingError: For an unknown null, or phi not below 1.
    """
    check_choice("null", null, ("ar1", "overlap", "common"))
    if not (abs(phi) < 1.0 and window >= 1):
        raise SettingError(f"phi must be below 1 in size and window at least 1; got {phi} and {window}. Use 0.9.")
    if null == "ar1":
        pair = _ar1(phi, (2, n_runs, length), rng)
        return pair[0], pair[1]
    steps = rng.standard_normal((2, n_runs, length + window - 1))
    if null == "common":
        steps = steps + _ar1(phi, (1, n_runs, length + window - 1), rng)
    pair = sliding_window_view(steps, window, axis=-1).mean(axis=-1)
    return pair[0], pair[1]


def _ar1(phi: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Stationary AR(1) series of unit variance along the last axis."""
    start = 200  # phi^200 of the first value is left
    noise = rng.standard_normal((*shape[:-1], shape[-1] + start)) * np.sqrt(1.0 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise, axis=-1)[..., start:], dtype=np.float64)
