"""Recordings of explicit updates, and probes with numbers of one's own: what dynamics must agree with."""

from __future__ import annotations

from typing import Any

import numpy as np

from spectraledge.recording import ProbeRecord, Recording, RecordingWriter

SGD = {"class": "SGD", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def planted(
    updates: np.ndarray,
    *,
    lags: int = 19,
    every: int = 10,
    lr: np.ndarray | float = 0.1,
    group: dict[str, Any] | None = None,
    metrics: dict[str, np.ndarray] | None = None,
    momentum: float | None = None,
) -> Recording:
    """One block; ``lr`` (T) per optimizer step; metrics (T + 1), logged at step 0 and at every snapshot."""
    writer = RecordingWriter(None, header_meta={})
    n, size = updates.shape
    rates = np.broadcast_to(np.asarray(lr, dtype=np.float64), (n,)) * every
    writer.write(
        "segment",
        segment=0,
        step=0,
        reason="start",
        blocks=["w"],
        block_info=[{"name": "w", "n_parameters": size}],
        lags=lags,
        update_dtype="float64",
        groups=[group or SGD],
        momentum=momentum,
        every=every,
        n_parameters=size,
    )
    theta = 1.0 + np.cumsum(updates, axis=0)
    for t in range(n):
        products = np.full((1, lags + 1), np.nan)
        for lag in range(min(lags, t) + 1):
            products[0, lag] = updates[t] @ updates[t - lag]
        writer.write(
            "row",
            t=t,
            segment=0,
            step=(t + 1) * every,
            n_steps=every,
            lr_sum=rates[t : t + 1],
            products=products,
            theta_dot=np.array([theta[t] @ updates[t]]),
            theta_norm2=np.array([theta[t] @ theta[t]]),
            unchanged=np.array([0.0]),
            nonfinite=np.array([0.0]),
            flags=[],
            seconds=0.0,
        )
    found = Recording.from_log(writer.log())
    found.metrics = {name: (np.arange(n + 1) * every, values) for name, values in (metrics or {}).items()}
    return found


def probe(recording: Recording, t: int, window: int, updates: np.ndarray, **fields: Any) -> ProbeRecord:
    """A probe after update t with the given eigenvalues, curvatures and gradients (``train``, ``val``)."""
    lags = recording.lags
    vectors = [name for name in ("train", "val") if name in fields]
    x = np.array([fields.pop(name) for name in vectors]).reshape(len(vectors), updates.shape[1])
    products = np.full((len(vectors), 1, lags + 1), np.nan)
    for lag in range(min(lags, t) + 1):
        products[:, 0, lag] = x @ updates[t - lag]
    held = np.concatenate([x, np.ones((1, updates.shape[1]))]) if len(x) else np.ones((1, updates.shape[1]))
    curvature = np.asarray(fields.pop("curvature", np.empty(0)), dtype=np.float64)
    n = len(curvature)
    defaults: dict[str, Any] = {
        "step": int(recording.steps[t]),
        "t": t,
        "segment": 0,
        "blocks": ("w",),
        "window": window,
        "train_loss": 1.0,
        "val_loss": 1.0,
        "vectors": tuple(vectors),
        "gradient_products": products,
        "gradient_gram": (held @ held.T)[:, :, None],
        "directions": tuple(f"mode/{j + 1}" for j in range(n)),
        "coefficients": np.full((n, window), np.nan),
        "curvature": curvature,
        "preconditioned_curvature": np.full(n, np.nan),
        "hessian_products": np.full((n, 1, lags + 1), np.nan),
        "preconditioned_products": np.full((n, 1, lags + 1), np.nan),
        "hessian_norm2": np.full(n, np.nan),
        "eigenvalues": np.empty(0),
        "eigenvalue_errors": np.empty(0),
        "preconditioned_eigenvalues": np.empty(0),
        "preconditioned_eigenvalue_errors": np.empty(0),
        "replicate_products": None,
        "replicate_gram": None,
        "method": "exact",
        "evaluations": 0.0,
        "seconds": 0.0,
    }
    return ProbeRecord(**{**defaults, **fields})


def noise(n_updates: int, n_parameters: int, rng: np.random.Generator) -> np.ndarray:
    """Independent rows of norm about 1."""
    return rng.standard_normal((n_updates, n_parameters)) / np.sqrt(n_parameters)


def svd(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and directions (columns) of a window."""
    _, sigma, v = np.linalg.svd(rows, full_matrices=False)
    return sigma, v.T
