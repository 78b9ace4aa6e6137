"""Spectra of all windows of a run, and the gap in each by one rule. Views on theory; they hold the arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..theory import gap as gap_theory
from ..theory.gap_rules import Rule
from ..theory.noise import effective_dimension, momentum_row_correlation
from ..theory.spectrum import participation_ratio, trace
from .derive import window_grams

_NEGLIGIBLE = 0.02  # correlation of rows below which a pair counts as free of momentum, for P_eff


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of the windows of one block at one stride.

    N windows of W rows, each ending at one row; windows with a missing product are NaN throughout.

    Attributes:
        steps: (N) optimizer step of the last update in each window.
        singular_values: (N, W) sigma_j in descending order [parameter; no unit where rows are normalised].
        time_profiles: (N, W, W) u_j in columns; their entries run from the oldest row to the newest.
        floor: (N) smallest singular value told apart from rounding.
        resolved: (N, W) whether sigma_j lies above the floor.
        gram: (N, W, W) the matrices themselves.
        window: W.
        stride: Updates in a row.
        block: Name of the block or union.
        normalisation: "raw", "row" or "lr".
        row_correlation: (N, 2W) correlation of rows at lags 0..2W-1 that momentum alone makes.
        error: (N) bound on the absolute error of a singular value that ``error_norm2`` of the rows makes, part of
            the floor [parameter].
        relative_error: Bound on their relative error where updates were sketched, else 0.
    """

    steps: np.ndarray
    singular_values: np.ndarray
    time_profiles: np.ndarray
    floor: np.ndarray
    resolved: np.ndarray
    gram: np.ndarray
    window: int
    stride: int
    block: str
    normalisation: str
    row_correlation: np.ndarray
    _band: np.ndarray = field(repr=False)
    error: np.ndarray | float = 0.0
    relative_error: float = 0.0

    def gap(self, rule: Rule = "guarded", *, n_draws: int = 199, seed: int = 0) -> Gap:
        """The gap of every window.

        Args:
            rule: "guarded" (j <= W // 2, resolved modes), "plain", "weighted" or "difference".
            n_draws: Surrogates behind a p-value, which is at least 1 / (n_draws + 1).
            seed: Seed of the surrogates: the same recording gives the same p-values.

        Raises:
            SettingError: If the rule is unknown.
        """
        sigma = self.singular_values
        position = gap_theory.gap_position(sigma, rule=rule, floor=self.floor)
        return Gap(
            rule=rule,
            position=position,
            ratio=gap_theory.gap_ratio(sigma, position),
            width=gap_theory.width(sigma, position),
            eigen_width=gap_theory.eigen_width(sigma, position),
            spectra=self,
            n_draws=n_draws,
            seed=seed,
        )

    @property
    def trace(self) -> np.ndarray:
        """(N) tr G: the energy of the updates in each window."""
        return trace(self.singular_values)

    @property
    def participation_ratio(self) -> np.ndarray:
        """(N) (tr G)^2 / tr G^2: how many modes share the energy, from 1 to W."""
        return participation_ratio(self.singular_values)

    @property
    def g23(self) -> np.ndarray:
        """(N) sigma_2^2 - sigma_3^2: an ``eigen_width`` at position 2 (arXiv:2603.28964)."""
        return gap_theory.g23(self.singular_values)

    @property
    def ratios(self) -> np.ndarray:
        """(N, W-1) sigma_j / sigma_{j+1}, NaN where the denominator is not resolved."""
        return gap_theory.ratios(self.singular_values, self.floor)

    @property
    def norms(self) -> np.ndarray:
        """(N, W) norms of the rows of each window."""
        return np.sqrt(np.diagonal(self.gram, axis1=-2, axis2=-1))

    @cached_property
    def p_eff(self) -> np.ndarray:
        """(N) effective dimension of the noise in the updates, from the last min(2W, L+1) rows.

        NaN where too few pairs of rows lie further apart than momentum reaches: a larger stride or more lags
        cure that. Source: derived, see ``theory.noise.effective_dimension``.
        """
        size = min(2 * self.window, self._band.shape[1])
        before = np.full((size - self.window, self._band.shape[1]), np.nan)
        grams = window_grams(np.concatenate([before, self._band]), size)
        result = np.full(len(self.steps), np.nan)
        for windows, rho in self._by_correlation():
            reach = int(np.flatnonzero(np.abs(rho) > _NEGLIGIBLE)[-1])
            result[windows] = effective_dimension(grams[windows], beyond=max(1, reach), row_correlation=rho[:size])
        return result

    def _by_correlation(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Windows that share a row correlation, and that correlation."""
        kinds, which = np.unique(self.row_correlation, axis=0, return_inverse=True)
        return [(np.flatnonzero(which.reshape(-1) == i), rho) for i, rho in enumerate(kinds)]


@dataclass(frozen=True, eq=False)
class Gap:
    """The gap of every window by one rule.

    Attributes:
        rule: The rule that chose the position.
        position: (N) k*, counted from 1 as in the paper; 0 where nothing is resolved.
        ratio: (N) sigma_k* / sigma_{k*+1}.
        width: (N) sigma_k* - sigma_{k*+1} [parameter].
        eigen_width: (N) sigma_k*^2 - sigma_{k*+1}^2 [parameter^2].
    """

    rule: Rule
    position: np.ndarray
    ratio: np.ndarray
    width: np.ndarray
    eigen_width: np.ndarray
    spectra: Spectra = field(repr=False)
    n_draws: int = 199
    seed: int = 0

    @property
    def steps(self) -> np.ndarray:
        """(N) optimizer step of the last update in each window."""
        return self.spectra.steps

    @property
    def resolved(self) -> np.ndarray:
        """(N) whether the gap is wider than the errors of the stored updates could make it.

        These are ``error_norm2`` of the rows and the law of a sketch; False where nothing is resolved.
        """
        s = self.spectra
        return gap_theory.gap_is_resolved(
            s.singular_values, self.position, error=s.error, relative_error=s.relative_error
        )

    @cached_property
    def p_value(self) -> np.ndarray:
        """(N) chance of a gap as large from updates of the same norms without a signal.

        Under the null the rows are noise of the measured effective dimension, correlated by momentum as the
        optimizer's setting says. NaN where the dimension is unknown or nothing is resolved. Source: derived,
        see ``theory.gap.gap_p_value``. Neighbouring windows share W-1 rows: these are not independent tests.
        """
        spectra = self.spectra
        result = np.full(len(spectra.steps), np.nan)
        for windows, rho in spectra._by_correlation():
            result[windows] = gap_theory.gap_p_value(
                spectra.gram[windows],
                spectra.singular_values[windows],
                p_eff=spectra.p_eff[windows],
                row_correlation=rho,
                rule=self.rule,
                floor=spectra.floor[windows],
                n_draws=self.n_draws,
                rng=np.random.default_rng(self.seed),
            )
        return result


def momentum_correlation(beta: np.ndarray, n_steps: np.ndarray, window: int) -> np.ndarray:
    """Row correlation by momentum in each window.

    Args:
        beta: (T) momentum coefficient at each row; 0 for none.
        n_steps: (T) optimizer steps of each row.
        window: W.

    Returns:
        (T-W+1, 2W) correlation at lags 0..2W-1. A window of rows of unequal length takes the shortest, whose
        correlation is the largest: the null is then the wider one.
    """
    shortest = np.lib.stride_tricks.sliding_window_view(np.asarray(n_steps), window).min(axis=-1)
    beta = np.asarray(beta, dtype=np.float64)[window - 1 :]
    rho = np.zeros((len(beta), 2 * window))
    rho[:, 0] = 1.0
    kinds, which = np.unique(np.stack([beta, _round_down(shortest)], axis=1), axis=0, return_inverse=True)
    for i, (b, steps) in enumerate(kinds):
        if b > 0 and steps >= 1:
            rho[which.reshape(-1) == i] = momentum_row_correlation(float(b), int(steps), 2 * window)
    return rho


def _round_down(n_steps: np.ndarray) -> np.ndarray:
    """Counts kept to 5 binary digits, so that uneven steps do not make every window a case of its own."""
    n_steps = np.maximum(n_steps, 0)
    digits = np.frexp(n_steps.astype(np.float64))[1]
    unit = 2 ** np.maximum(digits - 5, 0)
    return n_steps // unit * unit
