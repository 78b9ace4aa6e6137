"""What the spectrum of a window would look like without a signal: null B, window by window.

Rows of the observed norms in random directions of the estimated effective dimension, correlated in time by
momentum as the optimizer's setting says. No effective dimension, no null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..theory.gap import gap_p_value, ratios
from ..theory.spectrum import trace
from ..theory.surrogates import sample_gram
from .kind import Table
from .panel import spread

if TYPE_CHECKING:
    from ..recording import Spectra

N_DRAWS = 199
LOW, HIGH = 0.05, 0.95
METHOD = (
    "Null: rows of the same norms in random directions of P_eff dimensions, correlated in time by momentum alone; "
    f"5-95 % of {N_DRAWS} draws a window. P_eff is estimated from the cosines between updates; a turning drift "
    "lowers it, which widens the band."
)
_NO_DIMENSION = (
    "No null: the effective dimension P_eff of the noise cannot be estimated from these windows, because too few "
    "pairs of updates lie further apart than momentum reaches. Record more lags, or use a larger stride."
)


def null_table(
    spectra: Spectra,
    *,
    norms: np.ndarray | None = None,
    n_windows: int = 60,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> Table:
    """Quantiles of the null for windows spread over the run.

    Every window takes the same random numbers, so that two differ by their data and not by the draw.

    Args:
        spectra: N windows of W rows.
        norms: (N, W) norms of the null's rows; the observed ones where None.
        n_windows: Windows to sample for, at most.
        n_draws: Surrogates a window.
        seed: Of the surrogates.

    Returns:
        ``index`` (n) of the windows and their ``steps``; ``sigma_low``, ``sigma_high`` (n, W) [as sigma];
        ``ratio_low``, ``ratio_median``, ``ratio_high`` (n, W-1); ``g23_share_low``, ``g23_share_high`` (n),
        all at 5, 50 and 95 %, NaN where the null cannot be drawn; ``p_eff`` (n); ``note``, what is missing.

    Source: null B of the correlated-row sampler, derived; see ``theory.surrogates.sample_gram``.
    """
    index = spread(len(spectra.steps), n_windows)
    w, n = spectra.window, len(index)
    shapes = {"sigma": (n, w), "ratio": (n, w - 1), "g23_share": (n,)}
    table: Table = {
        f"{name}_{level}": np.full(shape, np.nan)
        for name, shape in shapes.items()
        for level in ("low", "median", "high")
    }
    norms, p_eff = (spectra.norms if norms is None else norms)[index], spectra.p_eff[index]
    # A window across a seam has norms all the same, but nothing to compare a null with.
    whole = np.isfinite(spectra.singular_values[index, 0])
    usable = whole & (p_eff > 0) & np.isfinite(norms).all(axis=1) & (norms > 0).all(axis=1)
    for i in np.flatnonzero(usable):
        grams = sample_gram(
            norms[i],
            float(p_eff[i]),
            row_correlation=spectra.row_correlation[index[i]][:w],
            n_draws=n_draws,
            rng=np.random.default_rng(seed),
        )
        lam = np.maximum(np.linalg.eigvalsh(grams)[:, ::-1], 0.0)
        sigma = np.sqrt(lam)
        third = lam[:, 2] if w > 2 else 0.0
        draws = {
            "sigma": sigma,
            # Fewer dimensions than rows leave modes of rounding, whose ratios mean nothing.
            "ratio": ratios(sigma, 1e-7 * sigma[:, 0]),
            "g23_share": (lam[:, 1] - third) / trace(sigma),
        }
        for name, values in draws.items():
            table[f"{name}_low"][i], table[f"{name}_median"][i], table[f"{name}_high"][i] = _quantiles(values)
    note = "" if usable.any() or not whole.any() else _NO_DIMENSION
    return table | {"index": index, "steps": spectra.steps[index], "p_eff": p_eff, "note": note}


def p_values(spectra: Spectra, index: np.ndarray, *, n_draws: int = N_DRAWS, seed: int = 0) -> np.ndarray:
    """(n) p-values of the guarded rule for some windows; those of ``Gap.p_value`` where all are asked for.

    Args:
        spectra: N windows.
        index: (n) which.
        n_draws: Surrogates.
        seed: Of the surrogates.
    """
    result = np.full(len(index), np.nan)
    if not len(index):
        return result
    kinds, which = np.unique(spectra.row_correlation[index], axis=0, return_inverse=True)
    for i, rho in enumerate(kinds):
        members = np.flatnonzero(which.reshape(-1) == i)
        windows = index[members]
        result[members] = gap_p_value(
            spectra.gram[windows],
            spectra.singular_values[windows],
            p_eff=spectra.p_eff[windows],
            row_correlation=rho,
            rule="guarded",
            floor=spectra.floor[windows],
            n_draws=n_draws,
            rng=np.random.default_rng(seed),
        )
    return result


def p_eff_words(p_eff: np.ndarray) -> str:
    """The effective dimension in a line of facts; empty where it is unknown."""
    known = p_eff[np.isfinite(p_eff)]
    return f" · P_eff = {np.median(known):.3g} (median)" if len(known) else ""


def _quantiles(values: np.ndarray) -> np.ndarray:
    if values.ndim == 1:
        return np.quantile(values, (LOW, 0.5, HIGH))
    out = np.full((3, values.shape[1]), np.nan)
    known = np.isfinite(values).all(axis=0)
    out[:, known] = np.quantile(values[:, known], (LOW, 0.5, HIGH), axis=0)
    return out
