"""Recordings made of explicit updates, for figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spectraledge.recording import Recording, RecordingWriter


@dataclass
class Run:
    """T updates of P parameters in some blocks, with what is logged beside them."""

    n_updates: int = 48
    n_parameters: int = 300
    blocks: dict[str, int] = field(default_factory=lambda: {"first": 100, "second": 200})
    lags: int = 19
    every: int = 10
    drift: float = 0.0  # length of a common vector, in units of a row of noise
    seed: int = 0
    metrics: bool = True
    decay: bool = True
    nan_rows: tuple[int, ...] = ()
    seam_at: int | None = None
    meta: dict = field(default_factory=dict)
    scale: float = 1.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        noise = rng.normal(size=(self.n_updates, self.n_parameters)) / np.sqrt(self.n_parameters)
        common = rng.normal(size=self.n_parameters)
        self.updates = self.scale * (noise + self.drift * common / np.linalg.norm(common))
        self.theta = 3.0 + np.cumsum(self.updates, axis=0)
        self.decay_part = -0.1 * self.theta

    @property
    def steps(self) -> np.ndarray:
        return self.every * np.arange(1, self.n_updates + 1)

    def write(self, writer: RecordingWriter) -> RecordingWriter:
        writer.write(
            "segment",
            segment=0,
            step=0,
            reason="start",
            blocks=list(self.blocks),
            block_info=[{"name": name, "n_parameters": n} for name, n in self.blocks.items()],
            lags=self.lags,
            update_dtype="float64",
            groups=[{"optimizer": 0, "class": "SGD", "lr": 0.1, "weight_decay": 0.0}],
            momentum=None,
            every=self.every,
            n_parameters=self.n_parameters,
        )
        for t in range(self.n_updates):
            writer.write("row", **self.row(t))
            if self.metrics:
                share = (t + 1) / self.n_updates
                values = {"train_accuracy": min(1.0, 2 * share), "test_accuracy": share, "train_loss": 1 / (t + 1)}
                writer.write("metrics", step=int(self.steps[t]), values={**values, "grad_norm": 0.5})
        writer.write("close", step=self.n_updates * self.every)
        return writer

    def row(self, t: int) -> dict:
        ends = np.cumsum(list(self.blocks.values()))
        spans = [slice(end - n, end) for end, n in zip(ends, self.blocks.values())]
        delta, theta, oldest = self.updates[t], self.theta[t], 0
        if self.seam_at is not None and t >= self.seam_at:
            oldest = self.seam_at
        products = np.full((len(spans), self.lags + 1), np.nan)
        decay = products.copy()
        if t not in self.nan_rows:
            for lag in range(min(self.lags, t - oldest) + 1):
                if t - lag in self.nan_rows:
                    continue
                products[:, lag] = [delta[s] @ self.updates[t - lag][s] for s in spans]
                decay[:, lag] = [self.decay_part[t][s] @ self.updates[t - lag][s] for s in spans]
        fields = {
            "t": t,
            "segment": 0,
            "step": int(self.steps[t]),
            "n_steps": self.every,
            "lr_sum": np.array([0.1 * self.every]),
            "products": products,
            "theta_dot": np.array([theta[s] @ delta[s] for s in spans]),
            "theta_norm2": np.array([theta[s] @ theta[s] for s in spans]),
            "unchanged": np.array([1.0] * len(spans)),
            "nonfinite": np.array([3.0 if t in self.nan_rows else 0.0] * len(spans)),
            "flags": ["nonfinite"] if t in self.nan_rows else ["seam"] if t == self.seam_at else [],
            "seconds": 0.002,
        }
        if self.decay:
            fields["decay_products"] = decay
            fields["decay_norm2"] = np.array([self.decay_part[t][s] @ self.decay_part[t][s] for s in spans])
        return fields

    def recording(self) -> Recording:
        return Recording.from_log(self.write(RecordingWriter(None, header_meta=self.meta)).log())

    def save(self, folder: Path) -> Path:
        self.write(RecordingWriter(folder, header_meta=self.meta)).close()
        return folder


DEGENERATE = {
    "no update": Run(n_updates=0, metrics=False),
    "one update": Run(n_updates=1),
    "too few updates": Run(n_updates=6),
    "one window": Run(n_updates=10),
    "not finite": Run(n_updates=26, nan_rows=(5, 20, 21)),
    "only not finite": Run(n_updates=24, nan_rows=tuple(range(24))),
    "seam": Run(n_updates=26, seam_at=12),
    "no metrics": Run(n_updates=22, metrics=False),
    "one block": Run(n_updates=22, blocks={"all": 300}),
    "no decay": Run(n_updates=22, decay=False),
    "two updates a window": Run(n_updates=22, lags=1),
    "no P_eff": Run(n_updates=22, lags=4),
    "frozen": Run(n_updates=22, scale=0.0),
}


def window_of(name: str) -> int:
    """A window that the recording of ``DEGENERATE`` can hold."""
    return {"two updates a window": 2, "no P_eff": 5}.get(name, 10)
