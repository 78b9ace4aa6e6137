"""Curvature along the modes, beside random directions, and whether flat modes carry the larger strengths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from ..recording import Recording
from ..theory.bootstrap import BootstrapInterval
from ..theory.hierarchy import hierarchy_exponent, inverted_hierarchy_slope
from .columns import Table, columns, known_mean, known_median, plain_interval, time_interval
from .optimizer import facts_at
from .probed import HINT, Probed, probed
from .timeline import step_rate
from .verdict import FEWEST_BLOCKS, Outcome

EXPECTED = -0.5
"""Slope of log d_j on log(h_j + omega) in the published steady state, at equal |G_j|."""

_KINDS = ("mode", "span", "random")


@dataclass(frozen=True, eq=False)
class Curvature:
    """Curvature of the training loss at N probes. J modes, S directions in their span, R random ones.

    Attributes:
        steps: (N) optimizer steps.
        mode, span, random: (N, J), (N, S), (N, R) d^T H d [loss / parameter^2].
        preconditioned_mode, preconditioned_span, preconditioned_random: The same of P^-1 H [1 / learning rate].
        strength: (N, J) d_j = sigma_j, and ``span_strength`` (N, S) = ||X d|| [parameter].
        regime: (N, J) eta s (h~_j + omega): above 1 a mode comes to rest within an update, below 1 it does not.
        slope: (N) least-squares slope of log d_j on log(h~_j + omega) at each probe.
        weight_decay: (N) omega; lr: (N) eta of a step, momentum's gain included.
        eigenvalues, eigenvalue_errors: (N, K) largest of H.
        preconditioned_eigenvalues, preconditioned_eigenvalue_errors: (N, K) largest of P^-1/2 H P^-1/2.
        intervals: Name to an interval over blocks of probes: ``mode`` (J), ``span``, ``random``,
            ``preconditioned_mode`` (J), ``preconditioned_span``, ``preconditioned_random``, means over probes;
            ``mode_over_random``, ``mode_over_span``, ``mode_1_over_top`` (share of the top eigenvalue), ratios
            of means; ``slope`` and ``span_slope``, with an intercept for each probe.
        expected_slope: Mean exponent of SGD at rest, noise white (``white``) or proportional to H
            (``proportional``), at the run's rates, curvatures and stride.
        verdict: On "the slope is -1/2".
        notes: What is missing or was assumed.
    """

    steps: np.ndarray
    mode: np.ndarray
    span: np.ndarray
    random: np.ndarray
    preconditioned_mode: np.ndarray
    preconditioned_span: np.ndarray
    preconditioned_random: np.ndarray
    strength: np.ndarray
    span_strength: np.ndarray
    regime: np.ndarray
    slope: np.ndarray
    weight_decay: np.ndarray
    lr: np.ndarray
    eigenvalues: np.ndarray
    eigenvalue_errors: np.ndarray
    preconditioned_eigenvalues: np.ndarray
    preconditioned_eigenvalue_errors: np.ndarray
    intervals: dict[str, BootstrapInterval]
    expected_slope: dict[str, float]
    verdict: Outcome
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a probe; ``mode_1`` is v_1^T H v_1."""
        table: Table = {"step": self.steps, "lr": self.lr, "weight_decay": self.weight_decay, "slope": self.slope}
        for kind in _KINDS:
            table |= columns(kind, getattr(self, kind)) | columns(
                f"preconditioned_{kind}", getattr(self, f"preconditioned_{kind}")
            )
        names = ("strength", "span_strength", "regime", "eigenvalues", "preconditioned_eigenvalues")
        for name in names:
            table |= columns(name, getattr(self, name))
        return table

    def summary(self) -> dict[str, Any]:
        """Means over probes with intervals, slope, regime and verdict."""
        many = ("mode", "preconditioned_mode")
        found = {
            name: [plain_interval(interval, j) for j in range(interval.value.shape[-1])]
            if name in many
            else plain_interval(interval)
            for name, interval in self.intervals.items()
        }
        return {
            "n_probes": len(self.steps),
            **found,
            "regime": [known_median(self.regime[:, j]) for j in range(self.regime.shape[1])],
            "negative_share": float(np.mean(self.mode[np.isfinite(self.mode)] < 0.0)),
            "eigenvalues": [known_median(x) for x in self.eigenvalues.T],
            "preconditioned_eigenvalues": [known_median(x) for x in self.preconditioned_eigenvalues.T],
            "lr_times_top": known_median(self.lr * self.preconditioned_eigenvalues[:, 0])
            if self.preconditioned_eigenvalues.shape[1]
            else float("nan"),
            "expected_slope": self.expected_slope,
            "published_slope": EXPECTED,
            "verdict": self.verdict,
            "notes": list(self.notes),
        }


