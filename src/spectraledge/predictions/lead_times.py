"""C11: the lead of the defect's onset grows faster than the grok step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dynamics.verdict import LEVEL, PASS_RATE
from ..errors import DataError
from ..theory.bootstrap import cluster_bootstrap
from .context import Array, Context
from .defect_onset import defect_of, exchanged
from .pooled import N_BOOT, author_says, each, ends, null_p
from .registry_types import Prediction
from .runs import Run
from .verdict import Outcome, Verdict

_FEWEST = 5
_RANGE = 1.2  # largest over smallest grok step: less says nothing of a power


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    found = [(run, float(x.onset), float(x.grok)) for run, x in each(runs, defect_of) if x.onset and x.grok]
    early = [(run, onset, grok) for run, onset, grok in found if onset < grok]
    if len(early) < _FEWEST or max(g for *_, g in early) < _RANGE * min(g for *_, g in early):
        raise DataError(
            f"a power law of the lead takes {_FEWEST} runs whose onset comes before an accuracy of 0.9, their grok "
            f"steps a factor of {_RANGE} apart; got {len(early)} of {len(found)} with both. Train at several "
            "learning rates or weight decays."
        )
    pairs = np.array([[onset, grok] for _, onset, grok in early])
    alpha = float(_exponent(pairs[:, 1] - pairs[:, 0], pairs[:, 1]))
    interval = cluster_bootstrap(_of_pairs, list(pairs), n_boot=N_BOOT, rng=context.rng(201), interval="t")
    # An onset that knows nothing of grokking: that of another run. The lead is still the grok step less something.
    drawn = exchanged(pairs[:, 0], max(199, context.draws), context.rng(202))
    null = np.array([_exponent(*_leads(onset, pairs[:, 1])) for onset in drawn])
    null = null[np.isfinite(null)]
    typical = float(np.median(null)) if len(null) else float("nan")
    rate = float(np.mean(null > 1.0)) if len(null) else float("nan")
    p = null_p(alpha, null)
    fixed = _exponent(*_leads(np.full(len(pairs), np.median(pairs[:, 0])), pairs[:, 1]))
    first = _exponent(pairs[:, 0], pairs[:, 1])
    low, high = ends(interval)
    outcome = _word(low, high, p, rate, alpha - typical)
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"the lead grows with the grok step to the power of {alpha:.2f} ({low:.2f} to {high:.2f}, {len(early)} "
        f"runs), and with the onsets of other runs put in its place to that of {typical:.2f}, above 1 in "
        f"{100 * rate:.0f} % of draws (p {p:.2g}), as any lead does whose onset does not move with the grok step.",
        statistic="power of the lead against the grok step",
        value=alpha,
        interval=(low, high),
        interval_method=f"bootstrap over {len(early)} runs, Student's t",
        n={"runs": len(early), "onset not before grokking": len(found) - len(early)},
        null="onsets exchanged between runs",
        null_pass_rate=rate,
        p=p,
        baselines={
            "onsets of other runs": typical,
            "the same onset for all": float(fixed),
            "power of the onset itself": float(first),
        },
        author=author_says([alpha > 1.0], [alpha], rate),
        raw=[{"run": run.name, "onset": onset, "grok": grok, "lead": grok - onset} for run, onset, grok in found],
    )


def _word(low: float, high: float, p: float, rate: float, excess: float) -> Outcome:
    if high < 1.0:
        return "contradicted"
    if low > 1.0 and p <= LEVEL and excess > 0.0:
        return "supported"  # more than the arithmetic of a subtraction gives
    if low > 1.0:
        return "uninformative" if rate > PASS_RATE else "compatible"
    return "not identifiable"


def _leads(onset: Array, grok: Array) -> tuple[Array, Array]:
    """Leads that are positive, as the logarithm asks, and their grok steps."""
    kept = onset < grok
    return (grok - onset)[kept], grok[kept]


def _exponent(lead: Array, grok: Array) -> float:
    """Slope of log lead on log grok step; NaN where all grok at one step."""
    x = np.log(grok)
    spread = np.sum((x - x.mean()) ** 2) if len(x) > 1 else 0.0
    return float(np.sum((x - x.mean()) * np.log(lead)) / spread) if spread > 1e-9 else float("nan")


def _of_pairs(pairs: list[Array]) -> float:
    table = np.array(pairs)
    return _exponent(table[:, 1] - table[:, 0], table[:, 1])


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C11",
        "The lead of the defect's onset grows superlinearly with the grok step.",
        "arXiv:2602.16967 and companions, cited by arXiv:2603.28964",
        "five runs and more that grok at different steps (several learning rates or weight decays), with "
        "commutator_defect and test accuracy",
        "for wd in 0.3 0.5 1.0 2.0; do for seed in 42 137; do spectraledge run modular/add --seed $seed --set "
        "weight_decay=$wd; done; done",
        "least squares of log lead on log grok step, leads above 0 only: power above 1",
        "1.27 +- 0.03 (43 runs), 1.18 (11), 1.13 (14); confirmed",
        _judge,
    ),
)
