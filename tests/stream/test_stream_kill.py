"""Promises 4 and 5: a real process, killed for real at 50 random moments, then resumed to the end."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch
from stream_reference import batch, small_transformer

import spectraledge as se

STEPS = 1700  # more than 50 lives of up to 30 steps each
SAVE_EVERY = 10
KILLS = 50


def train_to_the_end(folder: Path, done: Synchronized | None, started: Synchronized | None) -> None:
    """Train from the newest checkpoint; ``done`` counts snapshots whose record has been handed over."""
    torch.set_num_threads(1)
    model = small_transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    checkpoint = folder / "checkpoint.pt"
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        step = state["step"]
    monitor = se.attach(
        model, optimizer, window=4, every=1, out=folder / "run", decay_products=True, resume="auto", on_error="raise"
    )
    if checkpoint.exists():
        monitor.load(folder / f"monitor-{step}.safetensors")
    if started is not None:
        started.value = 1 + step
    while step < STEPS:
        x, y = batch(generator)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        step += 1
        if done is not None:
            done.value = step
        monitor.log(loss=loss)
        if step % SAVE_EVERY == 0:
            monitor.save(folder / f"monitor-{step}.safetensors")
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "step": step,
            }
            torch.save(state, folder / "checkpoint.tmp")
            os.replace(folder / "checkpoint.tmp", checkpoint)
            for old in folder.glob("monitor-*.safetensors"):
                if old.name != f"monitor-{step}.safetensors":
                    old.unlink()
    monitor.detach()


def test_kill_at_fifty_random_moments(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "spectraledge._attach", "stream_reference"])
    process = context.Process(target=train_to_the_end, args=(whole, None, None))
    process.start()
    process.join()
    assert process.exitcode == 0
    reference = se.load(whole / "run")
    assert reference.n_updates == STEPS
    rng = random.Random(0)
    n_killed = 0
    while n_killed < KILLS:
        done, started = context.Value("q", -1), context.Value("q", 0)
        process = context.Process(target=train_to_the_end, args=(cut, done, started))
        process.start()
        steps_to_live = rng.randint(0, 30)  # counted in steps: a loaded machine is killed at the same places
        first = None
        while process.is_alive():
            if started.value and first is None:
                first = max(done.value, started.value - 1)
            if first is not None and done.value - first >= steps_to_live:
                break
            time.sleep(0.0002)
        time.sleep(rng.uniform(0.0, 0.002))
        os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run must be long enough to be killed every time"
        n_killed += 1
        recording = se.load(cut / "run")  # loads, whatever moment it was
        assert recording.report.n_corrupt == 0
        assert recording.report.n_lost_rows == 0
        if done.value > 0:
            # every record handed over is there; at most the one being written is not counted yet
            assert recording.n_updates in (done.value, done.value + 1)
        n = recording.n_updates
        assert np.array_equal(recording.products, reference.products[:n], equal_nan=True)
    process = context.Process(target=train_to_the_end, args=(cut, None, None))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert se.load(cut / "run") == reference
