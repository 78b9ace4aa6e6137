"""Three phases of the gap ratio R(t): does it rise, stay and fall, and what would chance or the schedule do?

Every claim here needs its null: a learning-rate schedule alone makes the norms of the updates rise and fall,
and R of a moving window with them (``phase_null``). Overlapping windows of W updates of s steps lag by up to
W s steps, so a breakpoint cannot be placed more finely than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.bootstrap import moving_block_indices
from spectraledge.theory.phase_rules import AuthorPhases, sed_phases, thesis_phases
from spectraledge.theory.piecewise import PiecewiseFit, PiecewiseModel

Array = NDArray[np.float64]
Mode = Literal["strict", "author"]
Rule = Literal["thesis", "sed"]

# A plateau is flat if its slope is at most this share of the milder of the other two.
FLAT = 0.5


@dataclass(frozen=True)
class Phases:
    """Strict reading of one series.

    Attributes:
        three_phases: Two breaks are preferred, and the slopes read up, flat, down.
        n_breaks: Number of breaks that BIC prefers.
        bic: (3,) with 0, 1, 2 breaks.
        breakpoints: (2,) of the fit with two breaks, preferred or not [unit of the times].
        low: (2,) lower ends of their block-bootstrap intervals.
        high: (2,) upper ends.
        slopes: (3,) of log R in the three pieces [1 / unit of the times].
        fitted: (T,) log R of the fit with two breaks.
    """

    three_phases: bool
    n_breaks: int
    bic: Array
    breakpoints: Array
    low: Array
    high: Array
    slopes: Array
    fitted: Array


def three_phases(
    times: ArrayLike,
    ratio: ArrayLike,
    *,
    mode: Mode = "strict",
    rule: Rule = "thesis",
    window: int = 10,
    smallest: int | None = None,
    n_boot: int = 199,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
) -> Phases | AuthorPhases:
    """Rise, plateau and collapse of the gap ratio R = sigma_k / sigma_{k+1}.

    ``strict``: continuous piecewise-linear fits of log R with no, one and two breaks, compared by BIC with
    T / W effective points, breakpoints with moving-block bootstrap intervals (blocks of 2 W residuals). log R,
    because R is a ratio: its scatter grows with it. ``author``: the published rules as they are, which name
    phases in any series and have no error rate; ``rule="thesis"``: sign of the slope of a 5-point mean against
    0.01 sd of R; ``rule="sed"``: plateau where R >= 0.85 of its peak, collapse at R < 1.20.

    Args:
        times: (T,) steps or windows, increasing.
        ratio: (T,) R at a fixed position k, at least 1.
        mode: ``strict`` or ``author``.
        rule: Which of the author's rules; not used by ``strict``.
        window: W.
        smallest: Points in the shortest piece; max(3, T // 10) where None.
        n_boot: Resamples for the intervals.
        level: Of the intervals.
        rng: Source of randomness; needed by ``strict``.

    Returns:
        :class:`Phases`, or the author's :class:`~spectraledge.theory.phase_rules.AuthorPhases`. Source:
        arXiv:2603.28964v1-v3 and the author's code (author), derived (strict).

    Raises:
        SettingError: On an unknown mode or rule, or a ratio that is not finite and positive.
    """
    if mode not in get_args(Mode) or rule not in get_args(Rule):
        raise SettingError(
            f"mode must be strict or author and rule thesis or sed; got {mode!r} and {rule!r}. "
            "The defaults are strict and thesis."
        )
    t, r = np.asarray(times, dtype=np.float64), np.asarray(ratio, dtype=np.float64)
    if r.ndim != 1 or t.shape != r.shape or not np.isfinite(r).all() or np.any(r <= 0.0):
        raise SettingError(
            f"ratio must be (T,) like times, finite and positive; got shapes {r.shape} and {t.shape}. "
            "Leave out windows whose gap is not resolved."
        )
    if mode == "author":
        return thesis_phases(r) if rule == "thesis" else sed_phases(r)
    if rng is None:
        raise SettingError("rng must be given for mode='strict', whose intervals are drawn; got none.")
    model = PiecewiseModel(t, smallest=max(3, len(t) // 10) if smallest is None else smallest)
    y = np.log(r)
    n_effective = max(len(t) / window, 2.0)
    fit = model.fit(y, n_effective=n_effective)
    fitted = model.values(y, 2, fit.breakpoints[2])
    block = min(2 * window, len(t))
    index = moving_block_indices(len(t), block, n_boot, rng)
    draws = model.fit(fitted + (y - fitted)[index], n_effective=n_effective).breakpoints[2]
    low, high = np.quantile(draws, [0.5 * (1 - level), 0.5 * (1 + level)], axis=0)
    return Phases(
        bool(is_three_phase(fit)),
        int(fit.n_breaks),
        fit.bic,
        fit.breakpoints[2],
        low,
        high,
        fit.slopes[2],
        fitted,
    )


def is_three_phase(fit: PiecewiseFit) -> NDArray[np.bool_]:
    """Whether two breaks are preferred and the slopes read up, flat, down; (...).

    Flat: at most half as steep as the milder of the other two. Source: derived.
    """
    first, middle, last = np.moveaxis(fit.slopes[2], -1, 0)
    flat = np.abs(middle) <= FLAT * np.minimum(np.abs(first), np.abs(last))
    return np.asarray((fit.n_breaks == 2) & (first > 0) & (last < 0) & flat)
