"""Small planted runs: noise held by decay, and the same with a drift that sets in before the event."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from spectraledge.recording import Recording, RecordingWriter

EVERY, LAGS, DECAY = 25, 19, 0.025
BLOCKS = {"embedding": 20, "encoder.layers.0": 30, "head": 30}
KINDS = {"embedding": "embedding", "encoder.layers.0": "attention", "head": "head"}


def walk(seed: int, n: int, drift_from: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(n + 1, P) snapshots and their (n, P) gradient parts: noise against decay, with a drift from one update on."""
    rng = np.random.default_rng(seed)
    size = sum(BLOCKS.values())
    direction = np.zeros(size)
    direction[-BLOCKS["head"] :] = 1.0 / np.sqrt(BLOCKS["head"])
    theta = np.empty((n + 1, size))
    gradient = np.empty((n, size))
    theta[0] = rng.normal(size=size)
    for t in range(n):
        gradient[t] = 0.15 * rng.normal(size=size)
        if drift_from is not None and t >= drift_from:
            gradient[t] += 0.6 * direction
        theta[t + 1] = _solve(theta[t], gradient[t], 0.5 * (EVERY + 1) / EVERY)
    return theta, gradient


def _solve(before: np.ndarray, gradient: np.ndarray, c: float) -> np.ndarray:
    """theta with theta - before = gradient - DECAY (theta - c (theta - before))."""
    return ((1 - DECAY * c) * before + gradient) / (1 + DECAY * (1 - c))


def record(
    out: Path | None, seed: int, n: int, *, drift_from: int | None, event: int | None, shuffled: bool = False
) -> Recording:
    """A closed recording with its metrics every four updates; accuracy passes 0.95 at update ``event``."""
    theta, _ = walk(seed, n, drift_from)
    delta = np.diff(theta, axis=0)
    ends = np.cumsum(list(BLOCKS.values()))
    parts = [slice(end - size, end) for end, size in zip(ends, BLOCKS.values())]
    with RecordingWriter(out, header_meta={"seed": seed}) as writer:
        writer.write(
            "segment",
            segment=0,
            step=0,
            reason="start",
            blocks=list(BLOCKS),
            block_info=[{"name": k, "n_parameters": v, "kind": KINDS[k]} for k, v in BLOCKS.items()],
            lags=LAGS,
            update_dtype="float64",
            groups=[{"weight_decay": 1.0, "decoupled_weight_decay": True}],
            momentum=0.9,
            every=EVERY,
            n_parameters=len(theta[0]),
        )
        for t in range(n):
            products = np.full((len(parts), LAGS + 1), np.nan)
            for b, part in enumerate(parts):
                for lag in range(min(t, LAGS) + 1):
                    products[b, lag] = delta[t, part] @ delta[t - lag, part]
            now = theta[t + 1]
            writer.write(
                "row",
                t=t,
                segment=0,
                step=(t + 1) * EVERY,
                n_steps=EVERY,
                lr_sum=np.array([DECAY]),
                products=products,
                theta_dot=np.array([now[p] @ delta[t, p] for p in parts]),
                theta_norm2=np.array([now[p] @ now[p] for p in parts]),
                unchanged=np.zeros(len(parts)),
                nonfinite=np.zeros(len(parts)),
                flags=[],
                seconds=0.0,
            )
            if (t + 1) % 4 == 0:
                learned = event is not None and t + 1 >= event
                loss = float(np.exp(-0.1 * t) + 0.01)
                values = {
                    "train_loss": loss,
                    "batch_loss": loss,
                    "grad_norm": loss,
                    "test_loss": 1.0 if learned else 5.0,
                    "test_accuracy": 0.99 if learned else 0.1,
                }
                writer.write("metrics", step=(t + 1) * EVERY, values=values)
        writer.write("close", step=n * EVERY)
        found = Recording.from_log(writer.log())
    if out is not None:
        settings = {"seed": seed, "labels": "shuffled" if shuffled else "true"}
        (out / "config.json").write_text(json.dumps({"settings": settings}))
    return found


def write_grid(folder: Path, seeds: list[int], n: int = 120) -> Path:
    """Per seed two runs with the event, drift 30 updates before it, and two without."""
    for seed in seeds:
        for k, cell in enumerate(("add-decay", "sub-decay")):
            record(folder / f"{cell}-{seed}", seed, n, drift_from=60, event=88 + 4 * k)
        record(folder / f"add-placebo-{seed}", seed, n, drift_from=None, event=None, shuffled=True)
        record(folder / f"never-{seed}", seed + 1000, n, drift_from=None, event=None)
        config = folder / f"never-{seed}" / "config.json"
        config.write_text(json.dumps({"settings": {"seed": seed, "labels": "true"}}))
    return folder
