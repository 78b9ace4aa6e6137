"""What a candidate may look at: the recording up to each snapshot, by part of the network; no test metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...recording import Recording
from ...recording.derive import cross_grams, row_normalise, window_grams
from .products import GradientPart, Products, all_products, gradient_part

PARTS = ("all", "embedding", "layers", "head")


class History:
    """One run, as its candidates see it.

    Args:
        recording: Of updates.
        window: W.
    """

    def __init__(self, recording: Recording, window: int = 10) -> None:
        self.recording, self.window = recording, window
        self._parts: dict[str, Part] = {}

    @property
    def steps(self) -> np.ndarray:
        """(T) optimizer steps of the snapshots."""
        return self.recording.steps

    def part(self, name: str) -> Part | None:
        """One of ``PARTS``; None where the blocks do not tell it apart."""
        if name not in self._parts:
            chosen = part_indices(self.recording).get(name)
            if chosen is None:
                return None
            self._parts[name] = Part(self.recording, chosen, self.window)
        return self._parts[name]

    def metric(self, name: str) -> np.ndarray | None:
        """(T) last value logged by each snapshot, NaN before the first; None where it was not logged.

        What reads test data is for baselines: candidates ask for training metrics alone.
        """
        if name not in self.recording.metrics:
            return None
        steps, values = self.recording.metrics[name]
        at = np.searchsorted(steps, self.steps, side="right") - 1
        return np.where(at >= 0, np.asarray(values, dtype=np.float64)[np.maximum(at, 0)], np.nan)


class Part:
    """One group of parameters; everything is a (T) series, or a band of them."""

    def __init__(self, recording: Recording, chosen: list[int], window: int) -> None:
        self.window = window
        self.updates = recording.products[:, chosen].sum(axis=1)
        self.theta_dot = recording.theta_dot[:, chosen].sum(axis=1)
        self.theta_norm2 = recording.theta_norm2[:, chosen].sum(axis=1)
        self._n_steps = recording.n_steps
        self._decay = decay_coefficients(recording)

    @cached_property
    def movement(self) -> np.ndarray:
        """(T) root mean square length of the last W updates over the length of the parameters."""
        out = np.full(len(self.updates), np.nan)
        if len(out) >= self.window:
            energy = np.lib.stride_tricks.sliding_window_view(self.updates[:, 0], self.window).mean(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                out[self.window - 1 :] = np.sqrt(energy / self.theta_norm2[self.window - 1 :])
        return out

    def remembered(self, start: int, function: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """``function(movement, start)``, worked out once."""
        if start not in self._remembered:
            self._remembered[start] = function(self.movement, start)
        return self._remembered[start]

    @cached_property
    def _remembered(self) -> dict[int, np.ndarray]:
        return {}

    @cached_property
    def products(self) -> Products:
        """All products of parameters and updates."""
        return all_products(self.updates, self.theta_dot, self.theta_norm2)

    @cached_property
    def gradient(self) -> GradientPart:
        """Updates without decay."""
        return gradient_part(self.products, self._decay, self._n_steps)

    def band(self, of: str) -> np.ndarray:
        """(T, L+1) "update" or "gradient"."""
        return self.updates if of == "update" else self.gradient.band

    @cached_property
    def _cosines(self) -> dict[str, np.ndarray]:
        return {}

    def cosines(self, of: str) -> np.ndarray:
        """(T, L+1) cosines of the rows."""
        if of not in self._cosines:
            self._cosines[of] = row_normalise(self.band(of))
        return self._cosines[of]

    @cached_property
    def _spectra(self) -> dict[str, np.ndarray]:
        return {}

    def spectrum(self, of: str) -> np.ndarray:
        """(T, W) eigenvalues of the Gram matrix of unit rows, descending: they add up to W."""
        if of not in self._spectra:
            grams = window_grams(self.cosines(of), self.window)
            whole = np.isfinite(grams).all(axis=(1, 2))
            out = np.full((len(self.updates), self.window), np.nan)
            if whole.any():
                found = np.linalg.eigvalsh(grams[whole])[:, ::-1]
                # The square of float32 rounding: below it an eigenvalue says nothing.
                out[np.flatnonzero(whole) + self.window - 1] = np.maximum(found, 1e-12)
            self._spectra[of] = out
        return self._spectra[of]

    def window_sums(self, of: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(T) each: ||sum of the W rows||^2, sum of their squares, its product with the W rows before."""
        band, w, n = self.band(of), self.window, len(self.updates)
        total, energy, cross = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
        grams = window_grams(band, w)
        total[w - 1 :] = grams.sum(axis=(1, 2))
        energy[w - 1 :] = np.trace(grams, axis1=1, axis2=2)
        if band.shape[1] >= 2 * w:
            cross[2 * w - 1 :] = cross_grams(band, w, w).sum(axis=(1, 2))
        return total, energy, cross


def part_indices(recording: Recording) -> dict[str, list[int]]:
    """Blocks of each part: embeddings and positions, the head, and everything else but lone normalisations."""
    found = block_parts(recording.blocks[1:], recording.block_info)
    return {"all": [0]} | {part: [1 + i for i in chosen] for part, chosen in found.items()}


def block_parts(blocks: Sequence[str], info: Mapping[str, Mapping[str, Any]]) -> dict[str, list[int]]:
    """Which of these blocks belong to each of "embedding", "layers" and "head": by name, or else by kind."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(blocks):
        kind = name if name in PARTS else info.get(name, {}).get("kind")
        part = {"embedding": "embedding", "head": "head", "norm": ""}.get(str(kind), "layers")
        if part:
            found.setdefault(part, []).append(i)
    return found


def decay_coefficients(recording: Recording) -> np.ndarray:
    """(T) kappa_t = omega sum eta of decoupled decay in the first group; 0 where there is none or none is known."""
    segments: list[dict[str, Any]] = recording.meta.get("segments") or [{}]
    out = np.zeros(recording.n_updates)
    if not recording.lr_sum.shape[1]:
        return out
    for i, segment in enumerate(segments):
        group = (segment.get("groups") or [{}])[0]
        if isinstance(group, dict) and group.get("decoupled_weight_decay"):
            here = recording.segment == i
            out[here] = recording.lr_sum[here, 0] * float(group.get("weight_decay") or 0.0)
    return out