def curvature(recording: Recording, *, n_boot: int = 1000, seed: int = 0) -> Curvature:
    """Curvature at the probes of a run, and the slope of strength on curvature.

    The published steady state d_j ~ |G_j| / sqrt(h_j + omega) is a statement about diffusion: its slope of -1/2
    is that of SGD at rest under white gradient noise with eta s h >> 1; ``regime`` says whether that holds. For
    an optimizer with a preconditioner the curvature that stands beside omega is h~_j = v_j^T P^-1 H v_j, which
    is used where it was measured, the raw h_j elsewhere. Random directions in the span of the same modes are
    the baseline: a slope that they show as well says nothing about modes.

    The verdict: ``uninformative`` where the span's slope has -1/2 but not 0 in its interval; ``contradicted``
    where the modes' interval leaves out -1/2; ``supported`` where it holds -1/2 and not 0; ``not
    identifiable`` where it holds both, or there is no interval. With fewer than 10 blocks of probes, whose
    intervals are too short, the middle two become ``not identifiable`` and ``compatible``.

    Args:
        recording: With probes.
        n_boot: Resamples of blocks of probes that share no update.
        seed: Of the resamples.

    Returns:
        Arrays over probes, intervals and the verdict. Source: arXiv:2603.28964v1-v3 (the statement), derived
        (regime, baseline).

    Raises:
        DataError: If there are no probes, or none measured curvature.
    """
    at = probed(recording)
    raw = {kind: _along(at, "curvature", kind) for kind in _KINDS}
    tilted = {kind: _along(at, "preconditioned_curvature", kind) for kind in _KINDS}
    if not np.isfinite(raw["mode"]).any():
        raise DataError(
            f"Curvature must have been measured along at least one mode; no probe did. {HINT} Probe(modes=4) is "
            "the default."
        )
    facts = [facts_at(recording, probe.segment) for probe in at.probes]
    rates = np.array([step_rate(recording, probe) for probe in at.probes])
    lr = rates * np.array([f.gain for f in facts])
    decay = np.array([f.weight_decay for f in facts])
    notes = []
    if not np.isfinite(tilted["mode"]).any():
        notes.append("no known preconditioner: slope and regime use the raw curvature")
    if not np.isfinite(decay).any():
        notes.append("no single rate of weight decay is known: taken as 0")
    if len(at.probes) < FEWEST_BLOCKS * at.block:
        few = "no intervals" if len(at.probes) < 2 * at.block else "intervals are too short"
        notes.append(f"{len(at.probes)} probes in blocks of {at.block} that share no update: {few}")
    omega = np.where(np.isfinite(decay), decay, 0.0)[:, None]
    used = {kind: np.where(np.isfinite(tilted[kind]), tilted[kind], raw[kind]) + omega for kind in _KINDS}
    strength = np.where(at.spectrum.resolved, at.spectrum.singular_values, np.nan)
    strength = np.pad(strength, ((0, 0), (0, raw["mode"].shape[1])), constant_values=np.nan)
    strength = strength[:, : raw["mode"].shape[1]]
    span_strength = _span_strength(at)
    stride = recording.n_steps[at.t]
    eigen = {
        name: _stacked([getattr(p, name) for p in at.probes])
        for name in (
            "eigenvalues",
            "eigenvalue_errors",
            "preconditioned_eigenvalues",
            "preconditioned_eigenvalue_errors",
        )
    }
    intervals = _intervals(at, raw, tilted, used, strength, span_strength, eigen["eigenvalues"], n_boot, seed)
    return Curvature(
        steps=at.steps(),
        **raw,
        **{f"preconditioned_{kind}": values for kind, values in tilted.items()},
        strength=strength,
        span_strength=span_strength,
        regime=(lr * stride)[:, None] * used["mode"],
        slope=inverted_hierarchy_slope(*_known_pairs(strength, used["mode"])).value,
        weight_decay=decay,
        lr=lr,
        **eigen,
        intervals=intervals,
        expected_slope=_expected(used["mode"], lr, stride),
        verdict=slope_verdict(intervals["slope"], intervals["span_slope"]),
        notes=tuple(notes),
    )


