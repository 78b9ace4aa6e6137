"""The terms of the gap flow at the probes of a run, where they say the gap goes, and whether it went there."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..errors import DataError
from ..recording import Recording
from ..theory.dyson import kappa_squared
from ..theory.equilibrium import (
    BrierScore,
    Equilibrium,
    Reliability,
    brier_score,
    equilibrium,
    opening_probability,
    reliability,
)
from ..theory.gap import gap_position, width
from ..theory.gap_flow import GapTerms, term_shares
from ..theory.gap_flow_fit import GapFlowFit, fit_gap_flow
from ..theory.window_series import WindowSeries, future
from .columns import Table
from .flow_inputs import FlowInputs, flow_inputs
from .flow_predictors import terms_at
from .flows import across_seams, record_windows
from .probed import HINT

PARTS = ("asymmetry", "damping", "drive", "schedule", "repulsion")
_DIFFERENCES = 5  # successive differences behind a standard error of pull and damping


@dataclass(frozen=True, eq=False)
class GapFlowTerms:
    """The gap flow at N probes.

    Attributes:
        steps: (N) optimizer steps.
        position: (N) k*, 0 for none; gap: (N) sigma_k* - sigma_k*+1 [parameter].
        later_gap: (N) the width at the same position ``horizon`` updates later; NaN where not there.
        horizon: H in updates: the window, rounded to whole intervals between probes.
        strict, printed, consistent: Terms of the strict flow and of the published one with either drive
            [parameter / optimizer step]. Only the strict one has schedule and repulsion.
        shares: Part of the strict flow to (N) |part| / sum of |parts|.
        fits: "strict", "printed" or "consistent" to the regression of the forward change on T1, T2 (with the
            schedule) and T3, whose coefficients are 1, 1, 1 where the flow holds; "damping" leaves out T3.
        kappa2: (N) kappa^2 at the position, from the 2 W windows before [parameter^4 per snapshot].
        equilibrium: Equilibrium gap, regime, relaxation and collapse times of the strict flow; see
            ``theory.equilibrium``.
        probability: (N) that the strict flow opens the gap.
        brier: Of these probabilities against what happened; ``reference`` is that of the base rate.
        reliability: The same in five bins.
        outcomes: Regime to (number of probes, share whose gap grew).
        notes: What is missing or was assumed.
    """

    steps: np.ndarray
    position: np.ndarray
    gap: np.ndarray
    later_gap: np.ndarray
    horizon: int
    strict: GapTerms
    printed: GapTerms
    consistent: GapTerms
    shares: dict[str, np.ndarray]
    fits: dict[str, GapFlowFit]
    kappa2: np.ndarray
    equilibrium: Equilibrium
    probability: np.ndarray
    brier: BrierScore
    reliability: Reliability
    outcomes: dict[str, tuple[int, float]]
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a probe."""
        eq = self.equilibrium
        table: Table = {"step": self.steps, "k_star": self.position, "gap": self.gap, "later_gap": self.later_gap}
        table |= {name: getattr(self.strict, name) for name in PARTS}
        table |= {f"share_{name}": share for name, share in self.shares.items()}
        table |= {f"drive_{form}": getattr(self, form).drive for form in ("printed", "consistent")}
        table |= {
            "rate": self.strict.rate,
            "kappa2": self.kappa2,
            "equilibrium": eq.gap,
            "equilibrium_low": eq.low,
            "equilibrium_high": eq.high,
            "regime": eq.regime,
            "relaxation_snapshots": eq.relaxation_snapshots,
            "collapse_snapshots": eq.collapse_snapshots,
            "testable": eq.testable,
            "p_opens": self.probability,
        }
        return table

    def rows(self) -> list[dict[str, Any]]:
        """One plain row a probe."""
        table = self.table()
        return [{name: column[i].item() for name, column in table.items()} for i in range(len(self.steps))]

    def summary(self) -> dict[str, Any]:
        """Shares, fits, times and scores in plain types."""
        eq = self.equilibrium
        return {
            "n_probes": len(self.steps),
            "horizon": self.horizon,
            "shares": {name: _median(share) for name, share in self.shares.items()},
            "fits": {name: _plain(fit) for name, fit in self.fits.items()},
            "equilibrium": _median(eq.gap),
            "gap": _median(self.gap),
            "relaxation_snapshots": _median(eq.relaxation_snapshots),
            "collapse_snapshots": _median(eq.collapse_snapshots),
            "testable_share": float(np.mean(eq.testable[np.isfinite(self.strict.rate)]))
            if np.isfinite(self.strict.rate).any()
            else float("nan"),
            "outcomes": {name: {"n": n, "opened": share} for name, (n, share) in self.outcomes.items()},
            "brier": {f.name: getattr(self.brier, f.name) for f in fields(self.brier)},
            "notes": list(self.notes),
        }


