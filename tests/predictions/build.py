"""Recordings and runs with content of one's own: what the verdicts must agree with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from spectraledge.predictions.runs import Run, make_run
from spectraledge.recording import ProbeRecord, Recording, RecordingWriter
from spectraledge.recording.probe import probe_records

Metrics = Mapping[str, "np.ndarray | Sequence[float] | tuple[Any, Any]"]


def recording_of(
    content: np.ndarray,
    steps: Sequence[int] | np.ndarray | int = 10,
    *,
    metrics: Metrics | None = None,
    settings: Mapping[str, Any] | None = None,
    experiment: str = "modular/addition",
    theta: np.ndarray | None = None,
    lags: int = 20,
    lr: np.ndarray | float = 0.1,
    group: Mapping[str, Any] | None = None,
    momentum: float | None = None,
    n_parameters: int | None = None,
    lost: Collection[int] = (),
    seam_at: int | None = None,
    probes: Sequence[ProbeRecord] = (),
    dtype: str = "float64",
) -> Recording:
    """A recording of one block, "all".

    Args:
        content: (T, P) rows delta_t, or (T, T) their Gram: a symmetric square array is taken for a Gram.
        steps: (T) steps that end the updates, or steps per update.
        metrics: Name to values at the steps of all updates (T), or to (steps, values).
        settings: Settings of the experiment: labels, weight_decay, optimizer, seed. None: anyone's run, which says
            nothing.
        theta: (T + 1, P) snapshots, or (T) norms ||theta_t||; ones where None.
        lr: Per optimizer step, (T) or one.
        group: Description of the optimizer's group.
        lost: Updates that were not recorded.
        seam_at: An update that does not join the one before it.
    """
    values = np.asarray(content, dtype=np.float64)
    n = len(values)
    square = values.shape == (n, n) and np.array_equal(values, values.T, equal_nan=True)
    gram = values if square else values @ values.T
    size = n_parameters or (1000 if square else values.shape[1])
    ends = (np.arange(n) + 1) * steps if isinstance(steps, int) else np.asarray(steps, dtype=np.int64)
    took = np.diff(ends, prepend=ends[0] - (ends[1] - ends[0] if n > 1 else 1))
    rates = np.broadcast_to(np.asarray(lr, dtype=np.float64), (n,))
    norm2, dot = _theta(theta, values, n, square)
    meta = {} if settings is None else {"settings": dict(settings), "experiment": experiment}
    writer = RecordingWriter(None, header_meta=meta)
    described = group or {"optimizer": 0, "class": "SGD", "lr": float(rates[0]), "momentum": 0.0}
    if settings is None and group is None:
        described = {"optimizer": 0, "class": "SGD", "lr": float(rates[0]), "weight_decay": None}
    writer.write(
        "segment",
        segment=0,
        step=int(ends[0] - took[0]),
        reason="start",
        blocks=["all"],
        block_info=[{"name": "all", "n_parameters": size}],
        lags=lags,
        update_dtype=dtype,
        groups=[dict(described)],
        momentum=momentum,
        every=int(took[0]),
        n_parameters=size,
    )
    for t in range(n):
        if t in lost:
            continue
        oldest = seam_at if seam_at is not None and t >= seam_at else 0
        products = np.full((1, lags + 1), np.nan)
        for lag in range(min(lags, t - oldest) + 1):
            if t - lag not in lost:
                products[0, lag] = gram[t, t - lag]
        writer.write(
            "row",
            t=t,
            segment=0,
            step=int(ends[t]),
            n_steps=int(took[t]),
            lr_sum=rates[t : t + 1] * took[t],
            products=products,
            theta_dot=dot[t : t + 1],
            theta_norm2=norm2[t : t + 1],
            unchanged=np.zeros(1),
            nonfinite=np.zeros(1),
            flags=["seam"] if t == seam_at else [],
            seconds=0.0,
        )
    for probe in probes:
        for kind, fields in probe_records(probe, 0):
            writer.write(kind, **fields)
    found = Recording.from_log(writer.log())
    for name, series in (metrics or {}).items():
        found.metrics[name] = (
            (np.asarray(series[0], dtype=np.int64), np.asarray(series[1], dtype=np.float64))
            if isinstance(series, tuple)
            else (ends, np.asarray(series, dtype=np.float64))
        )
    return found


def runs_of(*recordings: Recording) -> list[Run]:
    """Runs named a, b, c, ..."""
    return [make_run(f"run-{i + 1}", recording) for i, recording in enumerate(recordings)]


def noise(n: int, n_parameters: int = 300, seed: int = 0) -> np.ndarray:
    """(n, P) independent rows of norm about 1."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n_parameters)) / np.sqrt(n_parameters)


def grokking_curve(n: int, at: int, width: float = 2.0, low: float = 0.05, seed: int = 0) -> np.ndarray:
    """(n) accuracy that rises from ``low`` to 1 around update ``at``."""
    rng = np.random.default_rng(seed)
    rise = 1 / (1 + np.exp(-(np.arange(n) - at) / width))
    return np.clip(low + (1 - low) * rise + 0.002 * rng.standard_normal(n) * (1 - rise), 0, 1)


def _theta(theta: np.ndarray | None, values: np.ndarray, n: int, square: bool) -> tuple[np.ndarray, np.ndarray]:
    """||theta||^2 after each update and <theta, delta>."""
    if theta is None:
        return np.ones(n), np.zeros(n)
    theta = np.asarray(theta, dtype=np.float64)
    if theta.ndim == 1:
        norm2 = theta[-n:] ** 2
        change = np.diff(norm2, prepend=norm2[0])
        own = np.diagonal(values) if square else np.sum(values**2, axis=1)
        return norm2, (change + own) / 2  # ||theta||^2 - ||theta - delta||^2 = 2 <theta, delta> - ||delta||^2
    after = theta[1:]
    return np.sum(after**2, axis=1), np.sum(after * values, axis=1)


def probe_of(recording: Recording, t: int, window: int = 10, **fields: Any) -> ProbeRecord:
    """A probe after update t: any field by name, nothing else measured; pass them to ``recording_of(probes=...)``."""
    lags = recording.lags
    vectors = tuple(fields.pop("vectors", ()))
    curvature = np.asarray(fields.pop("curvature", np.empty(0)), dtype=np.float64)
    n, v = len(curvature), len(vectors)
    defaults: dict[str, Any] = {
        "step": int(recording.steps[t]),
        "t": t,
        "segment": 0,
        "blocks": ("all",),
        "window": window,
        "train_loss": 1.0,
        "val_loss": float("nan"),
        "vectors": vectors,
        "gradient_products": np.full((v, 1, lags + 1), np.nan),
        "gradient_gram": np.full((v + 1, v + 1, 1), np.nan),
        "directions": tuple(f"mode/{j + 1}" for j in range(n)),
        "coefficients": np.full((n, window), np.nan),
        "curvature": curvature,
        "preconditioned_curvature": curvature,
        "hessian_products": np.full((n, 1, lags + 1), np.nan),
        "preconditioned_products": np.full((n, 1, lags + 1), np.nan),
        "hessian_norm2": np.zeros(n),
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
