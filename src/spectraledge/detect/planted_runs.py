"""Runs with one planted event at a random row, and the runs with a planted decay of norms: the positive controls.

Strength is in units of the noise floor: of the norm of the noise in one update.
"""

from __future__ import annotations

import numpy as np

from ..errors import SettingError
from ..theory import synthetic
from .null_runs import band_of_rows

CONTROLS = {
    "P1": "a second direction is switched on beside a drift of twice the floor",
    "P2": "two modes cross and exchange their directions",
    "P3": "a turning direction loses its memory: overlap of neighbours 0.99, then 0.5",
    "P4": "the curvature of half of the axes rises twentyfold in the middle of a descent",
    "P5": "norms fall by 5 % an update and nothing else: must stay silent",
}
"""The positive controls of the protocol, P5 being a negative one."""


def planted_band(
    control: str,
    strength: float,
    rng: np.random.Generator,
    *,
    n_updates: int = 200,
    lags: int = 19,
    n_parameters: int = 1000,
) -> tuple[np.ndarray, int]:
    """One run with a planted event.

    Args:
        control: A key of ``CONTROLS``.
        strength: Length of the planted signal over that of the noise in one update; ignored for P5.
        rng: Source of randomness, of the row of the event too: uniform over the second half, 30 rows before the end.
        n_updates: Updates N.
        lags: L.
        n_parameters: P; the noise is white, so this is its effective dimension.

    Returns:
        Band (N, L+1), and the row t_0 of the first update after the event.

    Raises:
        SettingError: For an unknown control or a strength that is not positive.
    """
    if control not in CONTROLS:
        raise SettingError(f"control must be one of {', '.join(CONTROLS)}; got {control!r}. P1 switches a mode on.")
    if not strength > 0.0:
        raise SettingError(f"strength must be positive; got {strength}. 2 is twice the noise floor.")
    step = int(rng.integers(n_updates // 2, n_updates - 30))
    rows = _rows(control, strength, n_updates, step, n_parameters, rng)
    return band_of_rows(rows, lags), step


def _rows(control: str, strength: float, n: int, step: int, p: int, rng: np.random.Generator) -> np.ndarray:
    if control == "P1":
        return synthetic.mode_switch_on(n, step, strength=strength, n_parameters=p, rng=rng).updates
    if control == "P2":
        # Strengths differ by 1 % of the mean more every row, and by 4 % at the crossing: the exchange takes 4 rows.
        alternating = synthetic.avoided_crossing(
            n,
            step,
            mean=strength,
            rate=0.005 * strength,
            coupling=0.02 * strength,
            noise=1.0,
            n_parameters=p,
            rng=rng,
        ).updates
        return _paired(alternating)
    if control == "P3":
        turning = synthetic.coherence_loss(n, step, n_parameters=p, rng=rng).updates
        return strength * turning + synthetic.white_noise(n, n_parameters=p, rng=rng).updates
    if control == "P4":
        # A descent shrinks by 2 % a row; the noise is chosen so that its signal has the strength at the event.
        signal = 0.2 * 0.98**step
        return synthetic.curvature_change(n, step, noise=signal / strength, n_parameters=p, rng=rng).updates
    return synthetic.norm_decay(n, n_parameters=p, rng=rng).updates


def _paired(rows: np.ndarray) -> np.ndarray:
    """Sum and difference of each two rows: both modes in every row.

    Rows that hold one mode each lose its strength with their length. The pairs are turned in time by an orthogonal
    matrix, so that the noise stays white and whole pairs keep their singular values.
    """
    mixed = rows.copy()
    even, odd = rows[: len(rows) // 2 * 2 : 2], rows[1::2]
    mixed[: 2 * len(odd) : 2], mixed[1::2] = (even + odd) / np.sqrt(2.0), (even - odd) / np.sqrt(2.0)
    return mixed
