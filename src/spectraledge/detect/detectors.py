"""The detectors: which feature each one watches, in which direction, and what an alarm of it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import SettingError
from .charts import Chart, Cusum, Direction, Ewma, PageHinkley


@dataclass(frozen=True)
class DetectorSpec:
    """One detector.

    Attributes:
        name: Its name, as in ``find_events(detectors=[...])``.
        kind: Kind of the events that it reports.
        feature: The feature that it watches, a field of ``WindowFeatures``.
        direction: Whether a rise, a fall or both count.
        sentence: What an alarm says, for people to read.
        mode: Mode j that the feature belongs to; 0 where it belongs to none.
        chart: Its control chart: ``shewhart``, ``ewma``, ``cusum`` or ``page-hinkley``. At equal false alarms the
            first has the most power where a step is large, the second where it is small beside the noise; the sums of
            the others follow every slow wander of overlapping windows and need thresholds five times as high.
    """

    name: str
    kind: str
    feature: str
    direction: Direction
    sentence: str
    mode: int = 0
    chart: str = "shewhart"


_SPECS = (
    *(
        DetectorSpec(
            f"mode{j}-emergence",
            "mode emergence",
            f"excess{j}",
            "up",
            f"sigma_{j} left the noise floor: it rose above the smaller half of the spectrum.",
            mode=j,
        )
        for j in (1, 2, 3)
    ),
    DetectorSpec(
        "gap-opening", "gap opening", "log_ratio", "up", "The largest ratio sigma_k / sigma_{k+1}, k <= W/2, grew."
    ),
    DetectorSpec(
        "gap-collapse",
        "gap collapse",
        "log_ratio",
        "down",
        "The largest ratio sigma_k / sigma_{k+1}, k <= W/2, fell.",
    ),
    DetectorSpec(
        "position-change",
        "position change",
        "position",
        "up",
        "Another position of the gap leads the one that used to be k* by more than it ever did.",
        chart="ewma",
    ),
    DetectorSpec(
        "coherence-gain",
        "coherence gain",
        "overlap",
        "up",
        "The leading directions of two disjoint windows agree more than they used to.",
    ),
    DetectorSpec(
        "coherence-loss",
        "coherence loss",
        "overlap",
        "down",
        "The leading directions of two disjoint windows agree less than they used to.",
    ),
    DetectorSpec(
        "regime-change",
        "regime change",
        "adiabatic",
        "both",
        "A_rel = ||dM|| / g^2 between disjoint windows left the range that it had.",
    ),
)

DETECTORS: dict[str, DetectorSpec] = {spec.name: spec for spec in _SPECS}
"""All detectors by name, in the order in which their events of one step are reported."""

GROKKING = "grokking"
"""The detector that looks ahead, from the head's updates: ``detect.precursors.shipped``. Asked for by name alone."""


def without_grokking(detectors: Sequence[str] | None) -> tuple[Sequence[str] | None, bool]:
    """The other names, and whether ``GROKKING`` was among them.

    >>> without_grokking(["gap-opening", "grokking"]), without_grokking(None)
    ((['gap-opening'], True), (None, False))
    """
    if detectors is None or isinstance(detectors, str) or GROKKING not in detectors:
        return detectors, False
    return [name for name in detectors if name != GROKKING], True


LEAST_SCALE = {
    "excess1": 0.03,
    "excess2": 0.03,
    "excess3": 0.03,
    "log_ratio": 0.03,
    "position": 0.03,
    "overlap": 0.05,
    "adiabatic": 0.1,
}
"""Smallest scale of each feature: in a past without noise every change would count as many deviations."""

AT_FLOOR = float(np.log(2.5))
"""A mode is at the floor while log(sigma_j / b) is below this; noise of P_eff = 100 stays below log 2."""

SUSTAIN = 3


def make_chart(spec: DetectorSpec, threshold: float, *, cooldown: int = 10) -> Chart:
    """The control chart of a detector.

    Raises:
        SettingError: For an unknown chart.
    """
    kinds: dict[str, Callable[..., Chart]] = {
        "shewhart": Ewma,
        "ewma": partial(Ewma, weight=0.5),
        "cusum": Cusum,
        "page-hinkley": PageHinkley,
    }
    if spec.chart not in kinds:
        raise SettingError(f"chart must be one of {', '.join(kinds)}; got {spec.chart!r}. shewhart is the default.")
    return kinds[spec.chart](threshold, direction=spec.direction, sustain=SUSTAIN, cooldown=cooldown)
