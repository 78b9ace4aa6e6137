"""One word on a claim: what its interval says, and whether nulls say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..theory.bootstrap import BootstrapInterval

Outcome = Literal["supported", "compatible", "contradicted", "not identifiable", "uninformative"]

PASS_RATE = 0.2
"""Share of null draws above which a test that they pass says nothing."""
LEVEL = 0.05
FEWEST_BLOCKS = 10
"""Independent blocks below which a bootstrap interval is too short to contradict anything."""


def outcome(interval: BootstrapInterval, *, null_shares: Sequence[float], p_values: Sequence[float]) -> Outcome:
    """The word for a claim that some statistic is positive.

    - ``uninformative``: it is positive in more than 20 % of the draws of one of the nulls.
    - ``contradicted``: the interval of the statistic lies below 0, and rests on at least 10 blocks.
    - ``supported``: it lies above 0, and every null reaches the observed value in at most 5 % of its draws.
    - ``compatible``: it lies above 0, and a null reaches the value more often.
    - ``not identifiable``: the statistic or its interval is unknown, the interval holds 0 or lies below it on
      few blocks, or there is no null.

    Args:
        interval: Of the statistic; a scalar one.
        null_shares: Share of positive draws of each null; NaN where it could not be drawn.
        p_values: P-value of the observed value under each null.

    >>> positive = BootstrapInterval(0.2, 0.1, 0.3, 0.95, 12.0)
    >>> outcome(positive, null_shares=[0.1], p_values=[0.01]), outcome(positive, null_shares=[0.9], p_values=[0.01])
    ('supported', 'uninformative')
    """
    if interval.value != interval.value:
        return "not identifiable"
    if any(share > PASS_RATE for share in null_shares):
        return "uninformative"
    if interval.high < 0.0 and interval.n_units >= FEWEST_BLOCKS:
        return "contradicted"
    if not interval.low > 0.0 or not null_shares or any(not p >= 0.0 for p in p_values):
        return "not identifiable"
    return "supported" if max(p_values) <= LEVEL else "compatible"
