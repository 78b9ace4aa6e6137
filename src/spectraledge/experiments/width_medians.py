"""Medians of the spectral quantities of a run over a range of optimizer steps. Loads no torch."""

from __future__ import annotations

import numpy as np

from ..dynamics.windows import grams_ending_at
from ..errors import DataError
from ..recording import Recording
from ..theory.adiabatic import adiabatic


def window_medians(recording: Recording, window: int, first: int, last: int) -> dict[str, float | int | None]:
    """R, k*, A_rel and P_eff of the windows that end in a range of steps.

    Args:
        recording: With 2 W - 1 lags or more, for windows W rows apart.
        window: W.
        first: First optimizer step at which a window may end.
        last: Last one.

    Returns:
        ``n_windows``, those with a resolved gap; medians over them of ``ratio`` R = sigma_k / sigma_{k+1} and
        ``k_star`` by the guarded rule, of ``a_rel`` = ||dG|| / g^2 between windows W rows apart (operator reading,
        strict; the later one ends in the range), and of ``p_eff``, the effective dimension of the noise: all
        without unit, None where no window gives one. Source: arXiv:2603.28964v1-v3 (R, k*), derived (A_rel, P_eff).

    Raises:
        DataError: If no window with a resolved gap ends in the range.
    """
    spectra = recording.spectra(window)
    gap = spectra.gap("guarded")
    inside = (spectra.steps >= first) & (spectra.steps <= last)
    known = inside & (gap.position > 0)
    if not known.any():
        raise DataError(
            f"a window with a gap must end in steps {first}..{last}; got none of {len(spectra.steps)} windows. "
            "Widen the range, or use a smaller window or every."
        )
    band = recording.band("all")
    ends = np.flatnonzero(inside) + window - 1
    a_rel = adiabatic(grams_ending_at(band, 2 * window, ends), window, rule="guarded").relative["operator"]
    return {
        "n_windows": int(known.sum()),
        "ratio": _median(gap.ratio[known]),
        "k_star": _median(gap.position[known]),
        "a_rel": _median(a_rel),
        "p_eff": _median(spectra.p_eff[known]),
    }


def _median(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None
