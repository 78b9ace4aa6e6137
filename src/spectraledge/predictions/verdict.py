"""What is said of one prediction: our verdict, and the author's own rule beside it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["supported", "compatible", "contradicted", "not identifiable", "uninformative", "not tested"]
AuthorOutcome = Literal["passes", "fails", "not applicable"]


@dataclass(frozen=True)
class AuthorRule:
    """The published check, taken literally.

    Attributes:
        rule: In words.
        outcome: What it says of these runs: "passes" where it holds in most of those it applies to.
        passed: Runs that pass.
        n: Runs it applies to.
        value: Its statistic, median over runs; NaN where there is none.
        null_pass_rate: Share of null histories, fitted to these runs, on which it passes too; NaN where the rule
            cannot be put to a null.
        published: What was reported.
    """

    rule: str
    outcome: AuthorOutcome = "not applicable"
    passed: int = 0
    n: int = 0
    value: float = math.nan
    null_pass_rate: float = math.nan
    published: str = ""


@dataclass(frozen=True)
class Verdict:
    """One prediction on some runs.

    Attributes:
        id: "T1" to "T8", "C1" to "C16", "GM", "AR".
        claim: One sentence.
        source: With version.
        outcome: ``supported``: beats all nulls and baselines, and its interval excludes the contrary. ``compatible``:
            points the right way, but a null or baseline does as well. ``contradicted``: the interval excludes the
            claim. ``not identifiable``: these runs cannot tell. ``uninformative``: the test passes on more than
            20 % of its nulls. ``not tested``: needs a run that is not there.
        reason: Why, in one sentence.
        statistic: Name of what was measured.
        value: Its value.
        interval: (low, high); NaN where there is none.
        interval_method: How it was made.
        n: What the value rests on, by name: runs, windows, independent blocks.
        null: Name of the null that comes closest.
        null_pass_rate: Share of its histories that our test passes.
        p: P-value under it.
        baselines: The same statistic for cheaper signals, by name.
        power: Share of planted positives of the claimed size that the test finds; NaN where unknown.
        author: The published rule.
        raw: Values run by run.
        command: Command that makes the missing run; "" where nothing is missing.
    """

    id: str
    claim: str
    source: str
    outcome: Outcome
    reason: str
    statistic: str = ""
    value: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    interval_method: str = ""
    n: Mapping[str, float] = field(default_factory=dict)
    null: str = ""
    null_pass_rate: float = math.nan
    p: float = math.nan
    baselines: Mapping[str, float] = field(default_factory=dict)
    power: float = math.nan
    author: AuthorRule = field(default_factory=lambda: AuthorRule(""))
    raw: Sequence[Mapping[str, Any]] = ()
    command: str = ""

    @property
    def author_outcome(self) -> AuthorOutcome:
        """What the published rule says of these runs."""
        return self.author.outcome

    def as_dict(self) -> dict[str, Any]:
        """The same in types of strict JSON; numbers that are not finite become None."""
        return {**_plain(dataclasses.asdict(self)), "author_outcome": self.author_outcome}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
