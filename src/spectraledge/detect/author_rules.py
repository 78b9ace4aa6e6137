"""The published warning signals as causal series: at each step only what was known by then.

Published rules look at the run as a whole and fire by construction (a running maximum over a present value is at
least 1). Here they are series like any other, to be compared with runs that never have the event.
"""

from __future__ import annotations

import numpy as np

from ..recording import Recording, Spectra
from ..theory.gap import g23

Series = tuple[np.ndarray, np.ndarray]

DECLINE = 1.5
"""Published: the largest g_23 before the grok step over that at it, above 1.5."""

ONSET_FACTOR, ONSET_LEVEL, ONSET_FLOOR = 10.0, 20.0, 0.1
"""Published: commutator defect above 10 times max(median of the first 3, 0.1), and above 20."""

_LARGEST = 1e20


def g23_decline(spectra: Spectra) -> Series:
    """(N) steps and largest g_23 of earlier windows over that of the present one; NaN at the first.

    Source: author's code, which takes the present window at the grok step and therefore has no value for runs
    without one.
    """
    g = spectra.g23
    return spectra.steps, decline(g)


def decline(g: np.ndarray) -> np.ndarray:
    """(N) largest value before each over the value itself, at most 1e20.

    >>> decline(np.array([1.0, 4.0, 2.0]))
    array([ nan, 0.25, 2.  ])
    """
    out = np.full(len(g), np.nan)
    if len(g) > 1:
        before = np.fmax.accumulate(g)[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            out[1:] = np.minimum(before / g[1:], _LARGEST)
    return out


def weight_series(recording: Recording) -> dict[str, Series]:
    """sigma_1 / sigma_2 and g_23 of the query matrices, medians over layers; empty where none were measured."""
    weights = recording.weights
    names = [n for n in weights.names if n.endswith((".q", "q_proj.weight", "q_proj", "W_Q", "W_q", "w_q"))]
    if not names or not len(weights.steps) or weights.singular_values.shape[-1] < 2:
        return {}
    sigma = np.stack([weights.of(name) for name in names])  # (M, T, K)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = _median(sigma[..., 0] / sigma[..., 1])
    found = {"ratio": (weights.steps, ratio)}
    if sigma.shape[-1] > 2:
        found["g23"] = (weights.steps, _median(g23(sigma)))
    return found


def commutator_onset(steps: np.ndarray, defect: np.ndarray) -> Series:
    """How far the commutator defect is towards its published onset: 1 is the onset.

    The published defect is a median over 5 to 12 pairs of batches; of one pair a measurement, the median of the last
    three stands for it. From the third measurement on, as published.

    Args:
        steps: (T).
        defect: (T) as logged.

    Returns:
        (T - 2) steps and min(D / (10 max(baseline, 0.1)), D / 20); none for fewer than 4 measurements.

    >>> commutator_onset(np.arange(5), np.array([1.0, 1.0, 1.0, 40.0, 40.0]))[1]
    array([0.05, 0.05, 2.  ])
    """
    known = np.isfinite(defect)
    at, d = np.asarray(steps)[known], np.asarray(defect, dtype=np.float64)[known]
    if len(d) < 4:
        return at[:0], d[:0]
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(d, 3), axis=1)
    baseline = max(float(smooth[0]), ONSET_FLOOR)
    return at[2:], np.minimum(smooth / (ONSET_FACTOR * baseline), smooth / ONSET_LEVEL)


def _median(values: np.ndarray) -> np.ndarray:
    """(T) median over the first axis, NaN where all are."""
    out = np.full(values.shape[1], np.nan)
    some = np.isfinite(values).any(axis=0)
    out[some] = np.nanmedian(np.where(np.isfinite(values[:, some]), values[:, some], np.nan), axis=0)
    return out
