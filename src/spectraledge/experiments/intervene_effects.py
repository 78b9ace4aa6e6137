"""What an intervention study says: k* against the other cuts, paired within a fork, over seeds.

Knows nothing about torch or training; takes the rows of ``read_study``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, SettingError
from .paired import curve, paired, read_curve

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """One comparison, over all seeds and times.

    Attributes:
        kind: Of the intervention.
        amount: Relative norm asked for.
        comparison: ``k* - others`` (mean of the other cuts), ``k* - span``, ``k* - space``, ``k* - none`` or
            ``others - none``.
        mean: Mean over seeds of the seed's mean over times, in the outcome's unit; for a loss, positive says
            that the first costs more.
        low: Lower end of the cluster-bootstrap interval over seeds.
        high: Its upper end.
        p_value: Two-sided sign-flip p over seeds.
        p_position: Two-sided p of ``k* - others`` with the name k* given to a random cut in every fork; NaN
            for other comparisons.
        n_seeds: Independent units.
        n_forks: Forks in them.
        norm_spread: Largest relative difference of norms applied in one fork: the check that norms are
            equal.
    """

    kind: str
    amount: float
    comparison: str
    mean: float
    low: float
    high: float
    p_value: float
    p_position: float
    n_seeds: int
    n_forks: int
    norm_spread: float


def intervention_effects(
    rows: Iterable[Mapping[str, Any]],
    *,
    outcome: str = "test_loss",
    reading: str = "horizon",
    magnitude: bool = False,
    cuts: str = "guarded",
    level: float = 0.95,
    n_boot: int = 2000,
    rng: np.random.Generator,
) -> list[Contrast]:
    """Contrasts between cuts and controls, for every kind and norm of a study.

    Args:
        rows: Of ``read_study``.
        outcome: ``test_loss``, ``train_loss``, ``test_accuracy`` or ``train_accuracy``.
        reading: ``horizon``: the last evaluation. ``area``: mean of the curve after the change (area over the
            horizon, by the trapezoid rule). ``rise``: the first evaluation, right after the change.
        magnitude: Compare absolute differences from the untouched fork, "how much", not "how much worse".
        cuts: Which other cuts: ``guarded``, those at most W // 2, where k* is looked for; ``all``.
        level: Of the intervals.
        n_boot: Resamples of seeds, and relabellings.
        rng: Source of randomness.

    Returns:
        Contrasts, those that no fork allows left out. Forks without a resolved k*, or whose k* is no position
        of the study, count in no contrast with k*. With n seeds no sign-flip p is below 2 / 2^n. Source:
        standard results (cluster bootstrap, sign-flip test).

    Raises:
        SettingError: On an unknown argument.
        DataError: If there is no untouched fork to compare with.
    """
    if reading not in ("horizon", "area", "rise") or cuts not in ("guarded", "all"):
        raise SettingError(
            f"reading must be horizon, area or rise and cuts guarded or all; got {reading!r} and {cuts!r}. "
            "The defaults are horizon and guarded."
        )
    forks: dict[tuple[str, float], dict[tuple[int, int], dict[int | str, Mapping[str, Any]]]] = defaultdict(dict)
    untouched: dict[tuple[int, int], float] = {}
    for row in rows:
        if not row["steps"]:
            continue
        fork = (row["seed"], row["time"])
        if row["position"] == "none":
            untouched[fork] = _reading(row, outcome, reading)
        else:
            forks[row["kind"], row["amount"]].setdefault(fork, {})[row["position"]] = row
    if not untouched:
        raise DataError("a study must hold untouched forks to compare with; got none. Let it finish a fork.")
    found = []
    for (kind, amount), table in sorted(forks.items()):
        effects, norms = {}, []
        for fork in sorted(table.keys() & untouched.keys()):
            change = {p: _reading(row, outcome, reading) - untouched[fork] for p, row in table[fork].items()}
            effects[fork] = {p: abs(x) for p, x in change.items()} if magnitude else change
            applied = np.array([row["relative"] for row in table[fork].values()])
            norms.append(np.ptp(applied) / applied.mean())
        k_star = {fork: next(iter(table[fork].values()))["k_star"] for fork in effects}
        window = {fork: len(next(iter(table[fork].values()))["sigma"]) for fork in effects}
        spread = float(max(norms, default=np.nan))
        for name in ("k* - others", "k* - span", "k* - space", "k* - none", "others - none"):
            values, choices = defaultdict(list), []
            for fork, effect in effects.items():
                pair = _pair(name, effect, k_star[fork], window[fork] // 2 if cuts == "guarded" else window[fork])
                if pair is not None and np.isfinite(pair[0]):
                    values[fork[0]].append(pair[0])
                    choices.append((fork[0], pair[1]))
            if values:
                p_position = _position_p(choices, values, n_boot, rng) if name == "k* - others" else np.nan
                means = np.array([np.mean(v) for v in values.values()])
                of = paired(means, level=level, n_boot=n_boot, rng=rng)
                sizes = (of.n_seeds, sum(map(len, values.values())))
                found.append(
                    Contrast(kind, amount, name, of.mean, of.low, of.high, of.p_value, p_position, *sizes, spread)
                )
    return found


def _pair(name: str, effect: Mapping[int | str, float], k: int, largest: int) -> tuple[float, list[float]] | None:
    """The contrast of one fork, and ``k* - others`` with every cut in the place of k*."""
    cuts = {p: x for p, x in effect.items() if isinstance(p, int) and (p <= largest or p == k)}
    others = [x for p, x in cuts.items() if p != k]
    first, _, second = name.partition(" - ")
    if (first == "k*" and k not in cuts) or ("others" in name and not others):
        return None
    baseline = {"others": np.mean(others) if others else np.nan, "none": 0.0}
    if second not in baseline and second not in effect:
        return None
    reference = float(baseline[second] if second in baseline else effect[second])
    value = cuts[k] if first == "k*" else float(np.mean(others))
    total, n = sum(cuts.values()), len(cuts)
    return value - reference, [x - (total - x) / max(n - 1, 1) for x in cuts.values()]


def _position_p(
    choices: Sequence[tuple[int, list[float]]],
    values: Mapping[int, Sequence[float]],
    n_draws: int,
    rng: np.random.Generator,
) -> float:
    """p of the mean over seeds under random names of k*, fork by fork."""
    seeds = list(values)
    observed = abs(np.mean([np.mean(v) for v in values.values()]))
    total = np.zeros(n_draws)
    for seed, options in choices:
        contrasts = np.array(options)
        total += contrasts[rng.integers(0, len(contrasts), n_draws)] / len(values[seed])
    reached = np.abs(total / len(seeds)) >= observed * (1 - 1e-12)
    return float((1 + reached.sum()) / (1 + n_draws))


def _reading(row: Mapping[str, Any], outcome: str, reading: str) -> float:
    return float(curve(row, outcome)[1][0]) if reading == "rise" else read_curve(row, outcome, reading)
