"""What a recording says of the optimizer: rates, decay, and how far momentum stretches a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..recording import Recording
from ..recording.probe import ProbeRecord


@dataclass(frozen=True)
class OptimizerFacts:
    """Numbers that hold for every parameter group of a segment; NaN where groups differ or do not say.

    Attributes:
        weight_decay: omega, the rate of decay per unit of learning rate that stands beside curvature.
        decoupled: Whether decay is applied beside the gradient (AdamW, Muon) and not through it (SGD).
        gain: Factor between the learning rate and the length of a lasting step: 1 / (1 - momentum) for SGD
            with torch's momentum buffer, 1 for averages of the gradient.
    """

    weight_decay: float
    decoupled: bool
    gain: float


def optimizer_facts(groups: Sequence[Mapping[str, Any]]) -> OptimizerFacts:
    """Read the description of parameter groups in ``meta["segments"][i]["groups"]``.

    Adam with L2 decay passes it through the preconditioner, so that no single omega stands beside the
    curvature: NaN, unless it is 0.

    >>> optimizer_facts([{"class": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}]).gain
    10.000000000000002
    """
    found = {_facts(group) for group in groups}
    if not found:
        return OptimizerFacts(math.nan, False, math.nan)
    decay, decoupled, gain = (sorted(set(x)) for x in zip(*found))
    return OptimizerFacts(
        decay[0] if len(decay) == 1 else math.nan, all(decoupled), gain[0] if len(gain) == 1 else math.nan
    )


def facts_at(recording: Recording, segment: int) -> OptimizerFacts:
    """``optimizer_facts`` of one segment of a recording."""
    segments = recording.meta.get("segments", [])
    return optimizer_facts(segments[segment].get("groups") or [] if segment < len(segments) else [])


def block_rates(recording: Recording, probe: ProbeRecord, t: int) -> np.ndarray:
    """Sum of learning rates over the steps of update t, for each block of a probe.

    Returns:
        (B); NaN for a block whose parameter group is not known where groups differ.
    """
    rates = recording.lr_sum[t]
    if len(rates) == 0:
        return np.full(len(probe.blocks), np.nan)
    if np.all(rates == rates[0]):
        return np.full(len(probe.blocks), rates[0])
    groups = [recording.block_info.get(name, {}).get("group") for name in probe.blocks]
    return np.array([rates[g] if type(g) is int and 0 <= g < len(rates) else np.nan for g in groups])


def block_decay(recording: Recording, probe: ProbeRecord) -> np.ndarray:
    """(B) rate omega of decay that an optimizer applies beside its direction, for each block of a probe.

    0 where decay goes through the gradient, and is part of the direction; NaN for a block whose parameter
    group is not known where groups differ.
    """
    segments = recording.meta.get("segments", [])
    groups = segments[probe.segment].get("groups") or [] if probe.segment < len(segments) else []
    found = [optimizer_facts([group]) for group in groups]
    beside = [f.weight_decay if f.decoupled else 0.0 * f.weight_decay for f in found]
    if beside and all(omega == beside[0] for omega in beside):
        return np.full(len(probe.blocks), beside[0])
    owners = [recording.block_info.get(name, {}).get("group") for name in probe.blocks]
    return np.array([beside[g] if type(g) is int and 0 <= g < len(beside) else np.nan for g in owners])


def _facts(group: Mapping[str, Any]) -> tuple[float, bool, float]:
    kind, decay = str(group.get("class", "")), float(group.get("weight_decay") or 0.0)
    if kind == "SGD":
        momentum = float(group.get("momentum") or 0.0)
        return decay, False, (1.0 - float(group.get("dampening") or 0.0) * (momentum > 0.0)) / (1.0 - momentum)
    decoupled = bool(group.get("decoupled_weight_decay", kind.endswith(("AdamW", "Muon"))))
    return decay if decoupled or decay == 0.0 else math.nan, decoupled, 1.0
