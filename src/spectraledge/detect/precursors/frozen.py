"""Rules fixed before they are judged, and the file that holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from .combination import Hazard, hazard_traces, readings_of
from .criterion import CRITERION, merit
from .rules import FORMS, Judging, Rule, traces_of
from .runs import PrecursorRun
from .search import Search
from .statistics import STATISTICS, Group

FORMAT = "spectraledge-precursor-rules"


@dataclass(frozen=True, eq=False)
class FrozenRule:
    """A rule that nothing can change any more.

    Attributes:
        rule: With its threshold.
        group: "candidate", "baseline" or "outcome".
        hazard: Of a combination.
    """

    rule: Rule
    group: Group
    hazard: Hazard | None = None

    def traces(self, runs: Sequence[PrecursorRun], judging: Judging) -> np.ndarray | None:
        """(n, T) sustained values; None where a run does not hold what the rule reads."""
        if self.hazard is None:
            return traces_of(runs, self.rule.statistic, self.rule.form, judging)
        values = [readings_of(run, self.hazard.readings, judging) for run in runs]
        if any(x is None for x in values):
            return None
        return hazard_traces(self.hazard, runs, [x for x in values if x is not None], judging)


@dataclass(frozen=True, eq=False)
class Frozen:
    """What was decided on development runs.

    Attributes:
        winner: Name of the chosen candidate.
        best_baseline: Name of the baseline it is held against.
        rules: By name: the winner, runners-up, every baseline in its best form.
        judging: What all rules have in common.
        development: Name of each development run to the SHA-256 of its recording.
        seeds: Of the development runs; none of them may be judged.
        criterion: How the winner was chosen.
        held_out: By rule: what it did on development runs, every seed by rules made on the others.
    """

    winner: str
    best_baseline: str
    rules: dict[str, FrozenRule]
    judging: Judging
    development: dict[str, str]
    seeds: tuple[int, ...]
    criterion: str
    held_out: dict[str, dict[str, Any]]

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        table = {
            "format": FORMAT,
            "winner": self.winner,
            "best_baseline": self.best_baseline,
            "criterion": self.criterion,
            "judging": asdict(self.judging),
            "seeds": list(self.seeds),
            "rules": {
                name: frozen.rule.as_dict()
                | {"group": frozen.group}
                | ({} if frozen.hazard is None else {"hazard": frozen.hazard.as_dict()})
                for name, frozen in self.rules.items()
            },
            "held_out": self.held_out,
            "development": self.development,
        }
        Path(path).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def freeze(search: Search, *, runners_up: int = 5) -> Frozen:
    """Fix the winner, a few runners-up, and every baseline in the form that did best.

    The candidate with the largest sensitivity and longest lead of all is among them, eligible or not.

    Args:
        search: On development runs.
        runners_up: Candidates beside the winner, of other statistics than it and each other.
    """
    ranked = sorted(search.entries, key=lambda name: merit(search.entries[name], search.judging), reverse=True)
    candidates = [name for name in ranked if search.entries[name].group == "candidate"]
    # The longest lead of all, whatever the condition on its start: what the condition is worth shows in the end.
    longest = max(candidates, key=lambda name: merit(search.entries[name], search.judging)[1:])
    chosen = list(dict.fromkeys([search.winner, search.best_baseline, longest]))
    seen = {search.entries[name].rule.statistic for name in chosen}
    left = runners_up
    for name in ranked:
        entry = search.entries[name]
        if entry.rule.statistic in seen or (entry.group == "candidate" and left == 0):
            continue
        seen.add(entry.rule.statistic)
        chosen.append(name)
        left -= entry.group == "candidate"
    rules = {name: search.entries[name] for name in chosen}
    return Frozen(
        search.winner,
        search.best_baseline,
        {name: FrozenRule(entry.rule, entry.group, entry.hazard) for name, entry in rules.items()},
        search.judging,
        {run.name: run.digest for run in search.runs},
        tuple(sorted({run.seed for run in search.runs})),
        CRITERION,
        {
            name: {
                "hits": entry.held_out.table.hits,
                "positives": entry.held_out.table.n_positive,
                "false_alarms": entry.held_out.table.false_alarms,
                "negatives": entry.held_out.table.n_negative,
                "median_lead": _or_none(entry.held_out.leads.median),
                "at_start": entry.at_start,
            }
            for name, entry in rules.items()
        },
    )


def load_frozen(path: str | Path) -> Frozen:
    """Read what ``Frozen.save`` wrote.

    Raises:
        DataError: If it is no such file.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise KeyError(FORMAT)
        rules = {name: _rule(entry) for name, entry in table["rules"].items()}
        return Frozen(
            table["winner"],
            table["best_baseline"],
            rules,
            Judging(**table["judging"]),
            dict(table["development"]),
            tuple(table["seeds"]),
            table["criterion"],
            dict(table["held_out"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} must hold frozen rules; {type(error).__name__}: {error}. Make it with `spectraledge precursors "
            "DEVELOPMENT --freeze FILE`."
        ) from error


def _rule(entry: dict[str, Any]) -> FrozenRule:
    hazard = Hazard.from_dict(entry["hazard"]) if "hazard" in entry else None
    if entry["form"] not in FORMS or (hazard is None and entry["statistic"] not in STATISTICS):
        raise ValueError(f"this version does not know {entry['statistic']} ({entry['form']})")
    return FrozenRule(Rule(entry["statistic"], entry["form"], float(entry["threshold"])), entry["group"], hazard)


def _or_none(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None
