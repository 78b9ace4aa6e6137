"""How steady the leading directions are: overlaps of windows that share rows, and of windows that share none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingError
from ..theory.overlap import mode_overlaps
from ..theory.spectrum import gram_spectrum
from ..theory.surrogates import sample_gram
from .colors import BLUE, GREEN, VERMILION
from .kind import Kind, Table, sub, window_facts
from .panel import Band, Layer, Line, Mark, Row, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..recording import Recording, Spectra
    from ..recording.select import BlockChoice

_MODES = 3
_COLORS = (BLUE, VERMILION, GREEN)
_N_WINDOWS, _N_DRAWS = 24, 99


def overlaps_table(
    recording: Recording,
    *,
    window: int = 10,
    stride: int = 1,
    block: BlockChoice = "all",
    seed: int = 0,
) -> Table:
    """|<v_j(t), v_j(t - lag)>| of the leading modes at lag 1 and at lag W, and under the null.

    Args:
        recording: T updates.
        window: Rows W of a window.
        stride: Updates in a row.
        block: Block or union.
        seed: Of the null's draws.

    Returns:
        For ``near`` (lag 1) and ``far`` (lag W): ``<which>_steps`` (N), ``<which>_overlap`` (N, J) with J the
        smaller of 3 and W, ``<which>_null_steps`` (n), ``<which>_null_low``, ``<which>_null_median``,
        ``<which>_null_high`` (n, J) at 5, 50 and 95 %; empty where the lag is not there. ``window``,
        ``facts``, ``note``.

    Raises:
        SettingError: If the band is too narrow for a single window.
        DataError: If there are too few updates for lag 1.
    """
    spectra = recording.spectra(window, stride, block)
    rows_norm = np.sqrt(recording.band(block, stride=stride)[:, 0])
    table: Table = {"window": window, "facts": window_facts(spectra, recording.n_steps)}
    notes = []
    for which, lag in (("near", 1), ("far", window)):
        part, why = _at_lag(recording, spectra, rows_norm, lag, block, seed)
        table |= {f"{which}_{name}": values for name, values in part.items()}
        notes += [why] if why else []
    known = [np.isfinite(table[f"{which}_null_median"]).any() for which in ("near", "far")]
    drawn = [np.isfinite(table[f"{which}_overlap"]).any() for which in ("near", "far")]
    if any(drawn) and not any(known):
        notes.append(
            "No null: the effective dimension of the noise is unknown. Record more lags, or use a larger stride."
        )
    return table | {"note": " ".join(notes)}


def _at_lag(
    recording: Recording, spectra: Spectra, rows_norm: np.ndarray, lag: int, block: BlockChoice, seed: int
) -> tuple[Table, str]:
    w, j = spectra.window, min(_MODES, spectra.window)
    shape = np.empty((0, j))
    empty: Table = {"steps": np.empty(0), "overlap": shape, "null_steps": np.empty(0)}
    empty |= {f"null_{level}": shape for level in ("low", "median", "high")}
    if spectra.stride * (w + lag) > recording.lags + 1:
        needed = spectra.stride * (w + lag) - 1
        return empty, f"Lag {lag} is not recorded: it needs lags={needed}, and there are {recording.lags}."
    if len(spectra.steps) <= lag:
        return empty, f"Lag {lag} needs at least {lag + 1} windows; there are {len(spectra.steps)}."
    try:
        steps, overlap = recording.overlaps(w, lag, block, spectra.stride)
    except SettingError as error:  # rows of several updates need more of the band than one window
        return empty, str(error)
    own = np.abs(np.diagonal(overlap, axis1=1, axis2=2)[:, :j])
    index = spread(len(steps), _N_WINDOWS)
    null = np.full((3, len(index), j), np.nan)
    for i, n in enumerate(index):
        end = n + lag  # place of the later window among all windows
        norms, p_eff = rows_norm[n : n + w + lag], spectra.p_eff[end]
        if p_eff > 0 and np.isfinite(own[n, 0]) and np.isfinite(norms).all() and (norms > 0).all():
            rho = spectra.row_correlation[end][: w + lag]
            null[:, i] = null_overlaps(norms, float(p_eff), rho, w, lag, j, np.random.default_rng(seed))
    return {
        "steps": steps,
        "overlap": own,
        "null_steps": steps[index],
        "null_low": null[0],
        "null_median": null[1],
        "null_high": null[2],
    }, ""


def null_overlaps(
    norms: np.ndarray,
    p_eff: float,
    row_correlation: np.ndarray,
    window: int,
    lag: int,
    n_modes: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Quantiles (5, 50, 95 %) of |<v_j, v_j'>| between two windows of noise.

    Args:
        norms: (W + lag) norms of the rows [parameter].
        p_eff: Effective dimension of the noise.
        row_correlation: (W + lag) correlation of rows in time.
        window: W.
        lag: Distance of the windows in rows.
        n_modes: Leading modes to report.
        rng: Source of randomness.

    Returns:
        (3, n_modes). Source: derived, from null B over both windows at once.
    """
    grams = sample_gram(norms, p_eff, row_correlation=row_correlation, n_draws=_N_DRAWS, rng=rng)
    early, late = gram_spectrum(grams[:, :window, :window]), gram_spectrum(grams[:, lag:, lag:])
    cosines = mode_overlaps(
        grams[:, lag:, :window],
        late.time_profiles,
        late.singular_values,
        early.time_profiles,
        early.singular_values,
        floor=late.floor,
        other_floor=early.floor,
    )
    own = np.abs(np.diagonal(cosines, axis1=1, axis2=2)[:, :n_modes])
    out = np.full((3, n_modes), np.nan)
    known = np.isfinite(own).all(axis=0)
    out[:, known] = np.quantile(own[:, known], (0.05, 0.5, 0.95), axis=0)
    return out


