"""Loops around Accelerate: the plain loop's recording, also over skips and states that are saved and loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters_reference import (
    ACCUMULATION,
    MONITORED,
    STEPS,
    Net,
    assert_same_parameters,
    assert_same_products,
    loader,
    make_optimizer,
    plain_run,
)

import spectraledge as se
from spectraledge.errors import DataError, OutputError, SettingError

pytest.importorskip("accelerate")
import accelerate
from accelerate.state import AcceleratorState, GradientState

from spectraledge.adapters.accelerate import attach


class Loop:
    """A user's own loop, prepared and monitored; ``run`` goes on from wherever it is."""

    def __init__(
        self,
        *,
        scaler: torch.amp.GradScaler | None = None,
        optimizer: Any = make_optimizer,
        monitored: bool = True,
        **keywords: Any,
    ) -> None:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
        self.accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATION)
        self.accelerator.scaler = scaler  # accelerate makes one on a GPU only; handed on by ``prepare``
        self.net = Net()
        made = optimizer(self.net)
        many = made if isinstance(made, list) else [made]
        self.model, self.batches, *self.optimizers = self.accelerator.prepare(self.net, loader(), *many)
        self.groups = 0
        self.coming: Iterator[Any] | None = None
        self.said: list[bool] = []
        self.monitor = self.attach(**keywords) if monitored else None

    def attach(self, **keywords: Any) -> se.stream.monitor.Monitor:
        return attach(self.accelerator, self.model, self.optimizers, **{**MONITORED, **keywords})

    def _forever(self) -> Iterator[Any]:
        done = self.groups * ACCUMULATION
        while True:
            for i, batch in enumerate(self.batches):
                if i >= done % len(self.batches):
                    yield batch
            done = 0

    def run(self, until: int, overflowing: int = 0) -> Loop:
        """Train up to group ``until``; an infinite gradient in the group ``overflowing``."""
        self.coming = self.coming or self._forever()
        while self.groups < until:
            for part in range(ACCUMULATION):
                batch = next(self.coming)  # before ``accumulate``, which asks whether it was the last
                with self.accelerator.accumulate(self.model):
                    loss = self.model(*batch)["loss"]
                    self.accelerator.backward(loss)
                    if self.groups + 1 == overflowing and part == 0:
                        next(self.net.parameters()).grad.mul_(torch.inf)  # type: ignore[union-attr]
                    for optimizer in self.optimizers:
                        optimizer.step()
                        optimizer.zero_grad()
            self.said.append(self.accelerator.optimizer_step_was_skipped)
            self.groups += 1
        return self

    def load(self, folder: Path, groups: int) -> Loop:
        self.accelerator.load_state(str(folder))
        self.groups, self.coming = groups, None
        return self

    def recording(self) -> se.Recording:
        assert self.monitor is not None
        self.monitor.detach()
        return self.monitor.recording


@pytest.fixture(scope="module")
def reference() -> tuple[se.Recording, Net]:
    recording, model, _ = plain_run()
    assert recording is not None
    return recording, model


@pytest.fixture(autouse=True)
def leave_no_state() -> Iterator[None]:
    """The accelerator is a singleton; the Trainer's tests must not find this one."""
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def test_recording_is_the_plain_loops(reference: tuple[se.Recording, Net]) -> None:
    loop = Loop().run(STEPS)
    assert_same_products(loop.recording(), reference[0])
    assert_same_parameters(loop.net, reference[1])
    assert_same_parameters(Loop(monitored=False).run(STEPS).net, reference[1])


