"""A small real training run with trackers, and what they should have been sent."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import spectraledge as se
from spectraledge.recording import Recording
from spectraledge.sinks import Connection, connect
from spectraledge.sinks.keys import HEALTH, ROOT, key_parts

WINDOW = 4


class Training:
    """Three layers, AdamW; the loss of every step is kept."""

    def __init__(self, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(12, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 2)]
        self.model = torch.nn.Sequential(*layers).to(dtype)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=0.1)
        self.dtype = dtype
        self.losses: list[float] = []

    def attach(self, **options: Any) -> se.Monitor:
        options = {"window": WINDOW, "every": 1, "on_error": "raise", **options}
        return se.attach(self.model, self.optimizer, **options)

    def steps(self, n: int, after: Callable[[int], object] | None = None) -> None:
        for _ in range(n):
            x = torch.randn(32, 12, generator=self.generator, dtype=self.dtype)
            y = torch.stack([x[:, 0] * x[:, 1], x[:, 2]], dim=1)
            self.optimizer.zero_grad()
            loss = (self.model(x) - y).square().mean()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
            if after is not None:
                after(len(self.losses) - 1)


class Collected:
    """A sink that keeps everything; a step that is logged again keeps the last."""

    name = "collected"

    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.calls: list[tuple[str, int]] = []
        self.alerts: list[Any] = []
        self.closed = 0

    def log(self, step: int, values: Any) -> None:
        self.values[step] = dict(values)
        self.calls.append(("log", step))

    def alert(self, alert: Any) -> None:
        self.alerts.append(alert)

    def rewind(self, step: int) -> None:
        self.calls.append(("rewind", step))
        self.values = {at: values for at, values in self.values.items() if at <= step}

    def close(self) -> None:
        self.closed += 1


def run_with(sinks: Any, n: int = 30, *, training: Training | None = None, **options: Any) -> tuple[Any, ...]:
    """Train, and give back the training, its recording and the connection."""
    training = training or Training()
    with training.attach() as monitor:
        connection: Connection = connect(monitor, sinks, **options)
        training.steps(n)
    return training, monitor.recording, connection


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("spectraledge-")]


def expected(recording: Recording, window: int = WINDOW, n_sigma: int = 5) -> dict[int, dict[str, float]]:
    """What a tracker is to show at every step, derived from the finished recording the ordinary way."""
    r = recording
    found: dict[int, dict[str, float]] = {int(step): {} for step in r.steps}
    for t, step in enumerate(r.steps):
        here = found[int(step)]
        here[f"{ROOT}/step"] = float(step)
        here[f"{ROOT}/update_norm"] = float(np.sqrt(r.products[t, 0, 0]))
        here[f"{ROOT}/theta_norm"] = float(np.sqrt(r.theta_norm2[t, 0]))
        here[f"{HEALTH}/nonfinite"] = float(r.nonfinite[t, 0])
        here[f"{HEALTH}/ms_per_snapshot"] = 1e3 * float(r.seconds[t])
        segment = r.meta["segments"][r.segment[t]]
        here[f"{HEALTH}/unchanged_share"] = float(r.unchanged[t, 0]) / segment["n_parameters"]
    spectra = r.spectra(window)
    gap, plain = spectra.gap(), spectra.gap("plain")
    for n, step in enumerate(spectra.steps):
        here = found[int(step)]
        here[f"{ROOT}/k_star"] = float(gap.position[n] or math.nan)
        here[f"{ROOT}/k_star_plain"] = float(plain.position[n] or math.nan)
        here[f"{ROOT}/gap"], here[f"{ROOT}/gap_ratio"] = float(gap.width[n]), float(gap.ratio[n])
        here[f"{HEALTH}/floor"] = float(spectra.floor[n])
        for j in range(min(n_sigma, window)):
            resolved = spectra.resolved[n, j]
            here[f"{ROOT}/sigma_{j + 1}"] = float(spectra.singular_values[n, j]) if resolved else math.nan
    for segment in r.meta["segments"]:
        for name, part in key_parts(segment["blocks"]).items():
            gap = r.spectra(window, block=name).gap()
            for n, step in enumerate(gap.steps):
                if r.meta["segments"][r.segment[n + window - 1]] is segment:
                    found[int(step)][f"{ROOT}/layer/{part}/k_star"] = float(gap.position[n] or math.nan)
                    found[int(step)][f"{ROOT}/layer/{part}/gap_ratio"] = float(gap.ratio[n])
    return {step: {key: value for key, value in here.items() if math.isfinite(value)} for step, here in found.items()}


def assert_as_recorded(values: dict[int, dict[str, float]], recording: Recording, **options: Any) -> None:
    """Every step, to the bit: the same products go through the same functions."""
    want = expected(recording, **options)
    assert set(values) == set(want)
    for step, here in want.items():
        sent = {k: v for k, v in values[step].items() if k not in (f"{HEALTH}/missing", f"{HEALTH}/dropped")}
        assert sent == here, step
