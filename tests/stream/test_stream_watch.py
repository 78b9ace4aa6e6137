"""Events found while a run goes on: the same as afterwards, heard by callbacks, and remembered across a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import spectraledge as se
from spectraledge.detect.events import find_events
from spectraledge.recording import Event

P, WINDOW, SWITCH, ROWS = 2000, 5, 90, 150


class World:
    """Updates of unit noise; from ``SWITCH`` on with a common direction of the same length."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = torch.nn.Linear(P, 1, bias=False)
        with torch.no_grad():
            self.model.weight.zero_()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        noise = torch.randn(ROWS, P, generator=generator) / P**0.5
        common = torch.randn(P, generator=generator) / P**0.5
        self.updates = noise + (torch.arange(ROWS) >= SWITCH)[:, None] * common

    def run(self) -> None:
        for t in range(ROWS):
            self.step(t)

    def step(self, t: int) -> None:
        self.model.weight.grad = -self.updates[t].reshape(1, P).clone()
        self.optimizer.step()


def watched(world: World, out: Path | None = None, **options: object) -> se.Monitor:
    return se.attach(
        world.model, world.optimizer, window=WINDOW, every=1, out=out, on_error="raise", events=True, **options
    )


def test_events_are_those_of_the_finished_recording(tmp_path: Path) -> None:
    world, heard = World(), []
    with watched(world, tmp_path / "run") as monitor:
        monitor.on_event(heard.append)
        world.run()
    recording = se.load(tmp_path / "run")
    assert recording.events == heard == find_events(recording, window=WINDOW)
    assert any(SWITCH <= event.step <= SWITCH + 2 * WINDOW and event.kind == "mode emergence" for event in heard)
    assert not any(event.step < SWITCH for event in heard)


def test_a_restart_with_the_saved_state_hears_the_same(tmp_path: Path) -> None:
    whole, first = World(), World()
    with watched(whole) as monitor:
        whole.run()
    expected = monitor.recording.events
    assert expected
    monitor = watched(first, tmp_path / "run")
    for t in range(100):
        if t == 92:  # in the middle of what the detectors are about to notice
            weights = {name: x.clone() for name, x in first.model.state_dict().items()}
            monitor.save(tmp_path / "monitor.safetensors")
        first.step(t)
    monitor.detach()
    second = World()
    second.model.load_state_dict(weights)
    monitor = watched(second, tmp_path / "run", resume="auto", step=92)
    monitor.load(tmp_path / "monitor.safetensors")
    for t in range(92, ROWS):
        second.step(t)
    monitor.detach()
    assert se.load(tmp_path / "run").events == expected


@pytest.mark.parametrize("start", ["attach", "on_event"])
def test_detectors_start_with_either_call(start: str) -> None:
    world, heard = World(), []
    options = {"events": ["mode1-emergence"]} if start == "attach" else {}
    monitor = se.attach(world.model, world.optimizer, window=WINDOW, every=1, on_error="raise", **options)
    monitor.on_event(heard.append)
    world.run()
    monitor.detach()
    assert heard
    if start == "attach":
        assert {event.detector.split()[0] for event in heard} == {"mode1-emergence"}


def test_a_callback_that_raises_is_dropped_and_training_goes_on() -> None:
    world, heard = World(), []

    def fails(event: Event) -> None:
        raise ValueError("no mail server")

    callbacks: list[Callable[[Event], object]] = [fails, heard.append]
    with watched(world) as monitor:
        for callback in callbacks:
            monitor.on_event(callback)
        with pytest.warns(RuntimeWarning, match="dropped a callback that raised at step .* no mail server"):
            world.run()
    assert heard == monitor.recording.events


def test_watching_changes_nothing() -> None:
    worlds = World(), World()
    with watched(worlds[0]):
        worlds[0].run()
    worlds[1].run()
    assert torch.equal(worlds[0].model.weight, worlds[1].model.weight)
