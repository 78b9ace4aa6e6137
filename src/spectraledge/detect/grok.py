"""When a run grokked: three definitions in use, and the step of the steepest rise.

The published records mix several definitions, which differ by 100 to 900 steps on the same run, so all are
reported side by side, each with the evaluation interval that limits it. Knows nothing about torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

SUSTAINED_THRESHOLD = 0.98
SUSTAINED_EVALUATIONS = 3


@dataclass(frozen=True)
class GrokStep:
    """One definition applied to one accuracy series.

    Attributes:
        definition: The rule in words.
        step: Optimizer step the rule names; None where the run never met it (right-censored).
        interval: Half-width of the statement, in optimizer steps: the event lies within ``step`` +-
            ``interval``. For a crossing it is the distance to the previous evaluation (the crossing lies in
            ``(step - interval, step]``); None where the first evaluation already met the rule
            (left-censored) or where there is no step.
        last_step: Last evaluation looked at: the censoring step where ``step`` is None.
    """

    definition: str
    step: float | None
    interval: float | None
    last_step: int


@dataclass(frozen=True)
class GrokSteps:
    """The three published definitions and the steepest rise, for one run.

    Attributes:
        first_095: First evaluation at or above 0.95.
        sustained_098: Third of three consecutive evaluations at or above 0.98, so 2 intervals after the
            crossing.
        first_090: First evaluation at or above 0.9.
        steepest: Middle of the evaluation interval with the largest rise per step, +- half that interval;
            only where 0.9 was reached, since the steepest rise of a flat series is its noise.
    """

    first_095: GrokStep
    sustained_098: GrokStep
    first_090: GrokStep
    steepest: GrokStep

    def __iter__(self) -> Iterator[GrokStep]:
        return iter((self.first_095, self.sustained_098, self.first_090, self.steepest))


def grok_steps(steps: ArrayLike, accuracy: ArrayLike) -> GrokSteps:
    """Grok step of one accuracy series by every definition.

    Args:
        steps: Optimizer steps of the evaluations, shape ``(N,)``, strictly increasing.
        accuracy: Test accuracy as a fraction, shape ``(N,)``. NaN counts as not reached and breaks a
            consecutive run.

    Raises:
        DataError: If the shapes differ, nothing was evaluated, steps do not increase or values leave [0, 1].

    Example:
        >>> found = grok_steps([1, 100, 200, 300, 400, 500], [0.0, 0.1, 0.93, 0.98, 0.99, 0.99])
        >>> found.first_090.step, found.first_095.step, found.sustained_098.step, found.steepest.step
        (200.0, 300.0, 500.0, 150.0)

    Source: first >= 0.95 is arXiv:2603.28964's table, three times >= 0.98 the stopping rule of its modular runs,
    first >= 0.9 its lead times; the steepest rise is derived (threshold-free).
    """
    x, y = _checked(steps, accuracy)
    first_090 = _sustained(x, y, 0.9, 1)
    return GrokSteps(
        first_095=_sustained(x, y, 0.95, 1),
        sustained_098=_sustained(x, y, SUSTAINED_THRESHOLD, SUSTAINED_EVALUATIONS),
        first_090=first_090,
        steepest=_steepest(x, y, reached=first_090.step is not None),
    )


def sustained_step(
    steps: ArrayLike,
    accuracy: ArrayLike,
    threshold: float = SUSTAINED_THRESHOLD,
    consecutive: int = SUSTAINED_EVALUATIONS,
) -> GrokStep:
    """Step of the last of the first ``consecutive`` evaluations in a row at or above ``threshold``.

    Args:
        steps: Optimizer steps of the evaluations, shape ``(N,)``, strictly increasing.
        accuracy: Accuracy as a fraction, shape ``(N,)``.
        threshold: Accuracy to hold, a fraction.
        consecutive: Evaluations in a row.

    Raises:
        DataError: As for `grok_steps`.

    Example:
        >>> sustained_step([100, 200, 300, 400], [0.99, 0.97, 0.98, 0.99], consecutive=2).step
        400.0
    """
    x, y = _checked(steps, accuracy)
    return _sustained(x, y, threshold, consecutive)


def capability_series(
    metrics: Mapping[str, tuple[ArrayLike, ArrayLike]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The accuracy a grok step is read from: the smallest over all test metrics that are not losses.

    With several tasks a run has grokked when the slowest of them has. Steps at which not every test metric
    was evaluated are left out.

    Args:
        metrics: Name to ``(steps, values)``, as in ``recording.metrics``.

    Returns:
        Steps ``(N,)`` and accuracies ``(N,)``.

    Raises:
        DataError: If no metric name starts with "test" and is free of "loss".

    Source: the multi-task rule of arXiv:2603.28964's scripts.
    """
    names = sorted(name for name in metrics if name.startswith("test") and "loss" not in name)
    if not names:
        given = ", ".join(sorted(metrics)) or "none"
        raise DataError(
            "a grok step needs a metric whose name starts with 'test' and is not a loss; "
            f"got {given}. Log one, for example monitor.log(test_accuracy=...)."
        )
    tables = [dict(zip(np.asarray(metrics[n][0]).tolist(), np.asarray(metrics[n][1]).tolist())) for n in names]
    common = sorted(set(tables[0]).intersection(*tables[1:]))
    values = [[table[step] for table in tables] for step in common]
    lowest = np.min(np.asarray(values, dtype=np.float64).reshape(len(common), len(names)), axis=1)
    return np.asarray(common, dtype=np.int64), lowest


def _checked(steps: ArrayLike, accuracy: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    x, y = np.asarray(steps), np.asarray(accuracy, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0:
        raise DataError(
            "steps and accuracy must be equally long lists with at least one evaluation; "
            f"got shapes {x.shape} and {y.shape}. Pass recording.metrics['test_accuracy']."
        )
    x = x.astype(np.int64)
    if np.any(np.diff(x) <= 0):
        raise DataError(
            "evaluation steps must be strictly increasing; got one that is not. Sort them and keep one value a step."
        )
    if np.nanmin(y, initial=0.0) < 0 or np.nanmax(y, initial=0.0) > 1:
        raise DataError(
            f"accuracy must lie between 0 and 1; got {np.nanmin(y):g} to {np.nanmax(y):g}. Divide percentages by 100."
        )
    return x, y


def _sustained(x: NDArray[np.int64], y: NDArray[np.float64], threshold: float, consecutive: int) -> GrokStep:
    if consecutive == 1:
        words = f"first evaluation >= {threshold:g}"
    else:
        words = f"last of {consecutive} consecutive evaluations >= {threshold:g}"
    run = 0
    for i, reached in enumerate(y >= threshold):
        run = run + 1 if reached else 0
        if run == consecutive:
            interval = float(x[i] - x[i - 1]) if i > 0 else None
            # A rule met from the very first evaluations on says nothing about when: left-censored.
            return GrokStep(words, float(x[i]), interval if i >= consecutive else None, int(x[-1]))
    return GrokStep(words, None, None, int(x[-1]))


def _steepest(x: NDArray[np.int64], y: NDArray[np.float64], reached: bool) -> GrokStep:
    words = "steepest rise between two evaluations"
    slopes = np.diff(y) / np.diff(x)
    if not reached or not np.any(slopes > 0):
        return GrokStep(words, None, None, int(x[-1]))
    i = int(np.nanargmax(slopes))
    return GrokStep(words, float(x[i] + x[i + 1]) / 2, float(x[i + 1] - x[i]) / 2, int(x[-1]))
