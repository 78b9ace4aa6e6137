"""The predictors of a comparison: baselines on every window, flow equations at the probed ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..theory.gap_flow import GapTerms, gap_terms
from ..theory.predictors import Ar1, Drift, ExactRankTwo, GapFlow, Persistence, Predictor, RankTwo, SignalFlow
from ..theory.signal_flow import flow_coefficients
from .flow_inputs import FlowInputs

FORMS = ("strict", "damping", "printed", "consistent")
"""``strict``: coupling and injection of the interval before. ``damping``: the strict flow with neither, so that
d' = -eta (h + omega) d. ``printed`` and ``consistent``: the published reduced form with either drive."""

_DRIVES = ("printed", "consistent")


def baselines(*, blocks: bool) -> list[Predictor]:
    """Predictors that need the updates alone; oracles last, the exact one where blocks are at hand."""
    found: list[Predictor] = [
        Persistence(),
        Ar1(),
        Drift(),
        RankTwo(),
        RankTwo(rows="realised", name="rank2_realised"),
    ]
    return [*found, ExactRankTwo()] if blocks else found


def signal_flows(inputs: FlowInputs, n_windows: int) -> list[Predictor]:
    """The signal flow in every form, with the coefficients measured at the probes.

    Args:
        inputs: Of N probes.
        n_windows: Windows of the series, one update apart.
    """
    found: list[Predictor] = []
    for form in FORMS:
        rate, source = flow_coefficients(inputs.curvature, inputs.projections, **_keywords(inputs, form))
        s = inputs.stride[:, None]  # coefficients per snapshot: steps between snapshots may differ
        found.append(
            SignalFlow(
                _placed(inputs, rate * s, n_windows),
                _placed(inputs, source * s, n_windows),
                name=f"signal_{form}",
            )
        )
    return found


def gap_flows(inputs: FlowInputs, position: np.ndarray) -> list[Predictor]:
    """The gap flow in every form at the positions (n_windows) of the gap; 0 for none."""
    found: list[Predictor] = []
    rows = _windows(inputs)
    for form in FORMS:
        terms = terms_at(inputs, position[rows], form)
        found.append(
            GapFlow(
                position,
                _placed(inputs, terms.pull * inputs.stride, len(position)),
                _placed(inputs, terms.rate * inputs.stride, len(position)),
                name=f"gap_{form}",
            )
        )
    return found


def terms_at(inputs: FlowInputs, position: np.ndarray, form: str, kappa2: np.ndarray | float = 0.0) -> GapTerms:
    """Terms of the gap flow at the probes in one of ``FORMS``, each (N) [parameter / step].

    Args:
        inputs: Of N probes.
        position: (N) k of the gap, 0 for none.
        form: One of ``FORMS``.
        kappa2: Squared coupling for the repulsion, (N) or a number [parameter^4 per snapshot].
    """
    keywords = _keywords(inputs, form)
    injection = keywords.pop("injection")
    if form not in _DRIVES:
        keywords["kappa2"] = kappa2
    return gap_terms(inputs.strengths, position, inputs.curvature, inputs.projections, injection, **keywords)


def _keywords(inputs: FlowInputs, form: str) -> dict[str, Any]:
    """What both flows take beside strengths, curvature and projections."""
    common: dict[str, Any] = {
        "window": inputs.window,
        "learning_rate": inputs.learning_rate,
        "weight_decay": inputs.weight_decay,
    }
    if form in _DRIVES:
        return {**common, "injection": None, "mode": "author", "drive": form}
    still = form == "damping"
    return {
        **common,
        "injection": np.zeros_like(inputs.injection) if still else inputs.injection,
        "coupling": 0.0 if still else inputs.coupling,
        "stride": inputs.stride,
        "lr_rate": inputs.lr_rate,
    }


def _windows(inputs: FlowInputs) -> np.ndarray:
    """(N) window that ends at each probe; probes before the first whole window are clipped to it."""
    return np.maximum(inputs.t - (inputs.window - 1), 0)


def _placed(inputs: FlowInputs, values: np.ndarray, n_windows: int) -> np.ndarray:
    """Values of the probes at their windows, NaN elsewhere."""
    out = np.full((n_windows, *values.shape[1:]), np.nan)
    whole = inputs.t >= inputs.window - 1
    out[_windows(inputs)[whole]] = values[whole]
    return out
