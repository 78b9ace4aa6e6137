"""What the flow equations need, measured at the probes of a recording: strengths, curvature, gradients, rates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..recording import Recording
from ..recording.probe import ProbeRecord
from ..theory.overlap import mode_overlaps
from ..theory.rotation_flow import conservative_coupling, measured_injection, rotation_rates
from .optimizer import OptimizerFacts, optimizer_facts
from .probed import Probed, probed
from .windows import grams_ending_at


@dataclass(frozen=True, eq=False)
class FlowInputs:
    """Measured inputs of the flow at N probes; entries of modes that were not probed are NaN.

    Attributes:
        t: (N) index of the update that ends at each probe.
        steps: (N) optimizer steps.
        window: W.
        strengths: (N, W) d_j = sigma_j; NaN where unresolved [parameter].
        floor: (N) resolution floor [parameter].
        curvature: (N, W) h~_j = v_j^T P^-1 H v_j, times the gain of momentum [1 / (learning rate * step)].
        projections: (N, W) G_j = <v_j, P^-1 m + omega theta>, signs of v_j as at the probe before [parameter / eta].
        injection: (N, W) N_j of the interval that ends at the probe: nothing later is in it [G per step].
        coupling: (N, W) S_j with the rotation of the same interval; 0 where directions are held fixed instead.
        learning_rate: (N) eta of one step.
        weight_decay: (N) omega, times the gain of momentum.
        lr_rate: (N) eta' / eta per step, from the last two updates.
        stride: (N) optimizer steps s of the last update.
        spacing: Updates between probes (median).
        notes: What was assumed or is missing.
    """

    t: np.ndarray
    steps: np.ndarray
    window: int
    strengths: np.ndarray
    floor: np.ndarray
    curvature: np.ndarray
    projections: np.ndarray
    injection: np.ndarray
    coupling: np.ndarray
    learning_rate: np.ndarray
    weight_decay: np.ndarray
    lr_rate: np.ndarray
    stride: np.ndarray
    spacing: int
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.t)


def flow_inputs(recording: Recording) -> FlowInputs:
    """Inputs of the signal and the gap flow at every probe.

    G_j takes the optimizer's own last direction P^-1 m (plus omega theta where decay is decoupled; coupled decay
    is inside m). Where the optimizer's state does not tell it, the proxy ``-<v_j, delta_t> / sum of learning
    rates`` stands in: the mean direction of the last update, decay included. N_j is the residual of the balance
    of G_j over the interval before the probe, hence a prediction for the interval after it. Where modes turned
    by 90 degrees or more between two probes their rotation has no rate: N_j is then measured along the
    directions of the earlier probe, without coupling.

    Args:
        recording: With probes; the window is theirs.

    Returns:
        The inputs. Source: derived (strict flow); arXiv:2603.28964v1-v3 (which quantities enter).

    Raises:
        DataError: If there are no probes.
    """
    at = probed(recording)
    n, w = len(at.probes), at.window
    resolved = at.spectrum.resolved & np.isfinite(at.gram).all(axis=(-2, -1))[:, None]
    sigma = np.where(resolved, at.spectrum.singular_values, np.nan)
    to_modes = at.spectrum.time_profiles / sigma[:, None, :]
    notes: list[str] = []

    facts = [_facts(recording, probe, notes) for probe in at.probes]
    gain = _known(np.array([f.gain for f, _ in facts]), 1.0)
    decay = np.array([f.weight_decay for f, _ in facts])
    if not np.isfinite(decay).all():
        notes.append("no single rate of weight decay is known: taken as 0")
    decay = _known(decay, 0.0)
    rates = _step_rates(recording, np.array([group for _, group in facts]), at.t)
    steps_per_update = recording.n_steps[at.t].astype(np.float64)
    curvature = _curvature(at, notes) * gain[:, None]
    directions, theta = _directions(recording, at, facts, decay, rates[:, 1], notes)

    g = np.einsum("naj,na->nj", to_modes, at.on_window(directions + theta))
    g = np.where(np.isfinite(curvature), g, np.nan)
    omega = decay * gain
    projections, injection, coupling = g.copy(), np.full((n, w), np.nan), np.zeros((n, w))
    band, lags = recording.band(), recording.lags
    fixed = out_of_reach = 0
    for i in range(1, n):
        apart = int(at.t[i] - at.t[i - 1])
        if w + apart > lags + 1:
            out_of_reach += 1
            continue
        block = grams_ending_at(band, w + apart, at.t[i : i + 1])[0]
        overlaps = mode_overlaps(
            block[:w, apart:], at.spectrum.time_profiles[i - 1], sigma[i - 1], at.spectrum.time_profiles[i], sigma[i]
        )
        used = np.isfinite(g[i - 1]) & np.isfinite(g[i]) & np.isfinite(np.diagonal(overlaps))
        k = int(np.argmin(np.append(used, False)))  # leading modes without a hole
        if k == 0:
            continue
        between = float(recording.n_steps[at.t[i - 1] + 1 : at.t[i] + 1].sum())
        # Signs as at the probe before, so that N_j and G_j belong together.
        projections[i] = g[i] * np.where(np.diagonal(overlaps) < 0.0, -1.0, 1.0)
        rotation = rotation_rates(overlaps[:k, :k], steps=between)
        after = projections[i, :k]
        if not np.isfinite(rotation).all():
            fixed += 1
            on_old = (directions + theta)[i, apart : apart + w][::-1]
            after, turning = on_old @ to_modes[i - 1][:, :k], None
        else:
            turning = rotation
            coupling[i, :k] = conservative_coupling(projections[i, :k], rotation)
        injection[i, :k] = measured_injection(
            g[i - 1, :k],
            after,
            curvature[i - 1, :k],
            learning_rate=rates[i - 1, 1],
            steps=between,
            weight_decay=omega[i - 1],
            rotation=turning,
        )
    if fixed:
        notes.append(f"rotation undetermined at {fixed} of {n - 1} probes: injection along fixed directions there")
    if out_of_reach:
        notes.append(
            f"{out_of_reach} probes lie more than {lags + 1 - w} updates after the one before, beyond the recorded "
            "lags: no injection there (probe more often, or record more lags)"
        )
    return FlowInputs(
        t=at.t,
        steps=at.steps(),
        window=w,
        strengths=sigma,
        floor=np.asarray(at.spectrum.floor),
        curvature=curvature,
        projections=projections,
        injection=injection,
        coupling=coupling,
        learning_rate=rates[:, 1],
        weight_decay=omega,
        lr_rate=_relative_rate(rates, steps_per_update),
        stride=steps_per_update,
        spacing=max(1, int(np.median(np.diff(at.t)))) if n > 1 else 1,
        notes=tuple(dict.fromkeys(notes)),
    )


def _facts(recording: Recording, probe: ProbeRecord, notes: list[str]) -> tuple[OptimizerFacts, int]:
    """The optimizer of the largest parameter group at a probe, and that group."""
    segments = recording.meta.get("segments", [])
    groups = (segments[probe.segment].get("groups") or []) if probe.segment < len(segments) else []
    sizes = np.zeros(max(len(groups), 1))
    for name in probe.blocks:
        info = recording.block_info.get(name, {})
        group = info.get("group")
        if type(group) is int and 0 <= group < len(sizes):
            sizes[group] += float(info.get("n_parameters") or 0)
    largest = int(np.argmax(sizes))
    if len(groups) > 1:
        notes.append(f"rates and decay are those of parameter group {largest}, the largest of {len(groups)}")
    return optimizer_facts(groups[largest : largest + 1]), largest


def _step_rates(recording: Recording, group: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(N, 2) learning rate of a step in the update before and in the last one."""
    lr = recording.lr_sum
    out = np.full((len(t), 2), np.nan)
    if lr.shape[1]:
        column = np.minimum(group, lr.shape[1] - 1)
        for place, row in enumerate((t - 1, t)):
            there = row >= 0
            row = np.maximum(row, 0)
            steps = np.maximum(recording.n_steps[row], 1)
            out[:, place] = np.where(there, lr[row, column] / steps, np.nan)
    return out


