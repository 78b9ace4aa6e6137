"""Edge of stability on a run: curvature over the stable limit, and modes that change sign from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from ..recording import Recording
from ..recording.select import BlockChoice
from ..theory.bootstrap import BootstrapInterval
from ..theory.edge_of_stability import predicted_alternation
from ..theory.horizon import stability_limit
from ..theory.spectrum import gram_spectrum
from .columns import Table, known_mean, plain_interval, time_interval
from .probed import probed
from .timeline import step_rate
from .windows import grams_ending_at

_MODES = 3
_FEWEST_STEPS = 4  # after a window, for a lag-1 correlation


@dataclass(frozen=True, eq=False)
class Edge:
    """Sharpness at N probes, and alternation of the leading J modes.

    Attributes:
        steps: (N) optimizer steps of the probes with eigenvalues.
        sharpness: (N) largest eigenvalue, of P^-1/2 H P^-1/2 for Adam's kinds, of H for SGD.
        limit: (N) largest stable one: 2 (1 + beta) / lr - omega for SGD, (1 + beta_1)(2 - lr omega) / (lr (1 -
            beta_1)) for Adam; NaN for other optimizers.
        ratio: (N) sharpness / limit; 1 is the edge.
        ratio_error: (N) bound of its error from the eigenvalue's.
        mean_ratio: With its interval over blocks of probes.
        alternation: (J) lag-1 correlation, about 0, of <v_j, delta> over the single steps after a window, v_j of
            that window, pooled over disjoint stretches, with intervals.
        flips: (J) share of neighbouring steps with opposite signs.
        predicted: (J) the correlation of a mode at rest in gradient noise at the median curvature measured along
            it; NaN without probes.
        n_stretches: Windows followed by steps.
        status: ``measured``, or why there is no alternation.
        notes: What is missing or was assumed.
    """

    steps: np.ndarray
    sharpness: np.ndarray
    limit: np.ndarray
    ratio: np.ndarray
    ratio_error: np.ndarray
    mean_ratio: BootstrapInterval
    alternation: BootstrapInterval
    flips: np.ndarray
    predicted: np.ndarray
    n_stretches: int
    status: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a probe."""
        names = ("steps", "sharpness", "limit", "ratio", "ratio_error")
        return {"step" if name == "steps" else name: getattr(self, name) for name in names}

    def summary(self) -> dict[str, Any]:
        """Mean ratio, share beyond the edge, alternation mode by mode."""
        known = self.ratio[np.isfinite(self.ratio)]
        return {
            "n_probes": len(self.steps),
            "ratio": plain_interval(self.mean_ratio),
            "largest_ratio": float(known.max()) if len(known) else float("nan"),
            "beyond": float(np.mean(known > 1.0)) if len(known) else float("nan"),
            "alternation": self.rows(),
            "n_stretches": self.n_stretches,
            "status": self.status,
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a mode; none where nothing was measured."""
        if self.status != "measured":
            return []
        return [
            {
                "mode": j + 1,
                **plain_interval(self.alternation, j),
                "flips": float(self.flips[j]),
                "predicted": float(self.predicted[j]),
            }
            for j in range(len(self.flips))
        ]


def edge(
    recording: Recording, window: int = 10, block: BlockChoice = "all", *, n_boot: int = 1000, seed: int = 0
) -> Edge:
    """How near the optimizer is to its limit of stability, and whether its modes show it.

    A mode beyond half of the limit changes sign from step to step. That needs updates of one optimizer step:
    over an even number an alternation cancels, over an odd one it looks like a single step. v_j is taken from the
    W updates before the steps that it is multiplied with, so that noise gives 0. Negative is not yet the edge:
    plain SGD at rest in noise has -lr h / 2 at any curvature; compare with ``predicted``. Modes after the first
    hold a part of it (directions are estimated), and so a part of its alternation: read the first one.

    Args:
        recording: T updates; with probes for the sharpness.
        window: Rows W of a window.
        block: Block or union, for the alternation.
        n_boot: Resamples.
        seed: Of these.

    Returns:
        Ratios and correlations. Source: standard result (limits), derived (correlation of a window's modes).

    Raises:
        SettingError: If the window cannot be.
        DataError: If there are fewer updates than a window needs.
    """
    recording.gram(window, 1, block)  # refuses what cannot be
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    steps, sharpness, limit, error, blocks = _sharpness(recording, notes)
    with np.errstate(invalid="ignore"):
        ratio, ratio_error = sharpness / limit, error / limit
    mean_ratio = (
        time_interval(lambda x: known_mean(x), ratio, block=blocks, n_boot=n_boot, rng=rng)
        if len(ratio)
        else _nothing(())
    )
    now, later, status = _pairs(recording, window, block)
    n_modes = now.shape[-1]
    if len(now):
        alternation = time_interval(_lag_one, now, later, block=1, n_boot=n_boot, rng=rng)
        with np.errstate(invalid="ignore"):
            signs = np.where(np.isfinite(now * later), (now * later < 0.0).astype(np.float64), np.nan)
        flips = known_mean(signs.reshape(-1, n_modes), axis=0)
    else:
        alternation, flips = _nothing((n_modes,)), np.full(n_modes, np.nan)
    return Edge(
        steps=steps,
        sharpness=sharpness,
        limit=limit,
        ratio=ratio,
        ratio_error=ratio_error,
        mean_ratio=mean_ratio,
        alternation=alternation,
        flips=flips,
        predicted=_predicted(recording, n_modes),
        n_stretches=len(now),
        status=status,
        notes=tuple(notes),
    )


def _sharpness(recording: Recording, notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Steps, top eigenvalues, limits, eigenvalue errors of the probes that have them, and a bootstrap block."""
    found = []
    try:
        at = probed(recording)
    except DataError:
        notes.append("no probes: no sharpness")
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0), 1
    for probe in at.probes:
        kind, beta, omega = _optimizer(recording, probe.segment)
        lr = step_rate(recording, probe)
        adam = kind == "adamw"
        values = probe.preconditioned_eigenvalues if adam else probe.eigenvalues
        errors = probe.preconditioned_eigenvalue_errors if adam else probe.eigenvalue_errors
        if not np.isfinite(values).any():
            continue
        top = int(np.nanargmax(values))
        known = kind is not None and np.isfinite(lr) and lr > 0.0
        limit = float(stability_limit(kind, lr, beta, omega)) if known and kind is not None else float("nan")
        found.append((probe.step, values[top], limit, errors[top] if top < len(errors) else np.nan))
    if not found:
        notes.append("no probe measured eigenvalues: no sharpness. Pass eigenvalues=1 or more to the probe.")
    columns = np.array(found, dtype=np.float64).reshape(len(found), 4).T
    if found and not np.isfinite(columns[2]).any():
        notes.append("the limit is known for one kind of SGD or Adam with one learning rate only")
    return columns[0], columns[1], columns[2], columns[3], at.block


def _optimizer(recording: Recording, segment: int) -> tuple[str | None, float, float]:
    """Kind as ``theory.horizon`` names it, beta, and omega that stands in the limit; None for others and mixtures."""
    segments = recording.meta.get("segments", [])
    groups = (segments[segment].get("groups") or []) if segment < len(segments) else []
    found = set()
    for group in groups:
        name = str(group.get("class", "")) if isinstance(group, dict) else ""
        decay = float(group.get("weight_decay") or 0.0) if name else 0.0
        if name == "SGD" and not group.get("nesterov") and not group.get("dampening"):
            found.add(("sgd", float(group.get("momentum") or 0.0), decay))
        elif name in ("Adam", "AdamW", "FrozenAdamW"):
            decoupled = bool(group.get("decoupled_weight_decay", name != "Adam"))
            beta = float((group.get("betas") or (0.9,))[0])
            # Coupled decay passes through the preconditioner: its share of the curvature is not omega.
            found.add(("adamw", beta, decay if decoupled else 0.0))
        else:
            return None, 0.0, 0.0
    return found.pop() if len(found) == 1 else (None, 0.0, 0.0)


def _pairs(recording: Recording, window: int, block: BlockChoice) -> tuple[np.ndarray, np.ndarray, str]:
    """(S, H - 1, J) projections of neighbouring steps on the modes of the window before, and the status."""
    n_modes = min(_MODES, window)
    none = np.empty((0, 0, n_modes))
    if np.any(recording.n_steps != 1):
        return none, none, "needs every=1: each update must be one optimizer step"
    reach = recording.lags + 1 - window
    if reach < _FEWEST_STEPS:
        return none, none, f"needs {window + _FEWEST_STEPS - 1} lags; {recording.lags} were recorded"
    band = recording.band(block)
    size = window + reach
    ends = np.arange(size - 1, len(band), reach)
    grams = grams_ending_at(band, size, ends)
    grams = grams[np.isfinite(grams).all(axis=(-2, -1))]
    if len(grams) < 2:
        return none, none, f"needs {size + reach} updates in a row; {len(band)} were recorded"
    spectrum = gram_spectrum(grams[:, :window, :window], update_eps=recording.update_eps)
    sigma = np.where(spectrum.resolved, spectrum.singular_values, np.nan)[:, :n_modes]
    along = np.einsum("saj,sah->shj", spectrum.time_profiles[..., :n_modes], grams[:, :window, window:])
    along = along / sigma[:, None, :]
    return along[:, :-1], along[:, 1:], "measured"


def _lag_one(now: np.ndarray, later: np.ndarray) -> np.ndarray:
    """(B, J) sum x x' / sqrt(sum x^2 sum x'^2) over stretches and steps; unresolved modes are left out."""
    known = np.isfinite(now) & np.isfinite(later)
    a, b = np.where(known, now, 0.0), np.where(known, later, 0.0)
    scale = np.sqrt(np.square(a).sum(axis=(1, 2)) * np.square(b).sum(axis=(1, 2)))
    return (a * b).sum(axis=(1, 2)) / np.where(scale > 0.0, scale, np.nan)


def _predicted(recording: Recording, n_modes: int) -> np.ndarray:
    out = np.full(n_modes, np.nan)
    try:
        at = probed(recording)
    except DataError:
        return out
    values: list[list[float]] = [[] for _ in range(n_modes)]
    for probe in at.probes:
        kind, beta, _ = _optimizer(recording, probe.segment)
        lr = step_rate(recording, probe)
        if kind is None or not np.isfinite(lr):
            continue
        h = probe.preconditioned_curvature if kind == "adamw" else probe.curvature
        for i in probe.direction_kind("mode"):
            j = int(probe.directions[i].split("/")[1]) - 1
            if j < n_modes and np.isfinite(h[i]):
                values[j].append(float(predicted_alternation(max(h[i], 0.0), kind, lr, beta)))
    for j, found in enumerate(values):
        known = [x for x in found if np.isfinite(x)]
        if known:
            out[j] = float(np.median(known))
    return out


def _nothing(shape: tuple[int, ...]) -> BootstrapInterval:
    unknown = np.full(shape, np.nan)
    return BootstrapInterval(unknown, unknown, unknown, 0.95, 0.0)
