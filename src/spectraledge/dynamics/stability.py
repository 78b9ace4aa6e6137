"""How far directions can turn, how far they do, and how much of each is kept, in every window of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from ..recording.derive import check_window
from ..recording.select import BlockChoice, block_label
from ..theory.alpha import AlphaKind, stability_coefficients
from ..theory.alpha_null import block_size
from ..theory.gap import gap_position
from ..theory.gap_rules import Rule
from ..theory.overlap import mode_overlaps
from ..theory.rotation import span_sines, tightness, vacuous_share, vector_sines
from ..theory.spectrum import GramSpectrum, gram_spectrum
from ..theory.stability import Mode, check_mode, span_bound, vector_bound
from .columns import Table, columns, known_mean, known_median
from .hierarchy import Hierarchy, alpha_hierarchy, kinds_of
from .windows import grams_ending_at


@dataclass(frozen=True, eq=False)
class Stability:
    """Stability of the directions of one block. N windows, each with the one a row (or W rows) before it.

    Attributes:
        steps: (N) optimizer step at the end of the later window.
        position: (N) k* of the later window, from 1; 0 where nothing is resolved.
        vector_bound: (N, W) upper bound of sin(v_j, v'_j) at lag 1.
        span_bound: (N, W) upper bound of ||sin Theta_k||_F at lag 1, entry k-1 for the first k modes.
        rotation: (N, W) measured sin(v_j, v'_j) at lag 1.
        rotation_far: (N, W) at lag W, where no row is shared; NaN where the lags do not reach.
        span_rotation: (N, W) measured ||sin Theta_k||_F at lag 1.
        span_rotation_far: (N, W) at lag W.
        tightness: (N, W) rotation / vector_bound.
        span_tightness: (N, W) span_rotation / span_bound.
        vacuous: (W) share of windows whose bound of v_j is 1 or more.
        span_vacuous: (W) share of windows whose bound of the span reaches sqrt(k).
        alpha: Name of a coefficient to (N, W).
        hierarchy: Name of a coefficient to its order around k* and what nulls make of it.
        window, stride, block, mode: Settings.
        notes: What is missing and why.
    """

    steps: np.ndarray
    position: np.ndarray
    vector_bound: np.ndarray
    span_bound: np.ndarray
    rotation: np.ndarray
    rotation_far: np.ndarray
    span_rotation: np.ndarray
    span_rotation_far: np.ndarray
    tightness: np.ndarray
    span_tightness: np.ndarray
    vacuous: np.ndarray
    span_vacuous: np.ndarray
    alpha: dict[AlphaKind, np.ndarray]
    hierarchy: dict[AlphaKind, Hierarchy]
    window: int
    stride: int
    block: str
    mode: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a window; ``rotation_1`` belongs to v_1."""
        names = ("vector_bound", "span_bound", "rotation", "rotation_far", "span_rotation", "span_rotation_far")
        table: Table = {"step": self.steps, "k_star": self.position}
        for name in (*names, "tightness", "span_tightness"):
            table |= columns(name, getattr(self, name))
        for name, values in self.alpha.items():
            table |= columns(f"alpha_{name}", values)
        return table

    def summary(self) -> dict[str, Any]:
        """Medians over windows mode by mode, shares of vacuous bounds, and the hierarchy of every coefficient."""
        modes = [
            {
                "j": j + 1,
                "bound": known_median(self.vector_bound[:, j]),
                "vacuous": float(self.vacuous[j]),
                "rotation": known_median(self.rotation[:, j]),
                "rotation_far": known_median(self.rotation_far[:, j]),
                "tightness": known_median(self.tightness[:, j]),
                "span_bound": known_median(self.span_bound[:, j]),
                "span_vacuous": float(self.span_vacuous[j]),
                "span_rotation": known_median(self.span_rotation[:, j]),
                "span_rotation_far": known_median(self.span_rotation_far[:, j]),
                **{f"alpha_{name}": float(known_mean(a[:, j], axis=0)) for name, a in self.alpha.items()},
            }
            for j in range(self.window)
        ]
        return {
            "mode": self.mode,
            "window": self.window,
            "stride": self.stride,
            "block": self.block,
            "n_windows": int(np.isfinite(self.rotation).any(axis=1).sum()),
            "modes": modes,
            "hierarchy": {name: found.summary() for name, found in self.hierarchy.items()},
            "notes": list(self.notes),
        }


def stability(
    recording: Recording,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    n_draws: int = 199,
    seed: int = 0,
    mode: Mode = "strict",
) -> Stability:
    """Bounds and measured rotations of the modes of every window, stability coefficients, and their order.

    ``strict``: bounds from the exact change of X^T X (theorems, see ``theory.stability``), coefficients
    ``overlap2_lagW``, ``overlap2_lag1`` and ``dk``, k* by the guarded rule. ``author``: the published bound
    ||dG||_F / gap with the change of eigenvalues alone, which bounds nothing, coefficients ``dk_dlam``,
    ``dk_f`` and ``half_cos``, k* by the plain rule. Coefficients of different kinds are different numbers,
    so their orders are judged one by one: against surrogate histories with the run's own norms, momentum and
    effective dimension, without a lasting direction and with a constant one.

    Args:
        recording: T updates.
        window: Rows W of a window.
        block: Block or union.
        stride: Updates in a row.
        n_draws: Surrogate histories of each null; 0 leaves nulls and verdicts out.
        seed: Of the surrogates and the intervals.
        mode: ``strict`` or ``author``.

    Returns:
        Arrays over windows, and a verdict on each coefficient. Source: arXiv:2603.28964v1-v3 (author),
        derived (strict).

    Raises:
        SettingError: If the mode is unknown, or the band too narrow for two neighbouring windows.
        DataError: If there are too few updates, or no two neighbouring windows are whole.
    """
    check_mode(mode)
    if n_draws < 0:
        raise SettingError(f"n_draws must be at least 0; got {n_draws}. Use 199, or 0 for no nulls.")
    check_window(window, stride, recording.n_updates, recording.lags, lag=1)
    band = recording.band(block, stride=stride)
    eps = recording.update_eps
    ends = np.arange(window, len(band))
    near = grams_ending_at(band, window + 1, ends)
    if not np.isfinite(near).all(axis=(-2, -1)).any():
        raise DataError(
            f"At least {window + 1} updates in a row must be whole; seams, lost or non-finite ones cut all. "
            "Use a smaller window."
        )
    far = grams_ending_at(band, 2 * window, ends)
    overlaps, overlaps_far = _overlaps(near, window, 1, eps), _overlaps(far, window, window, eps)
    rotation, span_rotation = vector_sines(overlaps), span_sines(overlaps)
    bound = vector_bound(near, window, mode=mode, update_eps=eps)
    of_span = span_bound(near, window, mode=mode, update_eps=eps)
    later = gram_spectrum(near[:, 1:, 1:], update_eps=eps)
    rule: Rule = "guarded" if mode == "strict" else "plain"
    alpha: dict[AlphaKind, np.ndarray] = {}
    notes = []
    for kind in kinds_of(mode, window):
        blocks = grams_ending_at(band, block_size(kind, window), ends)
        alpha[kind] = stability_coefficients(blocks, window, kind, mode=mode, update_eps=eps)
        if not np.isfinite(alpha[kind]).any():
            notes.append(f"{kind} needs {block_size(kind, window)} updates in a row, and as many lags less one")
    known = {kind: values for kind, values in alpha.items() if np.isfinite(values).any()}
    hierarchy = alpha_hierarchy(
        recording, known, window, block, stride, n_draws=n_draws, seed=seed, mode=mode, rule=rule
    )
    if n_draws > 0 and any(not found.nulls for found in hierarchy.values()):
        notes.append(
            f"no null: no stretch of {2 * window} rows has a known effective dimension; it takes more lags, or a "
            "larger stride"
        )
    return Stability(
        steps=recording.steps[stride - 1 :: stride][ends],
        position=gap_position(later.singular_values, rule=rule, floor=later.floor),
        vector_bound=bound,
        span_bound=of_span,
        rotation=rotation,
        rotation_far=vector_sines(overlaps_far),
        span_rotation=span_rotation,
        span_rotation_far=span_sines(overlaps_far),
        tightness=tightness(rotation, bound),
        span_tightness=tightness(span_rotation, of_span),
        vacuous=vacuous_share(bound),
        span_vacuous=vacuous_share(of_span, np.sqrt(np.arange(1.0, window + 1.0))),
        alpha=alpha,
        hierarchy=hierarchy,
        window=window,
        stride=stride,
        block=block_label(block),
        mode=mode,
        notes=tuple(notes),
    )


def _overlaps(blocks: np.ndarray, window: int, lag: int, eps: float) -> np.ndarray:
    """(N, W, W) overlaps of the first and the last ``window`` rows of each block."""
    first: GramSpectrum = gram_spectrum(blocks[:, :window, :window], update_eps=eps)
    last: GramSpectrum = gram_spectrum(blocks[:, lag:, lag:], update_eps=eps)
    return mode_overlaps(
        blocks[:, :window, lag:],
        first.time_profiles,
        first.singular_values,
        last.time_profiles,
        last.singular_values,
        floor=first.floor,
        other_floor=last.floor,
    )
