"""Does a series of windows foretell how much a metric will change, beyond what is cheap to know?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SettingError
from ..recording import Recording
from ..theory.nested import NestedTest, nested_test
from ..theory.window_series import future
from .columns import plain_interval
from .timeline import metric_at
from .verdict import Outcome

FEWEST_BLOCKS = 5.0  # of 2 W windows


@dataclass(frozen=True, eq=False)
class Foresight:
    """Forecasts of |change of a metric over the next W rows|, with and without a series.

    Attributes:
        metric: Name.
        baselines: What the small model knows: of log step norm, learning rate and log gradient norm those that
            were recorded and vary.
        beyond_norms: The series added to these; None where there are too few windows.
        beyond_past: The series added to these and |change of the metric over the last W rows|.
        reason: Why a test is missing.
    """

    metric: str
    baselines: tuple[str, ...]
    beyond_norms: NestedTest | None
    beyond_past: NestedTest | None
    reason: str = ""

    def summary(self) -> dict[str, Any]:
        """Gain of each test with its interval, in plain types."""
        return {
            "baselines": list(self.baselines),
            "beyond_norms": _plain(self.beyond_norms),
            "beyond_past": _plain(self.beyond_past),
            "verdict": self.verdict,
            "reason": self.reason,
        }

    @property
    def verdict(self) -> Outcome:
        """On "the series foretells": ``supported`` where both tests improve over five blocks or more.

        ``compatible`` where they improve over fewer blocks, of which an interval cannot be trusted;
        ``contradicted`` where the larger model is worse, its interval below 0; ``not identifiable`` otherwise.
        """
        tests = [self.beyond_norms, self.beyond_past]
        found = [test for test in tests if test is not None]
        if len(found) < len(tests):
            return "not identifiable"
        if all(test.improves for test in found):
            return "supported" if min(test.difference.n_units for test in found) >= FEWEST_BLOCKS else "compatible"
        return "contradicted" if all(test.difference.high < 0.0 for test in found) else "not identifiable"


def foresight(
    recording: Recording,
    metric: str,
    series: np.ndarray,
    *,
    steps: np.ndarray,
    norms: np.ndarray,
    lr: np.ndarray,
    window: int,
    n_boot: int = 1000,
    seed: int = 0,
) -> Foresight:
    """Forward-chained comparison of models of |y_{t+W} - y_t| with and without log of a positive series.

    The metric is interpolated between evaluations on the side of the outcome only; predictors take the last
    evaluation before the window's end.

    Args:
        recording: With the metric, and ``grad_norm`` where it was logged.
        metric: Name.
        series: (N) positive numbers, for instance A; others are left out.
        steps: (N) optimizer steps at the ends of the windows.
        norms: (N) norm of the newest row.
        lr: (N) learning rate.
        window: W.
        n_boot: Resamples.
        seed: Of these.

    Returns:
        Both tests. Source: honest test of arXiv:2603.28964v1-v3 (A foretells capability); design derived.
    """
    y = metric_at(recording, metric, steps)
    target = np.abs(future(y, window) - y)
    candidates = {
        "log step norm": _log(norms),
        "lr": np.asarray(lr, dtype=np.float64),
        "log grad_norm": _log(metric_at(recording, "grad_norm", steps, how="last")),
    }
    base = {name: x for name, x in candidates.items() if _varies(x)}
    past = metric_at(recording, metric, steps, how="last")
    before = np.full(len(past), np.nan)
    before[window:] = np.abs(past[window:] - past[:-window])
    added = _log(series)
    tests: list[NestedTest | None] = []
    reason = ""
    for columns in (list(base.values()), [*base.values(), before]):
        small = np.stack(columns, axis=1) if columns else np.zeros((len(target), 0))
        full = np.c_[small, added]
        known = np.isfinite(target) & np.isfinite(full).all(axis=1)
        # The record is cut to the windows that have everything; holes inside are left to the test.
        inside = np.flatnonzero(known)
        try:
            if not len(inside) or not _varies(target[known]) or not _varies(added[known]):
                raise SettingError("the series or the metric does not change where both are known")
            part = slice(inside[0], inside[-1] + 1)
            found = nested_test(
                target[part],
                small[part],
                full[part],
                block=2 * window,
                n_boot=n_boot,
                rng=np.random.default_rng(seed),
            )
            tests.append(found)
        except SettingError as error:
            reason = reason or str(error)
            tests.append(None)
    return Foresight(metric, tuple(base), tests[0], tests[1], reason)


def _log(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log(x)
    return np.where(np.isfinite(out), out, np.nan)


def _varies(x: np.ndarray) -> bool:
    known = x[np.isfinite(x)]
    return len(known) > 2 and float(np.ptp(known)) > 1e-9 * float(np.abs(known).max())


def _plain(found: NestedTest | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "gain": found.gain,
        "difference": plain_interval(found.difference),
        "wald_p": found.wald_p,
        "n_test": found.n_test,
        "improves": found.improves,
    }
