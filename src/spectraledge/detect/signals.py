"""Everything that may announce an event, as causal series of a run: our detectors, published rules, baselines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from .author_rules import DECLINE, commutator_onset, g23_decline, weight_series
from .detectors import DETECTORS, SUSTAIN
from .grok import capability_series
from .judge import Judge
from .stream import judge_stretches
from .traces import Trace

SignalKind = Literal["detector", "author", "baseline"]
_ABOVE_1 = float(np.nextafter(1.0, 2.0))  # published rules ask for more, alarms here for at least as much


@dataclass(frozen=True)
class SignalSpec:
    """One signal.

    Attributes:
        name: Of the signal.
        kind: "detector" (ours), "author" (published) or "baseline".
        direction: Side that counts; "chosen" where training runs decide.
        reading: By which value a run is ranked at a step: the largest so far, or the present one.
        fixed: Threshold that it comes with; None where it has none.
        from_start: Whether it may alarm before the first row that a detector can judge.
        outcome: Whether it reads the metric that defines the event.
    """

    name: str
    kind: SignalKind
    direction: Literal["high", "low", "chosen"] = "chosen"
    reading: Literal["largest", "present"] = "present"
    fixed: float | None = None
    from_start: bool = False
    outcome: bool = False


CLOCK = "fixed clock"

_AUTHOR = (
    SignalSpec("g23 decline", "author", "high", fixed=float(np.nextafter(DECLINE, 2.0)), from_start=True),
    SignalSpec("R (plain k*)", "author"),
    SignalSpec("R (guarded k*)", "author"),
    SignalSpec("W_Q sigma_1/sigma_2", "author"),
    SignalSpec("W_Q g23", "author"),
    SignalSpec("commutator onset", "author", "high", "largest", fixed=_ABOVE_1, from_start=True),
)
_BASELINES = (
    SignalSpec("norm of parameters", "baseline"),
    SignalSpec("norm of update", "baseline"),
    SignalSpec("tr G", "baseline"),
    SignalSpec("share of decay", "baseline"),
    SignalSpec("train loss", "baseline"),
    SignalSpec("test loss", "baseline", outcome=True),
    SignalSpec("test accuracy", "baseline", outcome=True),
    SignalSpec("gradient norm", "baseline"),
    SignalSpec("commutator_unit", "baseline"),
    SignalSpec("learning rate", "baseline"),
    SignalSpec(CLOCK, "baseline", "high", from_start=True),
)
SIGNALS: dict[str, SignalSpec] = {
    spec.name: spec
    for spec in (
        *(SignalSpec(name, "detector", "high", "largest", fixed=_ABOVE_1) for name in DETECTORS),
        *_AUTHOR,
        *_BASELINES,
    )
}
"""All signals by name. The statistic of a detector is in units of the threshold that it comes with."""

_METRICS = {
    "train loss": "train_loss",
    "test loss": "test_loss",
    "gradient norm": "grad_norm",
    "commutator_unit": "commutator_unit",
}


def first_judged(recording: Recording, window: int = 10) -> float:
    """Step of row 6W - 2, the first at which a detector judges anything; the last step of a shorter recording.

    Signals without a published start are heard from there on, so that an initial transient counts for none.
    """
    return float(recording.steps[min(6 * window - 3, recording.n_updates - 1)])


def signal_traces(recording: Recording, *, window: int = 10) -> dict[str, Trace]:
    """Every signal that a recording allows; the others are missing.

    Args:
        recording: Of one run.
        window: W.

    Returns:
        Name to trace, a subset of ``SIGNALS``.
    """
    found: dict[str, Trace | None] = {}
    for part in (_detectors, _windows, _rows, _metrics, _published):
        try:
            found.update(part(recording, window))
        except (DataError, SettingError):
            # Too short, or too few lags: these signals are not available, others may be.
            continue
    return {name: trace for name, trace in found.items() if trace is not None}


def _detectors(recording: Recording, window: int) -> Mapping[str, Trace | None]:
    """Smallest of the last three values of each chart, over its threshold: above 1 exactly where it alarms first."""
    judge = Judge(window)
    band = recording.band("all")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in DETECTORS}
    for _, judged in judge_stretches(judge, band, [int(s) for s in recording.seams if s < len(band)]):
        for one in judged:
            parts[one.spec.name].append(_sustained(one.statistic) / judge.thresholds[one.spec.name])
    return {name: Trace.of(recording.steps, np.concatenate(p)) for name, p in parts.items() if p}


def _sustained(statistic: np.ndarray) -> np.ndarray:
    out = np.full(len(statistic), np.nan)
    if len(statistic) >= SUSTAIN:
        out[SUSTAIN - 1 :] = np.lib.stride_tricks.sliding_window_view(statistic, SUSTAIN).min(axis=1)
    return out


def _windows(recording: Recording, window: int) -> Mapping[str, Trace | None]:
    spectra = recording.spectra(window)
    return {
        "g23 decline": Trace.of(*g23_decline(spectra)),
        "R (plain k*)": Trace.of(spectra.steps, spectra.gap("plain").ratio),
        "R (guarded k*)": Trace.of(spectra.steps, spectra.gap("guarded").ratio),
        "tr G": Trace.of(spectra.steps, spectra.trace),
    }


def _rows(recording: Recording, window: int) -> Mapping[str, Trace | None]:
    steps, update2 = recording.steps, recording.products[:, 0, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = (
            recording.lr_sum.mean(axis=1) / recording.n_steps
            if recording.lr_sum.shape[1]
            else np.full(len(steps), np.nan)
        )
        found = {
            "norm of parameters": Trace.of(steps, np.sqrt(recording.theta_norm2[:, 0])),
            "norm of update": Trace.of(steps, np.sqrt(update2)),
            "learning rate": Trace.of(steps, rate),
        }
        if recording.decay_norm2 is not None:
            found["share of decay"] = Trace.of(steps, recording.decay_norm2[:, 0] / update2)
    whole = np.arange(float(steps[-1]) + 1.0)
    found[CLOCK] = Trace(whole, whole)
    return found


def _metrics(recording: Recording, window: int) -> Mapping[str, Trace | None]:
    metrics = recording.metrics
    found = {name: Trace.of(*metrics[metric]) for name, metric in _METRICS.items() if metric in metrics}
    with suppress(DataError):  # nothing was evaluated
        found["test accuracy"] = Trace.of(*capability_series(metrics))
    return found


def _published(recording: Recording, window: int) -> Mapping[str, Trace | None]:
    series = weight_series(recording)
    found = {f"W_Q {'g23' if k == 'g23' else 'sigma_1/sigma_2'}": Trace.of(*v) for k, v in series.items()}
    if "commutator_defect" in recording.metrics:
        found["commutator onset"] = Trace.of(*commutator_onset(*recording.metrics["commutator_defect"]))
    return found
