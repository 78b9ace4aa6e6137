"""The onset of the commutator defect in one run, by the published rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..detect.author_rules import commutator_onset
from ..detect.grok import capability_series
from ..errors import DataError
from .context import Array
from .runs import Run

METRIC = "commutator_defect"
HALF = 0.5
_CHEAP = ("grad_norm", "train_loss", "test_loss", "val_loss")


@dataclass(frozen=True)
class Defect:
    """Of one run.

    Attributes:
        steps: (m) evaluations from the third on.
        level: (m) log of the largest defect so far, over what the published onset asks for: 0 is the onset.
        onset: Step of the published onset; None where there is none.
        grok: Step of the first accuracy of 0.9; None where never, or where labels were shuffled.
        before: Last evaluation before an accuracy of one half; None as above.
        last: Last evaluation.
    """

    steps: Array
    level: Array
    onset: float | None
    grok: float | None
    before: float | None
    last: float

    def at(self, step: float) -> int:
        """Last evaluation at or before a step; -1 where there is none."""
        return int(np.searchsorted(self.steps, step, side="right")) - 1

    def fired(self, step: float) -> bool:
        """Whether the onset is there before a step."""
        return self.onset is not None and self.onset < step


def defect_of(run: Run) -> Defect:
    """The defect of a run, and when it generalised.

    Published: the median over 5 pairs of batches at one evaluation; a recording holds one pair an evaluation, so the
    median of the last three evaluations stands for it.

    Raises:
        DataError: If the run logged no defect or no test accuracy, or fewer than four.
    """
    if METRIC not in run.recording.metrics or run.grok is None:
        raise DataError(
            f"a run must log {METRIC} and test accuracy; {run.name} does not. Run a catalogued experiment, or log "
            "both with monitor.log."
        )
    steps, level = commutator_onset(*run.recording.metrics[METRIC])
    if not len(steps):
        raise DataError(f"{METRIC} must be known at four steps or more; {run.name} has fewer. Evaluate more often.")
    with np.errstate(divide="ignore"):
        score = np.maximum(np.log(np.maximum.accumulate(level)), -20.0)
    reached = np.flatnonzero(level > 1.0)
    at, accuracy = capability_series(run.recording.metrics)
    half = np.flatnonzero(accuracy >= HALF)
    groks = run.grok_step is not None and run.arm != "placebo"
    return Defect(
        steps=np.asarray(steps, dtype=np.float64),
        level=score,
        onset=float(steps[reached[0]]) if len(reached) else None,
        grok=run.grok.first_090.step if groks else None,
        before=float(at[half[0] - 1]) if groks and half[0] > 0 else None,
        last=float(min(at[-1], steps[-1])),
    )


def cheap_signals(run: Run, defect: Defect) -> dict[str, Array]:
    """Name to (m) signals that cost nothing, in step with the defect; median of the last three where they jump."""
    recording = run.recording
    rows = np.searchsorted(recording.steps, defect.steps, side="right") - 1
    found: dict[str, Array] = {}
    for name, values in (
        ("norm of parameters", recording.theta_norm2[:, 0]),
        ("norm of updates", recording.products[:, 0, 0]),
    ):
        found[name] = np.where(rows >= 0, values[np.maximum(rows, 0)], np.nan)
    for name in _CHEAP:
        at, values = recording.metrics.get(name, (np.empty(0), np.empty(0)))
        if len(at) >= 3:
            index = np.searchsorted(at, defect.steps, side="right")
            found[name] = np.array([np.median(values[max(0, i - 3) : i]) if i else np.nan for i in index])
    return found


def exchanged(values: ArrayLike, draws: int, rng: np.random.Generator) -> Array:
    """(draws, n) values handed to other runs at random."""
    x = np.asarray(values, dtype=np.float64)
    return x[np.argsort(rng.random((draws, len(x))), axis=1)]
