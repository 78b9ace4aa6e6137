"""How often detectors raise a false alarm on runs without an event, and how surely they find a planted one.

``python -m spectraledge.detect.calibration --runs 1000 --out FILE.json`` writes both tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom

from ..theory.intervals import clopper_pearson
from ..theory.permutation import holm
from .detectors import DETECTORS
from .judge import PAST, Judge
from .null_runs import NULLS, null_bands
from .planted_runs import CONTROLS, planted_band
from .threshold_fit import concerns

MEANT_FOR = {"P1": "mode2-emergence", "P2": "coherence-loss", "P3": "coherence-loss", "P4": "mode2-emergence"}
"""The detector that each positive control is meant for."""

_AT_ONCE = 100


@dataclass(frozen=True)
class FalseAlarms:
    """Runs of one null in which one detector raised an alarm.

    Attributes:
        detector: Its name.
        null: Letter of the null; P5 is the planted decay of norms.
        alarms: Runs with at least one alarm.
        n: Runs.
        share: alarms / n.
        low: Lower end of the 95 % Clopper-Pearson interval of the share.
        high: Upper end.
        p: Holm-adjusted over the table: the chance of as many alarms if the share were the level.
    """

    detector: str
    null: str
    alarms: int
    n: int
    share: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Power:
    """How one detector found one planted event.

    Attributes:
        detector: Its name.
        control: P1 to P4.
        strength: In units of the noise floor.
        n: Runs.
        early: Share of runs whose first alarm came before the event: false ones.
        power: Share of runs with an alarm in the 3W rows after the event.
        within: Share of runs whose first alarm of all lies within W rows after the event.
        within_low: Lower end of its 95 % Clopper-Pearson interval.
        delay: Median rows from the event to the first alarm after it; NaN where there was none.
    """

    detector: str
    control: str
    strength: float
    n: int
    early: float
    power: float
    within: float
    within_low: float
    delay: float


def false_alarm_table(
    n_runs: int = 1000,
    *,
    nulls: Sequence[str] | None = None,
    window: int = 10,
    level: float = 0.05,
    n_updates: int = 200,
    seed: int = 1,
) -> list[FalseAlarms]:
    """Run-level false alarms of every detector on every null, against the thresholds for runs of this very length.

    Args:
        n_runs: Runs of each null.
        nulls: Letters of ``NULLS``, and "P5"; None for all of them. R is counted for emergence only.
        window: W.
        level: Level of the thresholds, and of the test.
        n_updates: Updates of a run, of which about 6W pass before anything is judged.
        seed: Of the runs; thresholds were fitted to others.

    Returns:
        One row for each detector and null.
    """
    letters = [*NULLS, "P5"] if nulls is None else list(nulls)
    horizon = max(n_updates - (PAST + 2) * window, 1)
    counts: dict[tuple[str, str], int] = {}
    for letter, child in zip(letters, np.random.SeedSequence(seed).spawn(len(letters))):
        fired = np.zeros(len(DETECTORS), dtype=int)
        for bands in _batches(letter, n_runs, np.random.default_rng(child), n_updates, 2 * window - 1):
            for band in bands:
                fired += [bool(j.alarms.any()) for j in Judge(window, None, level, horizon).extend(band)]
        for name, alarms in zip(DETECTORS, fired.tolist()):
            if letter == "P5" or concerns(letter, name):
                counts[name, letter] = alarms
    # P(X >= alarms) at the level itself: small where the true share must be above it.
    raw = [float(binom.sf(alarms - 1, n_runs, level)) for alarms in counts.values()]
    rows = []
    for ((name, letter), alarms), p in zip(counts.items(), holm(raw).tolist()):
        low, high = clopper_pearson(alarms, n_runs)
        rows.append(FalseAlarms(name, letter, alarms, n_runs, alarms / n_runs, float(low), float(high), p))
    return rows


def power_table(
    n_runs: int = 200,
    *,
    controls: Sequence[str] = ("P1", "P2", "P3", "P4"),
    strengths: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    window: int = 10,
    level: float = 0.05,
    horizon: int = 400,
    n_updates: int = 200,
    seed: int = 2,
) -> list[Power]:
    """Power and delay of every detector on planted events, at the thresholds in use.

    Args:
        n_runs: Runs of each control and strength.
        controls: Keys of ``CONTROLS``.
        strengths: In units of the noise floor.
        window: W.
        level: Level of the thresholds.
        horizon: Horizon of the thresholds.
        n_updates: Updates of a run.
        seed: Of the runs.

    Returns:
        One row for each detector, control and strength.
    """
    rows = []
    cases = [(control, float(strength)) for control in controls for strength in strengths]
    for (control, strength), child in zip(cases, np.random.SeedSequence(seed).spawn(len(cases))):
        rng = np.random.default_rng(child)
        first = np.full((n_runs, len(DETECTORS)), np.nan)
        after = np.full((n_runs, len(DETECTORS)), np.nan)
        for run in range(n_runs):
            band, step = planted_band(control, strength, rng, n_updates=n_updates, lags=2 * window - 1)
            for k, judged in enumerate(Judge(window, None, level, horizon).extend(band)):
                delays = np.flatnonzero(judged.alarms) - step
                first[run, k] = delays[0] if len(delays) else np.nan
                late = delays[(delays >= 0) & (delays <= 3 * window)]
                after[run, k] = late[0] if len(late) else np.nan
        for k, name in enumerate(DETECTORS):
            rows.append(_power(name, control, strength, first[:, k], after[:, k], window))
    return rows


def _power(name: str, control: str, strength: float, first: np.ndarray, after: np.ndarray, window: int) -> Power:
    n = len(first)
    inside = int(np.sum((first >= 0) & (first <= window)))
    found = np.isfinite(after)
    return Power(
        detector=name,
        control=control,
        strength=strength,
        n=n,
        early=float(np.mean(first < 0)),
        power=float(found.mean()),
        within=inside / n,
        within_low=float(clopper_pearson(inside, n)[0]),
        delay=float(np.median(after[found])) if found.any() else float("nan"),
    )


def _batches(letter: str, n_runs: int, rng: np.random.Generator, n_updates: int, lags: int) -> list[np.ndarray]:
    sizes = [min(_AT_ONCE, n_runs - start) for start in range(0, n_runs, _AT_ONCE)]
    if letter in CONTROLS:
        return [
            np.stack([planted_band(letter, 1.0, rng, n_updates=n_updates, lags=lags)[0] for _ in range(size)])
            for size in sizes
        ]
    return [null_bands(letter, size, rng, n_updates=n_updates, lags=lags) for size in sizes]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both tables to a file."""
    parser = argparse.ArgumentParser(prog="python -m spectraledge.detect.calibration", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="runs of each null; a fifth of them for each control")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    tables = {
        "runs": given.runs,
        "seed": given.seed,
        "false_alarms": [asdict(row) for row in false_alarm_table(given.runs, seed=given.seed)],
        "power": [asdict(row) for row in power_table(max(given.runs // 5, 1), seed=given.seed + 1)],
    }
    # NaN is no JSON; a missing delay is null.
    text = json.dumps(tables, indent=1, default=str, allow_nan=True).replace("NaN", "null")
    given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