def _relative_rate(rates: np.ndarray, stride: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log(rates[:, 1] / rates[:, 0]) / np.maximum(stride, 1.0)
    return _known(growth, 0.0)


def _curvature(at: Probed, notes: list[str]) -> np.ndarray:
    """(N, W) curvature along the modes in the optimizer's metric, raw where that was not measured."""
    out = np.full((len(at.probes), at.window), np.nan)
    raw = 0
    for i, probe in enumerate(at.probes):
        for d in probe.direction_kind("mode"):
            j = int(probe.directions[d].split("/")[1]) - 1
            h = probe.preconditioned_curvature[d]
            if not np.isfinite(h):
                h, raw = probe.curvature[d], raw + 1
            out[i, j] = h
    if raw:
        notes.append("no known preconditioner at some probes: raw curvature there")
    return out


def _directions(
    recording: Recording,
    at: Probed,
    facts: list[tuple[OptimizerFacts, int]],
    decay: np.ndarray,
    rate: np.ndarray,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """(N, L+1) products of the direction of descent, and of omega theta, with the updates, newest first."""
    band, on_theta = recording.band(), recording.theta_band()
    direction, theta = np.full((len(at.t), band.shape[1]), np.nan), np.zeros((len(at.t), band.shape[1]))
    proxy = 0
    for i, (probe, (fact, _)) in enumerate(zip(at.probes, facts)):
        found = probe.on_updates("direction")
        if np.isfinite(found[: at.window]).all():
            direction[i] = found
            if fact.decoupled:
                theta[i] = decay[i] * on_theta[at.t[i]]
            continue
        proxy += 1
        direction[i] = -band[at.t[i]] / (rate[i] * max(int(recording.n_steps[at.t[i]]), 1))
    if proxy:
        notes.append(f"the optimizer's direction was not recorded at {proxy} probes: the last update stands in")
    return direction, theta


def _known(values: np.ndarray, otherwise: float) -> np.ndarray:
    return np.where(np.isfinite(values), values, otherwise)
