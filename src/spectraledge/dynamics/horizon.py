"""The Krylov bound on a run: is k* at most one more than the number of modes that relax within a window?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from ..errors import DataError
from ..recording import Recording
from ..recording.probe import ProbeRecord
from ..theory.bootstrap import BootstrapInterval
from ..theory.gap import Rule, gap_position
from ..theory.horizon import THRESHOLDS, active_modes
from ..theory.stability import Mode, check_mode
from .columns import Table, plain_interval, time_interval
from .optimizer import facts_at
from .probed import HINT, Probed, probed
from .timeline import step_rate

Source = Literal["preconditioned eigenvalues", "eigenvalues", "curvature of modes"]
KrylovVerdict = Literal["not testable", "contradicted", "compatible", "not identifiable"]


@dataclass(frozen=True, eq=False)
class Krylov:
    """k* and the number of active modes at N probes, for three thresholds of eta_eff h s W.

    Attributes:
        steps: (N) optimizer steps.
        k_star: (N) position of the gap of the probed window; 0 where unresolved.
        lr: (N) effective learning rate eta_eff of a step, momentum's gain included.
        thresholds: (3) levels of eta_eff (h + omega) s W from which a mode counts as active.
        counts: (N, 3) K_s in strict mode, the published count without the stride in author mode; NaN where the
            curvatures are not known.
        complete: (N, 3) whether a curvature below the threshold was seen too, so that K_s is no lower bound.
        testable: (N, 3) whether the bound can fail: K_s is complete and 1 + K_s below the largest k* that the
            rule gives.
        violated: Share of testable probes with k* > 1 + K_s, with its interval; (3) each.
        correlation: Rank correlation of K_s and k* over probes with both, with its interval; (3) each, NaN where
            one is constant.
        source: What was counted.
        verdict: On "k* <= 1 + K_s" at the threshold 1.
        window, mode: Settings.
        notes: What is missing or was assumed.
    """

    steps: np.ndarray
    k_star: np.ndarray
    lr: np.ndarray
    thresholds: np.ndarray
    counts: np.ndarray
    complete: np.ndarray
    testable: np.ndarray
    violated: BootstrapInterval
    correlation: BootstrapInterval
    source: Source
    verdict: KrylovVerdict
    window: int
    mode: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a probe; ``active_1`` is K_s at the threshold 1."""
        table: Table = {"step": self.steps, "k_star": self.k_star, "lr": self.lr}
        for i, level in enumerate(self.thresholds):
            table |= {f"active_{level:g}": self.counts[:, i], f"testable_{level:g}": self.testable[:, i]}
        return table

    def summary(self) -> dict[str, Any]:
        """Counts, violations and correlations at each threshold, in plain types."""
        return {
            "mode": self.mode,
            "window": self.window,
            "n_probes": len(self.steps),
            "source": self.source,
            "thresholds": self.rows(),
            "verdict": self.verdict,
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a threshold."""
        out = []
        for i, level in enumerate(self.thresholds):
            known = self.counts[np.isfinite(self.counts[:, i]), i]
            violated, correlation = plain_interval(self.violated, i), plain_interval(self.correlation, i)
            out.append(
                {
                    "threshold": float(level),
                    "median_active": float(np.median(known)) if len(known) else float("nan"),
                    "testable": float(np.mean(self.testable[:, i])),
                    **{f"violated{_end(name)}": x for name, x in violated.items() if name != "n_units"},
                    **{f"rank_correlation{_end(name)}": x for name, x in correlation.items() if name != "n_units"},
                    "n_units": violated["n_units"],
                }
            )
        return out


def krylov(recording: Recording, *, n_boot: int = 1000, seed: int = 0, mode: Mode = "strict") -> Krylov:
    """Active modes against k* at the probes of a run.

    ``strict``: K_s = #{j: eta_eff (h_j + omega) s W >= level}, levels 1/2, 1 and 2: a window of W updates of s
    steps. h_j are eigenvalues in the optimizer's metric where they were measured, those of the Hessian for SGD,
    else the curvatures along the probed modes, which can only say "at least". eta_eff = lr / (1 - beta) for torch's
    SGD, lr for Adam. k* by the guarded rule. ``author``: #{j: eta h_j W >= level}, the published 1 / (eta W),
    which leaves s out, with Hessian eigenvalues and plain k*.

    k* <= 1 + K_s is no theorem (modes that do not relax share one profile only up to its curvature), and no test
    where it cannot fail: with K_s >= W - 2, or above W // 2 - 2 for the guarded rule, ``not testable``.
    ``contradicted``: the interval of the share of violations lies above 0. Where only curvatures of modes are
    known a violation may be a mode that was not probed: ``not identifiable``.

    Args:
        recording: With probes.
        n_boot: Resamples of blocks of probes that share no update.
        seed: Of these.
        mode: ``strict`` or ``author``.

    Returns:
        Counts, violations and correlations. Source: arXiv:2603.28964v1-v3 (the bound), derived (steps in the
        horizon, metric, testability).

    Raises:
        SettingError: For another mode.
        DataError: If there are no probes, or none measured a curvature.
    """
    check_mode(mode)
    at = probed(recording)
    source = _source(at, mode)
    notes = []
    facts = [facts_at(recording, probe.segment) for probe in at.probes]
    gain = np.array([x.gain for x in facts])
    omega = np.array([x.weight_decay for x in facts])
    if mode == "strict" and not np.isfinite(omega).all():
        notes.append("no single rate of weight decay is known at some probes: taken as 0")
    rates = np.array([step_rate(recording, probe) for probe in at.probes])
    lr = rates * gain if mode == "strict" else rates
    if not np.isfinite(lr).all():
        notes.append("no single learning rate is known at some probes: no count there")
    if source == "curvature of modes":
        notes.append("eigenvalues were not measured: counts along the probed modes are lower bounds")
    if source == "eigenvalues" and mode == "strict" and _preconditioned(at):
        notes.append("eigenvalues in the optimizer's metric were not measured: those of the Hessian stand in")
    levels = np.asarray(THRESHOLDS)
    n = len(at.probes)
    counts, complete = np.full((n, len(levels)), np.nan), np.zeros((n, len(levels)), dtype=bool)
    for i, probe in enumerate(at.probes):
        h = _curvatures(probe, source)
        h = h[np.isfinite(h)]
        if not len(h) or not np.isfinite(lr[i]):
            continue
        if mode == "strict" and np.isfinite(omega[i]):
            h = h + omega[i]
        stride = max(int(recording.n_steps[probe.t]), 1)
        counts[i] = active_modes(h, lr[i], stride, at.window, thresholds=levels, mode=mode)
        complete[i] = (counts[i] < len(h)) & (source != "curvature of modes")
    rule: Rule = "guarded" if mode == "strict" else "plain"
    k = gap_position(at.spectrum.singular_values, rule=rule, floor=at.spectrum.floor)
    largest = at.window // 2 if mode == "strict" else at.window - 1
    usable = np.isfinite(counts) & (k > 0)[:, None] & (1.0 + counts < largest)
    testable = usable & (complete | (source == "curvature of modes"))
    with np.errstate(invalid="ignore"):
        fails = np.where(testable, (k[:, None] > 1.0 + counts).astype(np.float64), np.nan)
    rng = np.random.default_rng(seed)
    violated = time_interval(_mean, fails, block=at.block, n_boot=n_boot, rng=rng)
    pairs = np.where((k > 0)[:, None] & np.isfinite(counts), counts, np.nan)
    correlation = time_interval(
        _rank_correlation, pairs, np.where(k > 0, k, np.nan), block=at.block, n_boot=n_boot, rng=rng
    )
    return Krylov(
        steps=at.steps(),
        k_star=k,
        lr=lr,
        thresholds=levels,
        counts=counts,
        complete=complete,
        testable=testable,
        violated=violated,
        correlation=correlation,
        source=source,
        verdict=_verdict(testable[:, 1], violated, source),
        window=at.window,
        mode=mode,
        notes=tuple(notes),
    )


def _verdict(testable: np.ndarray, violated: BootstrapInterval, source: Source) -> KrylovVerdict:
    if not testable.any():
        return "not testable"
    if not violated.value[1] > 0.0:
        return "compatible"
    if source == "curvature of modes" or not violated.low[1] > 0.0:
        return "not identifiable"
    return "contradicted"


def _source(at: Probed, mode: str) -> Source:
    if mode == "strict" and any(np.isfinite(p.preconditioned_eigenvalues).any() for p in at.probes):
        return "preconditioned eigenvalues"
    if any(np.isfinite(p.eigenvalues).any() for p in at.probes):
        return "eigenvalues"
    if any(np.isfinite(_curvatures(p, "curvature of modes")).any() for p in at.probes):
        return "curvature of modes"
    raise DataError(f"At least one probe must have measured curvature; none did. {HINT} Add eigenvalues=5.")


def _curvatures(probe: ProbeRecord, source: Source) -> np.ndarray:
    if source == "preconditioned eigenvalues":
        return probe.preconditioned_eigenvalues
    if source == "eigenvalues":
        return probe.eigenvalues
    modes = probe.direction_kind("mode")
    tilted = probe.preconditioned_curvature[modes]
    return tilted if np.isfinite(tilted).any() else probe.curvature[modes]


def _preconditioned(at: Probed) -> bool:
    return any(np.isfinite(p.preconditioned_curvature).any() or "preconditioned" in p.vectors for p in at.probes)


def _mean(x: np.ndarray) -> np.ndarray:
    known = np.isfinite(x)
    n = known.sum(axis=1)
    return np.where(known, x, 0.0).sum(axis=1) / np.where(n > 0, n, np.nan)


def _rank_correlation(counts: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(B, 3) rank correlations of (B, N, 3) with (B, N); probes without both are left out."""
    known = np.isfinite(counts) & np.isfinite(k)[..., None]
    n = np.maximum(known.sum(axis=1), 1)[:, None]
    centred = []
    for x in (counts, np.broadcast_to(k[..., None], counts.shape)):
        # Unknown entries rank last, so that the ranks of the others are those among themselves.
        ranks = np.where(known, rankdata(np.where(known, x, np.inf), axis=1), 0.0)
        centred.append(np.where(known, ranks - ranks.sum(axis=1, keepdims=True) / n, 0.0))
    a, b = centred
    scale = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(scale > 0.0, scale, np.nan)


def _end(name: str) -> str:
    return "" if name == "value" else f"_{name}"