def overlaps_rows(table: Table) -> list[Row]:
    """Rows of the figure."""
    rows = []
    labels = {"near": "lag 1: W-1 rows in common", "far": f"lag {table['window']}: no row in common"}
    for which, label in labels.items():
        if not len(table[f"{which}_steps"]):
            continue
        bands: list[Layer] = []
        lines: list[Layer] = []
        x = table[f"{which}_null_steps"]
        for j in range(table[f"{which}_overlap"].shape[1]):
            low, high = table[f"{which}_null_low"][:, j], table[f"{which}_null_high"][:, j]
            if np.isfinite(low).any():
                bands.append(Band(x, low, high, "null, 5-95 % (same colour)", _COLORS[j], opacity=0.13))
            lines.append(
                Line(
                    table[f"{which}_steps"], table[f"{which}_overlap"][:, j], f"v{sub(j + 1)}", _COLORS[j], width=1.2
                )
            )
        rows.append(Row(label, tuple(bands + lines), limits=(-0.03, 1.03), height=1.2))
    return rows


OVERLAPS = Kind(
    key="overlaps",
    title="Steadiness of the leading directions",
    reading=(
        "Windows one row apart overlap in noise, too (about 0.8, 0.65 and 0.57 for equal norms and W = 10); only "
        "overlaps above their band, and those of windows without a common row, tell of a lasting direction."
    ),
    method=(
        "|cos| between v of a window and the same mode of the window 1 or W rows earlier; raw rows. Null: as for the "
        f"singular values, over both windows at once; 5-95 % of {_N_DRAWS} draws at {_N_WINDOWS} windows at most."
    ),
    table=overlaps_table,
    rows=overlaps_rows,
    options=("window", "stride", "block", "seed"),
)


def plot_overlaps(
    source: Recording | Table, ax: Axes | None = None, *, marks: Sequence[Mark] = (), **options: Any
) -> Figure:
    """Draw the overlaps at lag 1 and lag W against their null.

    Args:
        source: A recording, or a table of ``overlaps_table``.
        ax: Where to draw; a new figure where None.
        marks: Vertical lines.
        **options: Of ``overlaps_table``.
    """
    return OVERLAPS.draw(source, ax, marks=marks, **options)