def pooled_slope(d: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Slope of log d on log h with an intercept for each probe.

    Args:
        d: (..., N, J) strengths; entries that are not positive are left out, in both.
        h: (..., N, J) curvatures.

    Returns:
        (...); NaN where no probe has two usable directions. Source: standard result.
    """
    with np.errstate(invalid="ignore"):
        used = (d > 0.0) & (h > 0.0)
    x, y = np.log(np.where(used, h, 1.0)), np.log(np.where(used, d, 1.0))
    count = np.maximum(used.sum(axis=-1, keepdims=True), 1)
    x = np.where(used, x - x.sum(axis=-1, keepdims=True) / count, 0.0)
    y = np.where(used, y - y.sum(axis=-1, keepdims=True) / count, 0.0)
    sxx = np.square(x).sum(axis=(-2, -1))
    return (x * y).sum(axis=(-2, -1)) / np.where(sxx > 0.0, sxx, np.nan)


def slope_verdict(slope: BootstrapInterval, baseline: BootstrapInterval) -> Outcome:
    """The word on "the slope is -1/2"; see :func:`curvature`."""

    def holds(interval: BootstrapInterval, value: float) -> bool:
        return bool(interval.low <= value <= interval.high)

    if holds(baseline, EXPECTED) and not holds(baseline, 0.0):
        return "uninformative"
    if not np.isfinite(slope.low):
        return "not identifiable"
    enough = slope.n_units >= FEWEST_BLOCKS
    if not holds(slope, EXPECTED):
        return "contradicted" if enough else "not identifiable"
    if holds(slope, 0.0):
        return "not identifiable"
    return "supported" if enough else "compatible"


def _along(at: Probed, name: str, kind: str) -> np.ndarray:
    """(N, n) values along the directions of a kind, at the place that their number says."""
    rows = []
    for probe in at.probes:
        index = probe.direction_kind(kind)
        places = [int(probe.directions[i].split("/")[1]) for i in index]
        row = np.full(max(places, default=0), np.nan)
        row[[place - 1 for place in places]] = getattr(probe, name)[index]
        rows.append(row)
    return _stacked(rows)


def _span_strength(at: Probed) -> np.ndarray:
    """(N, S) ||X d|| of the directions in the span: their coefficients c give G c."""
    rows = []
    for probe, gram in zip(at.probes, at.gram):
        c = probe.coefficients[probe.direction_kind("span")][:, ::-1]  # oldest first, as the Gram
        rows.append(np.linalg.norm(c @ gram, axis=-1))
    return _stacked(rows)


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    out = np.full((len(rows), max(len(row) for row in rows)), np.nan)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _known_pairs(d: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with 0 where one is unknown: left out of a fit."""
    known = np.isfinite(d) & np.isfinite(h)
    return np.where(known, d, 0.0), np.where(known, h, 0.0)


def _expected(h: np.ndarray, lr: np.ndarray, stride: np.ndarray) -> dict[str, float]:
    out = {}
    for name, p in (("white", 0.0), ("proportional", 1.0)):
        slopes = [
            hierarchy_exponent(row, float(rate), int(s), noise_exponent=p)
            for row, rate, s in zip(h, lr, stride)
            if s >= 1
        ]
        out[name] = float(known_mean(np.concatenate(slopes), axis=0)) if slopes else float("nan")
    return out


def _intervals(
    at: Probed,
    raw: dict[str, np.ndarray],
    tilted: dict[str, np.ndarray],
    used: dict[str, np.ndarray],
    strength: np.ndarray,
    span_strength: np.ndarray,
    eigenvalues: np.ndarray,
    n_boot: int,
    seed: int,
) -> dict[str, BootstrapInterval]:
    def over_probes(statistic: Any, *series: np.ndarray) -> BootstrapInterval:
        rng = np.random.default_rng(seed)  # the same resamples for every statistic
        return time_interval(statistic, *series, block=at.block, n_boot=n_boot, rng=rng)

    def ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        below = _mean(y)
        return _mean(x) / np.where(below != 0.0, below, np.nan)

    out = {}
    for prefix, values in (("", raw), ("preconditioned_", tilted)):
        out[f"{prefix}mode"] = over_probes(lambda x: known_mean(x, axis=-2), values["mode"])
        for kind in ("span", "random"):
            out[f"{prefix}{kind}"] = over_probes(_mean, values[kind])
    top = eigenvalues[:, :1]
    return out | {
        "mode_over_random": over_probes(ratio, raw["mode"], raw["random"]),
        "mode_over_span": over_probes(ratio, raw["mode"], raw["span"]),
        "mode_1_over_top": over_probes(ratio, raw["mode"][:, :1], top),
        "slope": over_probes(pooled_slope, strength, used["mode"]),
        "span_slope": over_probes(pooled_slope, span_strength, used["span"]),
    }


def _mean(x: np.ndarray) -> np.ndarray:
    """(...) mean over probes and directions of (..., N, n)."""
    return known_mean(x, axis=(-2, -1))
