"""The rules that score every possible gap position; the position is where the score is largest."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]
Rule = Literal["guarded", "plain", "weighted", "difference"]


def gap_scores(singular_values: ArrayLike, rule: Rule = "guarded", floor: ArrayLike = 0.0) -> Array:
    """Score of every gap position j = 1..W-1 under a rule; NaN where the rule does not admit j.

    ``plain``: sigma_j / sigma_{j+1}. ``weighted``: that times sigma_j / sum sigma. ``guarded``: plain, j <=
    W // 2 only. These three need sigma_{j+1} above the floor. ``difference``: sigma_j - sigma_{j+1}, which
    needs only sigma_j above it.

    Args:
        singular_values: (..., W) descending [parameter], W >= 2.
        rule: One of the four.
        floor: (...) resolution floor [parameter].

    Returns:
        (..., W - 1). Source: arXiv:2603.28964 (plain, weighted), derived (guarded, difference).

    Raises:
        SettingError: For an unknown rule or W < 2.
    """
    if rule not in get_args(Rule):
        raise SettingError(f"rule must be one of {', '.join(get_args(Rule))}; got {rule!r}. The default is guarded.")
    sigma = np.asarray(singular_values, dtype=np.float64)
    window = sigma.shape[-1] if sigma.ndim else 0
    if window < 2:
        raise SettingError(
            f"window must be at least 2; got {window}. A single update has no gap: use window=10 as in the paper."
        )
    floor = np.asarray(floor, dtype=np.float64)[..., None]
    upper, lower = sigma[..., :-1], sigma[..., 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        if rule == "difference":
            return np.where((upper > floor) & (upper > 0.0), upper - lower, np.nan)
        score = np.where((lower > floor) & (lower > 0.0), upper / lower, np.nan)
        if rule == "weighted":
            score = score * upper / sigma.sum(axis=-1, keepdims=True)
    if rule == "guarded":
        score[..., window // 2 :] = np.nan
    return score


def largest_score(scores: Array) -> Array:
    """Largest admitted score, NaN where there is none."""
    best = np.fmax.reduce(scores, axis=-1)
    return np.asarray(best, dtype=np.float64)
