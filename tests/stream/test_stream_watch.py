"""Events found while a run goes on: the same as afterwards, heard by callbacks, and remembered across a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import spectraledge as se
from spectraledge.detect.events import find_events
from spectraledge.errors import SettingError
from spectraledge.recording import Event

P, WINDOW, SWITCH, ROWS = 2000, 5, 90, 150


class World:
    """Updates of unit noise; from ``SWITCH`` on with a common direction of the same length."""

    def __init__(self, size: int = P) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = torch.nn.Linear(size, 1, bias=False)
        with torch.no_grad():
            self.model.weight.zero_()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        noise = torch.randn(ROWS, size, generator=generator) / size**0.5
        common = torch.randn(size, generator=generator) / size**0.5
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


class Headed(World):
    """The same updates, half of them in a body and half in a head."""

    def __init__(self, size: int = 4 * P) -> None:
        super().__init__(size)
        self.model = torch.nn.ModuleDict(
            {name: torch.nn.Linear(size // 2, 1, bias=False) for name in ("body", "head")}
        )
        self.weights = [self.model[name].weight for name in ("body", "head")]
        with torch.no_grad():
            for weight in self.weights:
                weight.zero_()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)

    def step(self, t: int) -> None:
        for weight, update in zip(self.weights, self.updates[t].split(self.updates.shape[1] // 2), strict=True):
            weight.grad = -update.reshape(1, -1).clone() if weight.requires_grad else None
        self.optimizer.step()


def test_grokking_is_heard_of_and_found_afterwards(tmp_path: Path) -> None:
    """The same from the head's updates alone, whatever the window and how many more detectors there are."""
    for i, names in enumerate((["grokking"], ["mode1-emergence", "grokking"])):
        world, heard = Headed(), []
        with se.attach(
            world.model, world.optimizer, window=WINDOW, every=1, out=tmp_path / f"{i}", events=names
        ) as monitor:
            monitor.on_event(heard.append)
            world.run()
        recording = se.load(tmp_path / f"{i}")
        assert recording.events == heard == find_events(recording, window=WINDOW, detectors=names)
        (event,) = [event for event in heard if event.detector == "grokking"]
        assert SWITCH < event.step <= SWITCH + 10
        assert (len(heard) > 1) == (i == 1)


def test_grokking_is_heard_of_once_across_a_restart(tmp_path: Path) -> None:
    for at in (60, 94):
        expected: list[Event] = []
        whole = Headed()
        with se.attach(whole.model, whole.optimizer, every=1, events=["grokking"]) as monitor:
            monitor.on_event(expected.append)
            whole.run()
        heard: list[Event] = []
        first, second = Headed(), Headed()
        monitor = se.attach(first.model, first.optimizer, every=1, events=["grokking"])
        monitor.on_event(heard.append)
        for t in range(at):
            first.step(t)
        monitor.save(tmp_path / f"{at}.safetensors")
        second.model.load_state_dict(first.model.state_dict())
        monitor = se.attach(second.model, second.optimizer, every=1, events=["grokking"], step=at)
        monitor.on_event(heard.append)
        monitor.load(tmp_path / f"{at}.safetensors")
        for t in range(at, ROWS):
            second.step(t)
        assert heard == expected
        assert len(expected) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": "all"}, "must tell the head apart.*got all"),
        ({"blocks": {"foot": "body|head"}}, "must tell the head apart.*got foot"),
        ({"window": 4}, "last 9 updates; got 7"),
    ],
)
def test_grokking_says_what_it_needs(options: dict[str, object], words: str) -> None:
    world = Headed()
    with pytest.raises(SettingError, match=words):
        se.attach(world.model, world.optimizer, every=1, events=["grokking"], **options)  # type: ignore[arg-type]


def test_a_head_in_which_noise_fires_it_is_said() -> None:
    world = Headed(2 * 2499)
    with pytest.warns(RuntimeWarning, match="this one has 2,499, and below 2,500 noise alone fires it"):
        se.attach(world.model, world.optimizer, every=1, events=["grokking"]).detach()


def test_a_head_that_is_frozen_ends_looking_for_grokking_and_nothing_else() -> None:
    world = Headed()
    monitor = se.attach(world.model, world.optimizer, every=1, events=["grokking"])
    for t in range(30):
        world.step(t)
    world.weights[1].requires_grad_(False)
    with pytest.warns(RuntimeWarning, match="stopped looking for events at step .*must tell the head apart"):
        world.step(30)
    for t in range(31, 60):
        world.step(t)
    monitor.detach()
    assert monitor.recording.steps[-1] == 60
