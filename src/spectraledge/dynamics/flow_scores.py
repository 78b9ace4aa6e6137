"""Scores of predictors of the spectrum, and who wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import SettingError
from .columns import Table

NONE_BEATS_AR1 = "none beats ar1"
NONE_BEATS_BOTH = "none beats both persistence and ar1"
TOO_FEW = "too few windows to say"

_FEWEST_BLOCKS = 5.0  # below, a percentile interval means next to nothing


@dataclass(frozen=True)
class FlowScore:
    """Out-of-sample error of one predictor of one quantity.

    Attributes:
        quantity: "d_1".. sigma_j, "lambda_1".. sigma_j^2, or "g", the width of the gap at the k* of now.
        horizon: Snapshots ahead.
        windows: "all", or "probed" where the flows are compared on the windows that have a probe.
        predictor: Its name.
        oracle: Whether it is given the updates that came.
        n: Windows scored, the same for all predictors of this comparison.
        n_blocks: Blocks behind the intervals; with fewer than ten they are too short.
        persistence: Mean square error over that of persistence, with the ends of its interval.
        ar1: The same over that of the AR(1) of each sigma_j.
        skill: 1 - error / variance of the realised change.
    """

    quantity: str
    horizon: int
    windows: str
    predictor: str
    oracle: bool
    n: int
    n_blocks: float
    persistence: tuple[float, float, float]
    ar1: tuple[float, float, float]
    skill: float


@dataclass(frozen=True, eq=False)
class FlowComparison:
    """Scores of all predictors.

    Attributes:
        scores: One for each quantity, horizon, set of windows and predictor.
        winners: (quantity, horizon, windows) to the predictor that wins, or "none beats ar1", "none beats both
            persistence and ar1", or "too few windows to say" (below five blocks).
        window, stride, block: Settings.
        n_windows: Windows of the record; n_probed: those with measured flow inputs.
        notes: What is missing or was assumed.
    """

    scores: tuple[FlowScore, ...]
    winners: dict[tuple[str, int, str], str]
    window: int
    stride: int
    block: str
    n_windows: int
    n_probed: int
    notes: tuple[str, ...] = field(default=())

    def score(self, quantity: str, horizon: int, predictor: str, windows: str = "all") -> FlowScore:
        """One score.

        Raises:
            SettingError: If there is none.
        """
        for s in self.scores:
            if (s.quantity, s.horizon, s.predictor, s.windows) == (quantity, horizon, predictor, windows):
                return s
        raise SettingError(
            f"A score must be one of the comparison's; got {quantity}, {horizon}, {predictor}, {windows}. "
            "See table()."
        )

    def table(self) -> Table:
        """Columns by name, one entry a score."""
        rows = self.rows()
        return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}

    def rows(self) -> list[dict[str, Any]]:
        """One plain row a score."""
        return [
            {
                "quantity": s.quantity,
                "horizon": s.horizon,
                "windows": s.windows,
                "predictor": s.predictor,
                "oracle": s.oracle,
                "n": s.n,
                "n_blocks": round(s.n_blocks, 2),
                **{f"vs_persistence{end}": x for end, x in zip(("", "_low", "_high"), s.persistence)},
                **{f"vs_ar1{end}": x for end, x in zip(("", "_low", "_high"), s.ar1)},
                "skill": s.skill,
                "winner": self.winners[s.quantity, s.horizon, s.windows] == s.predictor,
            }
            for s in self.scores
        ]

    def summary(self) -> dict[str, Any]:
        """Winners and settings in plain types."""
        return {
            "window": self.window,
            "stride": self.stride,
            "block": self.block,
            "n_windows": self.n_windows,
            "n_probed": self.n_probed,
            "winners": [
                {"quantity": q, "horizon": h, "windows": w, "winner": name}
                for (q, h, w), name in self.winners.items()
            ],
            "notes": list(self.notes),
        }


class HasRows(Protocol):
    """A result that can be listed."""

    def rows(self) -> list[dict[str, Any]]:
        """Plain rows."""


def flow_rows(*results: HasRows) -> list[dict[str, Any]]:
    """Plain rows of results of this package (``FlowComparison``, ``GapFlowTerms``, ``DysonTests``, ...), in order."""
    return [row for result in results for row in result.rows()]


def winner(scores: Sequence[FlowScore]) -> str:
    """The predictor of least error that beats persistence and AR(1), or why there is none.

    Args:
        scores: Of one quantity, horizon and set of windows.
    """
    if scores[0].n_blocks < _FEWEST_BLOCKS:
        return TOO_FEW
    candidates = [s for s in scores if not s.oracle and s.predictor not in ("persistence", "ar1")]
    both = [s for s in candidates if s.persistence[2] < 1.0 and s.ar1[2] < 1.0]
    if both:
        return min(both, key=lambda s: s.persistence[0]).predictor
    return NONE_BEATS_BOTH if any(s.ar1[2] < 1.0 for s in candidates) else NONE_BEATS_AR1