def gap_flow_terms(recording: Recording, *, level: float = 0.95) -> GapFlowTerms:
    """Terms, equilibrium and verdicts of the gap flow at the probes of a run.

    Strict: T1 = -eta (h_k - h_k+1) d_mean, T2 = -eta (h_mean + omega) g, T3 from the injection of the interval
    before, the schedule's part, and repulsion 2 kappa_g^2 / g, which the published flow leaves out (author forms:
    their T3 re-injects the measured gradient all the time; see :func:`spectraledge.theory.gap_flow.gap_terms`).
    The strict T3 takes the gradient of the newest row for that of the window, which can be right for one of two
    modes at most (their time courses are orthogonal): the fit "damping" leaves it out.
    The regression asks whether measured terms predict the change over the H updates that follow; correlating the
    gap with its own derivative, as published, has expectation 0 for every stationary gap. Where 1 / gamma is much
    longer than the run, an equilibrium cannot be seen, whatever the terms: ``testable``.

    Standard errors of pull and damping come from the last five differences between successive probes. Nothing
    that comes after a probe enters its terms.

    Args:
        recording: With probes, at two of them at least.
        level: Of the intervals.

    Returns:
        Arrays over probes. Source: arXiv:2603.28964v1-v3 (terms, equilibrium, regimes), derived (strict).

    Raises:
        DataError: If there are no probes, or none measured curvature on both sides of a gap.
    """
    inputs = flow_inputs(recording)
    w = inputs.window
    position = gap_position(inputs.strengths, floor=inputs.floor)
    series, _ = record_windows(recording, w)
    of_pair = _recent_coupling(series, inputs, position)
    strict = terms_at(inputs, position, "strict", kappa2=np.where(np.isfinite(of_pair), of_pair, 0.0))
    author = {form: terms_at(inputs, position, form) for form in ("printed", "consistent")}
    if not np.isfinite(strict.damping).any():
        raise DataError(
            f"At least one probe must measure curvature on both sides of the gap; none does. {HINT} "
            "Probe(modes=W // 2 + 1) reaches every admitted position."
        )
    gap = width(inputs.strengths, position)
    intervals = max(1, round(w / inputs.spacing))
    horizon = intervals * inputs.spacing
    later = _later_gap(recording, inputs, series.singular_values, position, horizon)
    steps_per_update = float(np.median(inputs.stride))
    designs = {
        name: np.stack([t.asymmetry, t.damping + t.schedule, t.drive], axis=-1)
        for name, t in {"strict": strict, **author}.items()
    }
    designs["damping"] = designs["strict"][:, :2]
    fits = {
        name: fit_gap_flow(
            gap,
            design,
            # In intervals between probes, which are what its rows are.
            window=max(1, -(-w // inputs.spacing)),
            horizon=intervals,
            stride=max(1, round(inputs.spacing * steps_per_update)),
            later_gap=later,
            level=level,
        )
        for name, design in designs.items()
    }
    errors = _standard_errors(strict.pull, strict.rate)
    run_steps = float(recording.steps[-1] - recording.steps[0] + recording.n_steps[0])
    stride = max(1, round(steps_per_update))
    sd = {"pull_sd": errors[0], "damping_sd": errors[1], "covariance": errors[2]}
    rest = equilibrium(gap, strict.pull, strict.rate, **sd, stride=stride, run_steps=run_steps, level=level)
    probability = opening_probability(gap, strict.pull, strict.rate, **sd)
    grew = np.where(np.isfinite(later - gap), later > gap, np.nan)
    notes = list(inputs.notes)
    blind = int(((position > 0) & ~np.isfinite(strict.damping)).sum())
    if blind:
        notes.append(f"{blind} of {len(inputs)} probes measured no curvature on both sides of k*: probe more modes")
    if not rest.testable[np.isfinite(strict.rate)].any():
        notes.append("three relaxation times are longer than the run everywhere: its equilibrium cannot be seen")
    return GapFlowTerms(
        steps=inputs.steps,
        position=position,
        gap=gap,
        later_gap=later,
        horizon=horizon,
        strict=strict,
        printed=author["printed"],
        consistent=author["consistent"],
        shares=term_shares(strict),
        fits=fits,
        kappa2=of_pair,
        equilibrium=rest,
        probability=probability,
        brier=brier_score(probability, grew),
        reliability=reliability(probability, grew),
        outcomes={
            name: (int(known.sum()), float(grew[known].mean()) if known.any() else float("nan"))
            for name in ("viable", "collapsing", "undetermined")
            for known in [(rest.regime == name) & np.isfinite(grew)]
        },
        notes=tuple(notes),
    )


def _later_gap(
    recording: Recording, inputs: FlowInputs, sigma: np.ndarray, position: np.ndarray, horizon: int
) -> np.ndarray:
    """(N) width at the position of now, ``horizon`` updates later."""
    w = inputs.window
    later = future(sigma, horizon)
    ends = np.arange(len(sigma)) + w - 1
    later[across_seams(recording, ends, horizon)] = np.nan
    whole = inputs.t >= w - 1
    found = np.full((len(inputs), w), np.nan)
    found[whole] = later[inputs.t[whole] - (w - 1)]
    return width(found, position)


def _recent_coupling(series: WindowSeries, inputs: FlowInputs, position: np.ndarray) -> np.ndarray:
    """(N) kappa^2 of the pair at the position, from the 2 W windows before each probe.

    Steps shrink by orders of magnitude in a run, kappa^2 with their fourth power: a mean over the run would be
    that of its beginning.
    """
    out = np.full(len(position), np.nan)
    if series.blocks is None:
        return out
    w = inputs.window
    for i, (k, t) in enumerate(zip(position, inputs.t)):
        last = t - (w - 1)  # the window of the probe; the block before it ends there
        first = max(0, last - 2 * w)
        if k > 0 and last - first >= w:
            out[i] = kappa_squared(series.blocks[first:last], series.time_profiles[first:last]).kappa2[k - 1]
    return out


def _standard_errors(pull: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard errors of both and their covariance, (N) each, from the differences up to each probe.

    Half the mean product of successive differences (von Neumann) is the variance about a level that drifts.
    """
    change = np.stack([np.diff(pull, prepend=np.nan), np.diff(rate, prepend=np.nan)])
    out = np.full((3, len(pull)), np.nan)
    for i in range(len(pull)):
        recent = change[:, max(0, i - _DIFFERENCES + 1) : i + 1]
        recent = recent[:, np.isfinite(recent).all(axis=0)]
        if recent.shape[1] >= 2:
            products = 0.5 * recent @ recent.T / recent.shape[1]
            out[:, i] = np.sqrt(products[0, 0]), np.sqrt(products[1, 1]), products[0, 1]
    return out[0], out[1], out[2]


def _plain(fit: GapFlowFit) -> dict[str, Any]:
    return {
        f.name: value.tolist() if isinstance(value := getattr(fit, f.name), np.ndarray) else value
        for f in fields(fit)
    }


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