@pytest.mark.parametrize("fused", [False, True])
def test_skipped_step_is_not_counted(fused: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    loop = Loop(scaler=scaler, optimizer=lambda net: make_optimizer(net, fused=fused), every=1)
    loop.run(STEPS, overflowing=6)
    expected, model, _ = plain_run(every=1, skipped={6}, optimizer_options={"fused": fused})
    assert expected is not None
    assert loop.said.index(True) == 5 if not fused else not any(loop.said)  # why accelerate is not asked
    assert scaler.get_scale() == 2.0**9
    recording = loop.recording()
    assert recording.steps.tolist() == list(range(1, STEPS))
    assert_same_products(recording, expected)
    assert_same_parameters(loop.net, model)


@pytest.mark.parametrize("save_ring", [True, False])
def test_new_process_goes_on(tmp_path: Path, save_ring: bool, reference: tuple[se.Recording, Net]) -> None:
    keywords = {"out": tmp_path / "run", "save_ring": save_ring}
    first = Loop(**keywords).run(9)
    first.accelerator.save_state(str(tmp_path / "state"))
    first.run(13).recording()  # what follows the checkpoint is lost, and rewound
    assert not list((tmp_path / "state").glob("custom_checkpoint*"))
    second = Loop(**keywords, resume="auto").load(tmp_path / "state", 9).run(STEPS)
    assert_same_parameters(second.net, reference[1])
    recording = second.recording()
    if save_ring:
        assert_same_products(recording, reference[0])
    else:
        check_seam(recording, reference[0], 9)


def check_seam(recording: se.Recording, expected: se.Recording, step: int) -> None:
    assert recording.steps.tolist() == expected.steps.tolist()
    before = expected.steps <= step
    np.testing.assert_array_equal(recording.products[before], expected.products[before])
    first = np.flatnonzero(~before)[0]
    assert np.isnan(recording.products[first, :, 1:]).all()
    np.testing.assert_array_equal(recording.products[first + 1 :, :, 0], expected.products[first + 1 :, :, 0])
    assert np.isfinite(recording.products[first + 1, :, 1]).all()


def test_rewound_within_one_process(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    loop = Loop(save_ring=True).run(9)
    loop.accelerator.save_state(str(tmp_path))
    loop.run(13).load(tmp_path, 9).run(STEPS)
    assert_same_products(loop.recording(), reference[0])


@pytest.mark.parametrize("save_ring", [True, False])
def test_optimizers_that_keep_no_count(tmp_path: Path, save_ring: bool) -> None:
    def two(net: torch.nn.Module) -> list[torch.optim.Optimizer]:
        half = list(net.parameters())
        return [torch.optim.SGD(half[:3], lr=0.1, momentum=0.9), torch.optim.SGD(half[3:], lr=0.05)]

    whole = Loop(optimizer=two).run(STEPS)
    keywords = {"optimizer": two, "out": tmp_path / "run", "save_ring": save_ring}
    first = Loop(**keywords).run(9)
    first.accelerator.save_state(str(tmp_path / "state"))
    first.recording()
    second = Loop(**keywords, resume="auto", step=0).load(tmp_path / "state", 9).run(STEPS)
    assert second.monitor is not None
    assert second.monitor.step == STEPS
    assert_same_parameters(second.net, whole.net)
    if save_ring:
        assert_same_products(second.recording(), whole.recording())
    else:
        check_seam(second.recording(), whole.recording(), 9)


def test_states_with_and_without_monitor_load_alike(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    plain = Loop(monitored=False).run(8)
    plain.accelerator.save_state(str(tmp_path / "plain"))
    loop = Loop().load(tmp_path / "plain", 8).run(STEPS)
    assert loop.recording().steps.tolist() == list(range(10, STEPS + 1, 2))
    monitored = Loop(save_ring=True).run(8)
    monitored.accelerator.save_state(str(tmp_path / "monitored"))
    again = Loop(monitored=False).load(tmp_path / "monitored", 8).run(STEPS)
    assert_same_parameters(again.net, reference[1])


def test_two_monitors(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    def both() -> tuple[Loop, Any]:
        loop = Loop(save_ring=True)
        return loop, loop.attach(save_ring=True, name="second", blocks="all", every=3)

    loop, _ = both()
    loop.run(8).accelerator.save_state(str(tmp_path))
    loop, second = both()
    loop.load(tmp_path, 8).run(STEPS)
    second.detach()
    assert_same_parameters(loop.net, reference[1])
    assert loop.recording().steps.tolist() == [10, 12, 14, 16, 18, 20]
    assert second.recording.steps.tolist() == [9, 12, 15, 18]
    assert second.recording.n_steps.tolist() == [3, 3, 3, 3]


def test_detached_monitor_is_let_go(tmp_path: Path) -> None:
    loop = Loop(save_ring=True).run(4)
    loop.recording()
    assert not loop.accelerator._save_model_state_pre_hook
    assert not loop.accelerator._load_model_state_pre_hook
    loop.accelerator.save_state(str(tmp_path))
    assert not (tmp_path / "spectral_edge").exists()
    loop.load(tmp_path, 4).run(6)


def test_user_loading_an_optimizer_himself() -> None:
    loop = Loop().run(4)
    state = copy.deepcopy(loop.optimizers[0].state_dict())
    loop.run(7)
    loop.optimizers[0].load_state_dict(state)
    loop.run(10)
    assert loop.recording().steps.tolist() == [2, 4, 6]


def test_what_is_wrong_does_not_stop_training(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    loop = Loop(save_ring=True, on_error="disable").run(9)
    (tmp_path / "spectral_edge").write_text("a file where a folder should be")
    with pytest.warns(RuntimeWarning, match="will have a seam"):
        loop.accelerator.save_state(str(tmp_path))
    (tmp_path / "spectral_edge").unlink()
    (tmp_path / "spectral_edge").mkdir()
    (tmp_path / "spectral_edge/monitor.json").write_text("[]")
    with pytest.warns(RuntimeWarning, match="seam is marked"):
        loop.load(tmp_path, 9)
    check_seam(loop.run(STEPS).recording(), reference[0], 9)
    assert_same_parameters(loop.net, reference[1])


@pytest.mark.parametrize("content", ["[]", "{", "not JSON"])
def test_damaged_state_is_said(tmp_path: Path, content: str) -> None:
    loop = Loop().run(2)
    loop.accelerator.save_state(str(tmp_path))
    (tmp_path / "spectral_edge/monitor.json").write_text(content)
    with pytest.raises(DataError, match=r"monitor\.json"):
        loop.load(tmp_path, 2)


def test_unwritable_state_is_said(tmp_path: Path) -> None:
    loop = Loop().run(2)
    (tmp_path / "spectral_edge/monitor.json").mkdir(parents=True)
    with pytest.raises((OutputError, OSError)):
        loop.accelerator.save_state(str(tmp_path))


def test_mistakes(tmp_path: Path) -> None:
    loop = Loop(monitored=False)
    with pytest.raises(SettingError, match="prepare first"):
        attach(loop.accelerator, loop.model, make_optimizer(loop.net))
    with pytest.raises(SettingError, match="keywords"):
        loop.attach(windows=3)
    with pytest.raises(SettingError, match="name"):
        loop.attach(name="a/b")
