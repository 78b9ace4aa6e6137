"""Forecasts of the next change of the validation loss at a probe, with the modes of its window and without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..recording import Recording
from ..theory.alpha import AlphaKind, stability_coefficients
from ..theory.alpha_null import block_size
from ..theory.loss import out_of_sample_contributions, predicted_contributions, published_contributions
from ..theory.projections import mode_projections
from ..theory.stability import Mode
from .hierarchy import kinds_of
from .optimizer import block_decay, block_rates
from .probed import Probed
from .windows import grams_ending_at


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Contributions of W modes at N probes, and totals without modes [loss].

    Attributes:
        out: (N, W) <v_j(t-), grad L_val> <v_j(t-), delta_{t+1}>: uses the next update itself.
        plain: (N, W) -lr_sum G_j^train G_j^val, alpha = 1.
        weighted: Name of a stability coefficient to (N, W), the same times alpha_j.
        alpha: Name to (N, W), the coefficients themselves.
        direction: (N, W) -lr_sum <v_j, step> G_j^val with the optimizer's own last direction and its decay.
        gradients: (N) -lr_sum <grad L_train, grad L_val>, no modes.
        preconditioned: (N) -lr_sum <P^-1 grad L_train, grad L_val>.
        optimizer: (N) -lr_sum <step, grad L_val>.
        train, val: (N, W) G_j^train and G_j^val [loss / parameter].
    """

    out: np.ndarray
    plain: np.ndarray
    weighted: dict[AlphaKind, np.ndarray]
    alpha: dict[AlphaKind, np.ndarray]
    direction: np.ndarray
    gradients: np.ndarray
    preconditioned: np.ndarray
    optimizer: np.ndarray
    train: np.ndarray
    val: np.ndarray


def forecasts(recording: Recording, at: Probed, mode: Mode) -> Forecasts:
    """All forecasts at probes that are followed by an update.

    Coefficients are those of the pair of windows that ends at the probe, so nothing of the next update is in
    them. Learning rates multiply block by block where parameter groups have rates of their own.

    Args:
        recording: The run.
        at: Its followed probes.
        mode: Whose stability coefficients weight the modes.

    Returns:
        Contributions and totals; NaN where a product, rate or coefficient is not known.
    """
    band = recording.band()
    sigma, u, floor = at.spectrum.singular_values, at.spectrum.time_profiles, at.spectrum.floor

    def projected(products: np.ndarray) -> np.ndarray:
        return mode_projections(at.on_window(products), sigma, u, floor)

    train = projected(np.stack([p.on_updates("train") for p in at.probes]))
    val = projected(np.stack([p.on_updates("val") for p in at.probes]))
    ahead = np.stack([_next_products(recording, t, at.window) for t in at.t])
    scaled = {name: projected(_scaled_products(recording, at, name)) for name in ("train", "direction")}
    totals = {name: _scaled_totals(recording, at, name) for name in ("train", "preconditioned", "direction")}
    decay_on_updates, decay_on_val = _decay(recording, at)
    alpha: dict[AlphaKind, np.ndarray] = {}
    for kind in kinds_of(mode, at.window):
        blocks = grams_ending_at(band, block_size(kind, at.window), at.t)
        alpha[kind] = stability_coefficients(blocks, at.window, kind, mode=mode, update_eps=recording.update_eps)
    return Forecasts(
        out=out_of_sample_contributions(
            at.on_window(np.stack([p.on_updates("val") for p in at.probes])), ahead, at.spectrum
        ),
        plain=predicted_contributions(scaled["train"], val, 1.0),
        weighted={
            kind: published_contributions(a, scaled["train"], val, 1.0, mode="author") for kind, a in alpha.items()
        },
        alpha=alpha,
        direction=predicted_contributions(scaled["direction"] + projected(decay_on_updates), val, 1.0),
        gradients=-totals["train"],
        preconditioned=-totals["preconditioned"],
        optimizer=-totals["direction"] - decay_on_val,
        train=train,
        val=val,
    )


def _next_products(recording: Recording, t: int, window: int) -> np.ndarray:
    """(W) <delta_{t+1}, delta_a> for the window that ends at t, oldest first; NaN beyond the lags."""
    row = recording.band()[t + 1, 1 : window + 1]
    return np.pad(row, (0, window - len(row)), constant_values=np.nan)[::-1]


def _scaled_products(recording: Recording, at: Probed, name: str) -> np.ndarray:
    """(N, L+1) <Lambda x, delta_{t-l}>, Lambda the sums of learning rates of the next update."""
    out = []
    for probe, t in zip(at.probes, at.t):
        if name not in probe.vectors:
            out.append(np.full(probe.gradient_products.shape[-1], np.nan))
            continue
        rates = block_rates(recording, probe, t + 1)
        out.append(rates @ probe.gradient_products[probe.vectors.index(name)])
    return np.stack([x[: at.window] for x in out])


def _scaled_totals(recording: Recording, at: Probed, name: str) -> np.ndarray:
    """(N) <Lambda x, grad L_val>."""
    out = []
    for probe, t in zip(at.probes, at.t):
        if name not in probe.vectors or "val" not in probe.vectors:
            out.append(np.nan)
            continue
        pair = probe.gradient_gram[probe.vectors.index(name), probe.vectors.index("val")]
        out.append(float(block_rates(recording, probe, t + 1) @ pair))
    return np.array(out)


def _decay(recording: Recording, at: Probed) -> tuple[np.ndarray, np.ndarray]:
    """Decay beside the direction: (N, W) <Lambda omega theta, delta_{t-l}>, newest first, and (N) with grad L_val."""
    on_updates, on_val = np.zeros((len(at.t), at.window)), np.zeros(len(at.t))
    theta: dict[str, np.ndarray] = {}
    for n, (probe, t) in enumerate(zip(at.probes, at.t)):
        decay = block_decay(recording, probe) * block_rates(recording, probe, t + 1)
        if "val" in probe.vectors:
            on_val[n] = decay @ probe.gradient_gram[-1, probe.vectors.index("val")]
        for name, rate in zip(probe.blocks, decay):
            if rate != 0.0:
                if name not in theta:
                    theta[name] = recording.theta_band(name)
                row = theta[name][t, : at.window]
                on_updates[n] += rate * np.pad(row, (0, at.window - len(row)), constant_values=np.nan)
    return on_updates, on_val
