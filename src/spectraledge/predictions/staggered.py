"""C13: tasks trained together grok one after another, in the same order everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import factorial

import numpy as np

from ..detect.grok import sustained_step
from ..dynamics.verdict import LEVEL
from ..errors import DataError
from ..theory.intervals import clopper_pearson
from .context import Context
from .pooled import author_says, each
from .registry_types import Prediction
from .runs import Run
from .verdict import Outcome, Verdict

ORDER = (("mul",), ("x2_y2", "sq"), ("add",))
"""The published order, each task with the names it goes by."""

_THRESHOLD = 0.95


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = each([run for run in runs if run.arm != "placebo"], _grok_steps)
    holds = [_ordered(steps) for _, steps in found]
    chance = [1.0 / factorial(len(steps)) for _, steps in found]
    k, n = int(np.sum(holds)), len(holds)
    low, high = (float(x) for x in clopper_pearson(k, n))
    p = _at_least(k, chance)
    rate = float(np.mean(chance))
    # Tasks that are memorised one after another grok one after another: the order is then known long before.
    trained = [
        _ordered(steps) for steps in (_crossings(run, "train_accuracy_") for run, _ in found) if len(steps) > 1
    ]
    baseline = float(np.mean(trained)) if trained else float("nan")
    outcome = _word(k, n, low, high, p, rate, not baseline >= k / n)
    few = f", and {n} such runs cannot reach 0.05" if _at_least(n, chance) > LEVEL else ""
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"tasks grok in the order mul, x^2 + y^2, add in {k} of {n} runs ({100 * low:.0f} to {100 * high:.0f} %), "
        f"where any order at random would in {100 * rate:.0f} % (p {p:.2g}{few}), and are memorised in that order in "
        f"{sum(trained)} of {len(trained)}.",
        statistic="share of runs whose tasks grok in the published order",
        value=k / n,
        interval=(low, high),
        interval_method="Clopper-Pearson",
        n={"runs": n, "left out": len(runs) - n},
        null="any order as likely",
        null_pass_rate=rate,
        p=p,
        baselines={"order of memorising": baseline},
        author=author_says(holds, [k / n], rate),
        raw=[{"run": run.name, "holds": bool(h), **steps} for (run, steps), h in zip(found, holds)],
    )


def _crossings(run: Run, prefix: str) -> dict[str, float]:
    """Task to the first step at 0.95, infinite where never, in the published order; tasks not logged left out."""
    found = {}
    for names in ORDER:
        series = next((run.recording.metrics[prefix + x] for x in names if prefix + x in run.recording.metrics), None)
        if series is not None and len(series[0]):
            step = sustained_step(*series, threshold=_THRESHOLD, consecutive=1).step
            found[names[0]] = float("inf") if step is None else step
    return found


def _grok_steps(run: Run) -> dict[str, float]:
    steps = _crossings(run, "test_accuracy_")
    if len(steps) < 2 or sum(np.isinf(x) for x in steps.values()) > 1:
        raise DataError(
            "a run must train two of the tasks mul, x2_y2 and add together, and all but the last must grok (test "
            f"accuracy of 0.95); {run.name} has {sum(np.isfinite(x) for x in steps.values())} of {len(steps)}. Train "
            "a multi-task experiment for longer."
        )
    return steps


def _ordered(steps: dict[str, float]) -> bool:
    """Whether each comes after the one before; two at one evaluation are not in order."""
    at = list(steps.values())
    return all(a < b for a, b in pairwise(at))


def _at_least(k: int, chance: Sequence[float]) -> float:
    """P(k runs or more) of independent runs with these chances."""
    law = np.ones(1)
    for q in chance:
        law = np.convolve(law, [1.0 - q, q])
    return float(np.minimum(law[k:].sum(), 1.0))


def _word(k: int, n: int, low: float, high: float, p: float, chance: float, beaten: bool) -> Outcome:
    if high < 0.5:
        return "contradicted"
    if 2 * k <= n:
        return "not identifiable"
    return "supported" if p <= LEVEL and low > chance and beaten else "compatible"


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C13",
        "Tasks trained together grok one after another: multiplication, then x^2 + y^2, then addition.",
        "arXiv:2602.18523, cited by arXiv:2603.28964",
        "multi-task runs, with test_accuracy_mul, test_accuracy_x2_y2 and test_accuracy_add",
        "for seed in 42 137 2024; do spectraledge run multitask/tri --seed $seed; done",
        "first test accuracy of 0.95 of each task in the order mul, x^2 + y^2, add",
        "the same order at all three seeds; confirmed",
        _judge,
    ),
)
