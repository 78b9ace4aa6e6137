"""What a grokking run and its placebo share, and what only the first shows: measured, then said in words.

No torch, no drawing; works on two recordings with ``train_accuracy`` and ``test_accuracy``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..detect.grok import grok_steps
from ..recording import Recording

WINDOW = 10
EARLY_STEP = 600  # memorised, long before any generalisation
NOISE = 0.05  # a gap with a larger p-value is one that noise shows too
SIGNAL = 0.01
SUSTAINED = 3  # windows in a row


@dataclass(frozen=True)
class Arm:
    """Measured on one run; steps are optimizer steps, None where a thing never happened.

    Attributes:
        memorised: First evaluation with training accuracy >= 0.99.
        grokked: Third of three evaluations in a row with test accuracy >= 0.98.
        half: First evaluation with test accuracy >= 0.5.
        best_test: Largest test accuracy.
        g23_decline: The published statistic: largest g23 up to ``until`` over the last one.
        trace_decline: The same for the trace of the Gram matrix.
        decay_cosine: Median |cos(v_1, theta)| around step 600.
        weighted_1: Share of windows in which the weighted rule says k* = 1.
        silent: First step at which the guarded gap has been one of noise for three windows in a row.
        emerged: First step after ``silent`` at which it has not been for three windows in a row.
        lag_overlap: Median |<v_1(t), v_1(t - W)>| over the windows between ``since`` and the end.
    """

    memorised: int | None
    grokked: int | None
    half: int | None
    best_test: float
    g23_decline: float
    trace_decline: float
    decay_cosine: float
    weighted_1: float
    silent: int | None
    emerged: int | None
    lag_overlap: float


def measure(recording: Recording, until: int, since: int) -> Arm:
    """Measure one run.

    Args:
        recording: The run.
        until: Step up to which declines are taken: the same for runs that are compared.
        since: Step from which disjoint windows are compared.
    """
    spectra = recording.spectra(WINDOW)
    steps = spectra.steps
    train_steps, train = recording.metrics["train_accuracy"]
    test_steps, test = recording.metrics["test_accuracy"]
    grokked = grok_steps(test_steps, test).sustained_098.step
    _, cosine = recording.theta_overlap(WINDOW)
    lag_steps, overlaps = recording.overlaps(WINDOW, lag=WINDOW)
    p = spectra.gap("guarded").p_value
    silent = _sustained(steps, p > NOISE, after=0)
    emerged = None if silent is None else _sustained(steps, p <= SIGNAL, after=silent)
    return Arm(
        memorised=_first(train_steps, train >= 0.99),
        grokked=None if grokked is None else int(grokked),
        half=_first(test_steps, test >= 0.5),
        best_test=float(np.nanmax(test)),
        g23_decline=_decline(spectra.g23[steps <= until]),
        trace_decline=_decline(spectra.trace[steps <= until]),
        decay_cosine=_median(np.abs(cosine[np.abs(steps - EARLY_STEP) <= 100, 0])),
        weighted_1=float(np.mean(spectra.gap("weighted").position == 1)),
        silent=silent,
        emerged=emerged,
        lag_overlap=_median(np.abs(overlaps[lag_steps >= since, 0, 0])),
    )


def summary(grok: Recording, placebo: Recording) -> list[str]:
    """Ten lines for people: what both runs share, what only the grokking one shows."""
    last = int(min(grok.steps[-1], placebo.steps[-1]))
    test_steps, test = grok.metrics["test_accuracy"]
    half = _first(test_steps, test >= 0.5)
    until = last if half is None else half
    a, b = (measure(run, until, since=until) for run in (grok, placebo))
    return [
        "Two runs of one transformer on addition modulo 97, seed and settings equal: true labels, and all labels "
        f"shuffled (the placebo). {int(grok.steps[-1]):,} and {int(placebo.steps[-1]):,} steps.",
        f"Shared: both memorise. Training accuracy reaches 99 % at step {_said(a.memorised)} and "
        f"{_said(b.memorised)}.",
        f"Only the first generalises: test accuracy passes 50 % at step {_said(a.half)} and holds 98 % at step "
        f"{_said(a.grokked)}. The placebo never exceeds {100 * b.best_test:.1f} % (chance is 1 %).",
        f"Shared: up to step {until:,} the gap g23 falls {_times(a.g23_decline)} from its peak, in the placebo "
        f"{_times(b.g23_decline)}. This decline, published as the sign of grokking to come, needs nothing to be "
        "learned.",
        f"Shared: so falls the energy of the updates, {_times(a.trace_decline)} and {_times(b.trace_decline)}.",
        f"Shared: around step {EARLY_STEP} the leading direction is largely the parameters shrinking under weight "
        f"decay: |cos(v1, theta)| = {a.decay_cosine:.2f} and {b.decay_cosine:.2f}.",
        f"Shared: the weighted rule says k* = 1 in {100 * a.weighted_1:.0f} % and {100 * b.weighted_1:.0f} % of "
        "windows; white noise alone gives 81 %.",
        *_what_differs(a, b),
        "One run of each is an illustration, not a test: no rate of false alarms can be read off it.",
    ]


def _what_differs(a: Arm, b: Arm) -> list[str]:
    if a.silent is None or a.emerged is None:
        emergence = (
            f"Not seen here: a mode that emerges from the noise level after the gap has fallen into it (step "
            f"{_said(a.silent)}; placebo {_said(b.silent)})."
        )
    else:
        relation = ""
        if a.half is not None:
            lead = a.half - a.emerged
            words = "before" if lead > 0 else "after"
            relation = (
                f", {abs(lead):,} steps {words} test accuracy passes 50 %"
                if lead
                else ", as test accuracy passes 50 %"
            )
        emergence = (
            f"{'Only the grokking run' if b.emerged is None else 'Both'}: the gap, one of noise since step "
            f"{a.silent:,} (placebo {_said(b.silent)}), opens again at step {a.emerged:,}{relation}; "
            f"placebo: {_said(b.emerged)}."
        )
    return [
        emergence,
        "Overlap of the leading direction between disjoint windows from then on: median "
        f"{a.lag_overlap:.2f} against {b.lag_overlap:.2f} in the placebo; noise alone gives about 0.",
    ]


def _sustained(steps: np.ndarray, condition: np.ndarray, after: int) -> int | None:
    """First step after ``after`` at which ``condition`` has held for three windows in a row."""
    held = condition & (steps > after)
    for i in range(SUSTAINED - 1, len(held)):
        if held[i - SUSTAINED + 1 : i + 1].all():
            return int(steps[i])
    return None


def _first(steps: np.ndarray, reached: np.ndarray) -> int | None:
    index = np.flatnonzero(reached)
    return int(steps[index[0]]) if len(index) else None


def _decline(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.max() / values[-1]) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _said(step: int | None) -> str:
    return "never" if step is None else f"{step:,}"


def _times(fall: float) -> str:
    return f"{fall:,.0f}-fold" if fall >= 10 else f"{fall:.1f}-fold"
