"""Runs made of explicit updates, recorded by brute force: what a recording must agree with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spectraledge.recording import Recording, RecordingWriter


@dataclass
class ExplicitRun:
    """Updates (T, P) in full, cut into blocks of ``sizes`` parameters."""

    updates: np.ndarray
    sizes: dict[str, int]
    lags: int = 7
    every: int = 10
    theta_0: np.ndarray | None = None
    lr: np.ndarray | None = None  # (T, G)
    block_info: list[dict] = field(default_factory=list)
    momentum: float | None = None
    update_dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.theta_0 is None:
            self.theta_0 = np.linspace(1, 2, self.updates.shape[1])
        if self.lr is None:
            self.lr = np.full((len(self.updates), 1), 0.5)

    @property
    def thetas(self) -> np.ndarray:
        return self.theta_0 + np.cumsum(self.updates, axis=0)

    def columns(self, *names: str) -> np.ndarray:
        """Parameters of some blocks; "all" is all of them."""
        ends = np.cumsum(list(self.sizes.values()))
        spans = {name: range(e - n, e) for (name, n), e in zip(self.sizes.items(), ends, strict=True)}
        chosen = list(self.sizes) if names == ("all",) else names
        return np.concatenate([np.array(spans[name]) for name in chosen])

    def segment(self, number: int = 0, step: int = 0) -> dict:
        return {
            "segment": number,
            "step": step,
            "reason": "start",
            "blocks": list(self.sizes),
            "block_info": self.block_info or [{"name": n, "n_parameters": k} for n, k in self.sizes.items()],
            "lags": self.lags,
            "update_dtype": self.update_dtype,
            "groups": [f"group {g}" for g in range(self.lr.shape[1])],
            "momentum": self.momentum,
            "every": self.every,
            "n_parameters": self.updates.shape[1],
        }

    def row(self, t: int, *, ring_from: int = 0, segment: int = 0, t0: int = 0) -> dict:
        """The record of update t, when the ring holds nothing older than update ``ring_from``."""
        blocks = [self.columns(name) for name in self.sizes]
        products = np.full((len(blocks), self.lags + 1), np.nan)
        for b, cols in enumerate(blocks):
            for lag in range(min(self.lags, t - ring_from) + 1):
                products[b, lag] = self.updates[t, cols] @ self.updates[t - lag, cols]
        theta, delta = self.thetas[t], self.updates[t]
        return {
            "t": t - t0,
            "segment": segment,
            "step": (t + 1) * self.every,
            "n_steps": self.every,
            "lr_sum": self.lr[t],
            "products": products,
            "theta_dot": np.array([theta[c] @ delta[c] for c in blocks]),
            "theta_norm2": np.array([theta[c] @ theta[c] for c in blocks]),
            "unchanged": np.array([np.sum(delta[c] == 0) for c in blocks]),
            "nonfinite": np.array([np.sum(~np.isfinite(delta[c])) for c in blocks]),
            "flags": [],
            "seconds": 0.25,
        }

    def record(self, writer: RecordingWriter) -> RecordingWriter:
        writer.write("segment", **self.segment())
        for t in range(len(self.updates)):
            writer.write("row", **self.row(t))
        return writer

    def recording(self) -> Recording:
        return Recording.from_log(self.record(RecordingWriter(None, header_meta={"seed": 1})).log())


def small_run(seed: int = 0, n_updates: int = 24, **options) -> ExplicitRun:
    rng = np.random.default_rng(seed)
    return ExplicitRun(rng.normal(size=(n_updates, 30)), {"a.w": 12, "a.b": 3, "c.w": 15}, **options)


def two_segments(run: ExplicitRun, *, lags: int) -> tuple[ExplicitRun, Recording]:
    """Four updates of ``run``, then six of another run with blocks a.w and new; that run, and the recording."""
    later = ExplicitRun(np.random.default_rng(3).normal(size=(6, 20)), {"a.w": 12, "new": 8}, lags=lags)
    writer = RecordingWriter(None)
    writer.write("segment", **run.segment())
    for t in range(4):
        writer.write("row", **run.row(t))
    writer.write("segment", **later.segment(1, step=40))
    for t in range(6):
        row = later.row(t, segment=1)
        writer.write("row", **(row | {"t": t + 4, "step": 40 + row["step"]}))
    return later, Recording.from_log(writer.log())


def coarse_rows(rows: np.ndarray, stride: int) -> np.ndarray:
    n = len(rows) // stride
    return rows[: n * stride].reshape(n, stride, -1).sum(axis=1)
