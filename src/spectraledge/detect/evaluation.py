"""Results of an evaluation of signals, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .leads import OperatingRow, Timing
from .signals import SignalKind
from .subjects import Split

if TYPE_CHECKING:
    from .findings import Comparison


@dataclass(frozen=True)
class Area:
    """Area at matched time: chance that a run with the event scores higher than one without.

    Attributes:
        value: Over pairs of runs; NaN where none can be compared.
        low: Lower end of its bootstrap interval over runs.
        high: Upper end.
        pairs: Pairs compared.
    """

    value: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, eq=False)
class SignalResult:
    """One signal on held-out runs.

    Attributes:
        name: Of the signal.
        kind: "detector", "author" or "baseline".
        outcome: Whether it reads the metric that defines the event.
        direction: "high" or "low", as learned; "mixed" where folds differ.
        auc: At the event.
        auc_before: The same by evaluation intervals before the event; the value only for more than one.
        auc_by_group: At the event, against each group of runs without it.
        train_auc: On training runs, after the choice of the side: never below 0.5 where that was chosen.
        operating: Rows for 5 %, 10 % and, where there is one, the fixed threshold.
        timing: At the 5 % threshold (the clock: at its step).
        missing: Runs that do not have the signal.
    """

    name: str
    kind: SignalKind
    outcome: bool
    direction: str
    auc: Area
    auc_before: dict[int, Area]
    auc_by_group: dict[str, Area]
    train_auc: float
    operating: tuple[OperatingRow, ...]
    timing: Timing
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All signals.

    Attributes:
        split: What was held out.
        train: Names of training runs by fold.
        held_out: Names of held-out runs by fold.
        n_positive: Held-out runs with the event.
        n_negative: Held-out runs without, by group.
        interval: Between test evaluations [steps].
        signals: By held-out area, the largest first.
        unavailable: Name of a signal to what is missing.
        comparisons: Best baseline against detectors and published rules, at the event and one evaluation before.
        sentences: The findings for people.
    """

    split: Split
    train: tuple[tuple[str, ...], ...]
    held_out: tuple[tuple[str, ...], ...]
    n_positive: int
    n_negative: dict[str, int]
    interval: float
    signals: tuple[SignalResult, ...]
    unavailable: dict[str, str]
    comparisons: tuple[Comparison, ...]
    sentences: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain types."""
        table = {name: getattr(self, name) for name in vars(self) if name not in ("split", "signals", "comparisons")}
        return {
            "split": {"kind": self.split.kind, "sentence": self.split.sentence},
            **table,
            "signals": [_plain_signal(s) for s in self.signals],
            "comparisons": [asdict(c) for c in self.comparisons],
        }


def _plain_signal(result: SignalResult) -> Mapping[str, Any]:
    return {
        name: asdict(value)
        if name in ("auc", "timing")
        else {str(k): asdict(v) for k, v in value.items()}
        if name in ("auc_before", "auc_by_group")
        else [asdict(row) for row in value]
        if name == "operating"
        else value
        for name, value in vars(result).items()
    }
