"""Runs that are ranked by signals: which of them have the event, and which of them may be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from .grok import GrokStep, capability_series, grok_steps, sustained_step

SplitKind = Literal["seeds", "leave one seed out", "in sample"]

EVENTS = {
    "grok95": "first test accuracy >= 0.95",
    "grok98x3": "last of 3 consecutive test accuracies >= 0.98",
    "grok90": "first test accuracy >= 0.9",
    "half": "first test accuracy >= 0.5",
}
"""Definitions of the event by name; with several tasks the smallest test accuracy counts."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One run.

    Attributes:
        name: Of the run.
        recording: What it left.
        group: Of a run without the event, what it is compared as: "placebo", "no decay"; of a run with it, its task:
            a clock that knows the task is harder to beat.
        event_step: Optimizer step of the event; None where it did not come by the end.
        seed: Its seed, where known; runs of unknown seed count as one seed.
    """

    name: str
    recording: Recording
    group: str
    event_step: float | None
    seed: int | None


@dataclass(frozen=True, eq=False)
class Fold:
    """Indices of the runs learned from, and of those judged.

    Attributes:
        train: (n) indices.
        held_out: (m) indices; the same ones where everything is in sample.
    """

    train: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """How directions and thresholds were kept apart from what they are judged on.

    Attributes:
        kind: "seeds", "leave one seed out", or "in sample" where nothing could be held out.
        folds: One, or one a seed.
        sentence: The same for people, with the reason.
    """

    kind: SplitKind
    folds: tuple[Fold, ...]
    sentence: str


def event_step(recording: Recording, event: str = "grok95") -> float | None:
    """Step of the event in a run; None where it never came.

    Args:
        recording: With test accuracies.
        event: A key of ``EVENTS``.

    Raises:
        SettingError: For another event.
        DataError: If no test accuracy was logged.
    """
    if event not in EVENTS:
        raise SettingError(f"event must be one of {', '.join(EVENTS)}; got {event!r}. grok95 is the published one.")
    steps, accuracy = capability_series(recording.metrics)
    if event == "half":
        return sustained_step(steps, accuracy, threshold=0.5, consecutive=1).step
    found = grok_steps(steps, accuracy)
    chosen: dict[str, GrokStep] = {
        "grok95": found.first_095,
        "grok98x3": found.sustained_098,
        "grok90": found.first_090,
    }
    return chosen[event].step


def evaluation_interval(subjects: Sequence[Subject]) -> float:
    """Median distance of test evaluations over runs [steps]; that of updates where nothing was evaluated."""
    found = []
    for subject in subjects:
        try:
            steps, _ = capability_series(subject.recording.metrics)
        except DataError:
            steps = subject.recording.steps
        if len(steps) > 1:
            found.append(float(np.median(np.diff(steps))))
    return float(np.median(found)) if found else 0.0


def make_split(subjects: Sequence[Subject], train_seeds: Sequence[int] | Literal["each"] = (42,)) -> Split:
    """Learn on some seeds and judge on the others; where that leaves nothing to judge, say so and do the next best.

    Args:
        subjects: Runs with and without the event.
        train_seeds: Seeds to learn on; "each" leaves out one seed after the other.

    Returns:
        The first that works of: the seeds named; each seed left out once; everything in sample. A fold works if both
        of its sides hold runs of both kinds.

    Raises:
        DataError: If all runs or none have the event.
    """
    positive = np.array([s.event_step is not None for s in subjects], dtype=bool)
    if not positive.any() or positive.all():
        raise DataError(
            f"an evaluation takes runs with the event and runs without; got {int(positive.sum())} and "
            f"{int((~positive).sum())}. Add a placebo (labels shuffled), or runs that were trained for longer."
        )
    seeds = [s.seed for s in subjects]
    distinct = list(dict.fromkeys(seeds))
    named = [seed for seed in distinct if train_seeds != "each" and seed in train_seeds]
    reason = ""
    if train_seeds != "each":
        fold = _fold(seeds, [seed for seed in distinct if seed not in named])
        if _works(fold, positive):
            rest = ", ".join(str(seed) for seed in distinct if seed not in named)
            learned = ", ".join(map(str, named))
            return Split("seeds", (fold,), f"Learned on seed {learned}, judged on seed {rest}.")
        wanted = ", ".join(map(str, train_seeds))
        reason = f"Seed {wanted} and the others do not both have runs of both kinds. "
    if len(distinct) > 1:
        folds = tuple(f for f in (_fold(seeds, [seed]) for seed in distinct) if _works(f, positive))
        if folds:
            judged = ", ".join(str(seeds[int(f.held_out[0])]) for f in folds)
            return Split(
                "leave one seed out",
                folds,
                f"{reason}Each seed judged by what was learned on all the others: {judged}.",
            )
        reason = reason or "No seed can be left out: the rest, or it, has runs of one kind only. "
    else:
        reason = "All runs have one seed. "
    everything = np.arange(len(subjects))
    return Split(
        "in sample",
        (Fold(everything, everything),),
        f"{reason}Everything is IN SAMPLE: directions and thresholds were chosen on the runs they are judged on, "
        "which flatters every signal that has one to choose.",
    )


def _fold(seeds: Sequence[int | None], held_out: Sequence[int | None]) -> Fold:
    out = np.array([seed in held_out for seed in seeds], dtype=bool)
    return Fold(np.flatnonzero(~out), np.flatnonzero(out))


def _works(fold: Fold, positive: np.ndarray) -> bool:
    sides = (positive[fold.train], positive[fold.held_out])
    return all(side.any() and not side.all() for side in sides)
