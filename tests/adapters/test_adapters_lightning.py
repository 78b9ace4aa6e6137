"""A Lightning trainer records what a loop of one's own records, and trains as if nothing were attached."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from adapters_reference import (
    ACCUMULATION,
    MONITORED,
    STEPS,
    STEPS_AN_EPOCH,
    Net,
    assert_same_parameters,
    assert_same_products,
    loader,
    make_optimizer,
    plain_run,
)
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision

import spectraledge as se
from spectraledge.adapters import lightning as adapter
from spectraledge.adapters.lightning import SpectralEdge
from spectraledge.errors import OutputError, SettingError
from spectraledge.recording import Event, read_log
from spectraledge.stream.ring import UpdateRing
from spectraledge.stream.watch import Watch

pytestmark = [
    # Lightning 2.6 makes a LeafSpec, which torch 2.13 deprecates
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    # one process with data in memory is what is wanted here
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    # six steps an epoch are fewer than Lightning's default interval of logging
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    # a run that is resumed saves where the one before it did
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    # most of the tests need no validation
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class Module(pl.LightningModule):
    """The reference problem, with metrics of every kind of logging."""

    def __init__(self, optimizer: Any = make_optimizer, fail_at: int | None = None) -> None:
        super().__init__()
        self.net = Net().net
        self.make_optimizer, self.fail_at = optimizer, fail_at
        self.losses: list[float] = []
        self.n_validations = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if len(self.losses) == self.fail_at:
            raise ZeroDivisionError("the test's own")
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.net(x), y)
        self.losses.append(float(loss.detach()))
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("late", float(self.current_epoch))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_constant", 1.0)
        self.log("step", 7.0)  # a name that Monitor.log takes for something else

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch[0])

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.net)


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Keeps no count of its steps."""
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def trainer(*callbacks: Any, root: Path | None = None, **options: Any) -> Any:
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    defaults = {"max_steps": STEPS} if "max_epochs" not in options else {}
    return options.pop("package", pl).Trainer(
        **{
            "accelerator": "cpu",
            "accumulate_grad_batches": ACCUMULATION,
            "callbacks": list(callbacks),
            "default_root_dir": root,
            "enable_checkpointing": saves,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "logger": False,
            **defaults,
            **options,
        }
    )


def callback(**keywords: Any) -> SpectralEdge:
    return SpectralEdge(**{**MONITORED, **keywords})


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=["foreach", "fused"])
def test_products_are_those_of_a_plain_loop(options: dict[str, Any]) -> None:
    reference, net, losses = plain_run(optimizer_options=options)
    module, ours = Module(lambda m: make_optimizer(m, **options)), callback()
    trainer(ours).fit(module, loader())
    assert module.losses == losses
    assert_same_parameters(module.net, net)
    assert reference is not None
    assert_same_products(ours.recording, reference)
    assert not ours.recording.seams.size


class Silent(Module):
    """Logs nothing: torch 2.13 cannot trace Lightning's ``self.log``."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])


@pytest.mark.parametrize("part", ["module", "net"])
def test_compiled(part: str) -> None:
    """Tracing alone, which keeps the arithmetic; a compiled part has other names for its parameters."""
    reference = plain_run()[0]
    ours, module = callback(), Silent()
    if part == "net":
        module.net = torch.compile(module.net, backend="eager")
    trainer(ours).fit(module if part == "net" else torch.compile(module, backend="eager"), loader())
    assert reference is not None
    assert_same_products(ours.recording, reference)


def test_clipping_and_no_trace_in_training() -> None:
    """Promise 1, and products under clipping by norm."""
    reference, net, losses = plain_run(clip=0.1)
    with_it, without, ours = Module(), Module(), callback(events=True)
    trainer(ours, gradient_clip_val=0.1).fit(with_it, loader(), loader())
    trainer(gradient_clip_val=0.1).fit(without, loader(), loader())
    assert with_it.losses == without.losses == losses
    assert_same_parameters(with_it.net, without.net)
    assert_same_parameters(with_it.net, net)
    assert reference is not None
    assert_same_products(ours.recording, reference)


class Scaled(MixedPrecision):
    """Gradient scaling in float32: without autocast, scaling by powers of two is exact, and so comparable."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=10**6))

    def autocast_context_manager(self) -> Any:
        return torch.autocast("cpu", enabled=False)


class Overflow(pl.Callback):
    """Makes the gradients of one group of batches overflow."""

    def __init__(self, group: int) -> None:
        self.group, self.n = group, 0

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self.n += 1
        if self.n == self.group * ACCUMULATION:
            next(pl_module.net.parameters()).grad.fill_(float("inf"))


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=["foreach", "fused"])
def test_a_skipped_step_is_no_step(options: dict[str, Any]) -> None:
    reference = plain_run(skipped=(7,), optimizer_options=options)[0]
    ours = callback()
    fit = trainer(ours, Overflow(7), plugins=[Scaled()])
    module = Module(lambda m: make_optimizer(m, **options))
    fit.fit(module, loader())
    assert fit.global_step == STEPS  # counts the skipped one
    assert int(next(iter(fit.optimizers[0].state.values()))["step"]) == STEPS - 1
    assert ours.monitor is not None
    assert ours.monitor.step == STEPS - 1
    assert ours.recording.steps.tolist() == list(range(2, STEPS, 2))
    assert reference is not None
    assert_same_products(ours.recording, reference)


class Two(Module):
    """Two optimizers, stepped by hand; the second one only in every ``turn``-th batch."""

    def __init__(self, turn: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.turn = turn

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.net(x), y)
        one, other = self.optimizers()
        one.zero_grad()
        other.zero_grad()
        self.manual_backward(loss)
        one.step()
        if batch_idx % self.turn == self.turn - 1:
            other.step()

    def configure_optimizers(self) -> Any:
        return [sgd(self.net[:2]), make_optimizer(self.net[2:])]


@pytest.mark.parametrize("turn", [1, 3])
def test_two_optimizers(turn: int) -> None:
    ours = callback(every=1)
    fit = trainer(ours, accumulate_grad_batches=1, max_epochs=1)
    fit.fit(Two(turn), loader())
    batches = STEPS_AN_EPOCH * ACCUMULATION
    assert fit.global_step == batches + batches // turn  # both optimizers together
    assert ours.monitor is not None
    assert ours.monitor.step == batches
    assert ours.recording.steps.tolist() == list(range(1, batches + 1))
    assert ours.recording.lr_sum.shape == (batches, 2)
    moved = ours.recording.products[:, ours.recording.blocks.index("net.4"), 0] > 0
    assert int(moved.sum()) == batches // turn


def checkpoints(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1)


@pytest.mark.parametrize(("optimizer", "weights_only"), [(make_optimizer, True), (sgd, False)])
def test_resumed_bit_for_bit(tmp_path: Path, optimizer: Any, weights_only: bool) -> None:
    """Broken off within the third epoch, after steps that the resumed run makes again."""
    whole = callback(out=tmp_path / "whole", lags=11, events=True)
    module = Module(optimizer)
    trainer(whole, max_epochs=4).fit(module, loader(), loader())
    keywords: dict[str, Any] = {"out": tmp_path / "run", "lags": 11, "events": True, "save_ring": True}
    at = (2 * STEPS_AN_EPOCH + 3) * ACCUMULATION
    with pytest.raises(ZeroDivisionError):
        trainer(callback(**keywords), checkpoints(tmp_path / "ckpt"), max_epochs=4).fit(
            Module(optimizer, fail_at=at), loader(), loader()
        )
    assert se.load(tmp_path / "run").steps[-1] == 14
    resumed = Module(optimizer)
    ours = callback(**keywords)  # the same script, started again
    trainer(ours, checkpoints(tmp_path / "ckpt"), max_epochs=4).fit(
        resumed, loader(), loader(), ckpt_path=tmp_path / "ckpt" / "epoch=1.ckpt", weights_only=weights_only
    )
    assert_same_parameters(resumed.net, module.net)
    one, other = se.load(tmp_path / "run"), se.load(tmp_path / "whole")
    assert_same_products(one, other)
    assert not one.seams.size
    assert one.events == other.events
    assert one.metrics.keys() == other.metrics.keys()
    for name, (steps, values) in other.metrics.items():
        np.testing.assert_array_equal(one.metrics[name][0], steps, err_msg=name)
        np.testing.assert_array_equal(one.metrics[name][1], values, err_msg=name)


@pytest.mark.parametrize("overwrite", [False, True])
def test_resumed_without_ring(tmp_path: Path, overwrite: bool) -> None:
    """The step is known, the updates are not: what follows does not join. Nothing before it is lost."""
    keywords: dict[str, Any] = {"out": tmp_path / "run", "overwrite": overwrite}
    trainer(callback(**keywords), checkpoints(tmp_path), max_epochs=2).fit(Module(sgd), loader())
    before = se.load(tmp_path / "run")
    trainer(callback(**keywords), checkpoints(tmp_path), max_epochs=3).fit(
        Module(sgd), loader(), ckpt_path=tmp_path / "epoch=1.ckpt"
    )
    after = se.load(tmp_path / "run")
    assert after.steps.tolist() == list(range(2, 19, 2))
    np.testing.assert_array_equal(after.products[: len(before.steps)], before.products)
    assert after.seams.tolist() == [len(before.steps)]
    assert np.isnan(after.products[len(before.steps), :, 1:]).all()


def test_a_checkpoint_does_not_open_the_recording_of_another_run(tmp_path: Path) -> None:
    trainer(callback(out=tmp_path / "run"), checkpoints(tmp_path), max_epochs=1).fit(Module(), loader())
    plain_run(out=tmp_path / "other" / "run")
    ours = callback(out=tmp_path / "other" / "run")
    with pytest.raises(OutputError, match="must not hold a recording yet"):
        trainer(ours, checkpoints(tmp_path), max_epochs=2).fit(
            Module(), loader(), ckpt_path=tmp_path / "epoch=0.ckpt"
        )


def test_resumed_with_a_callback_that_is_new(tmp_path: Path) -> None:
    """The checkpoint knows nothing of it, and SGD counts no steps: the trainer does."""
    trainer(checkpoints(tmp_path), max_epochs=1).fit(Module(sgd), loader())
    ours = callback()
    trainer(ours, checkpoints(tmp_path), max_epochs=2).fit(Module(sgd), loader(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert ours.recording.steps.tolist() == [8, 10, 12]


def test_a_ring_that_does_not_fit_is_a_seam(tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"out": tmp_path / "run", "save_ring": True, "on_error": "disable"}
    trainer(callback(**keywords), checkpoints(tmp_path), max_epochs=1).fit(Module(), loader())
    with pytest.warns(RuntimeWarning, match="does not go on from the saved state"):
        trainer(callback(**keywords, lags=4), checkpoints(tmp_path), max_epochs=2).fit(
            Module(), loader(), ckpt_path=tmp_path / "epoch=0.ckpt"
        )
    assert se.load(tmp_path / "run").steps.tolist() == [2, 4, 6, 8, 10, 12]


def test_fit_again_goes_on(tmp_path: Path) -> None:
    """Lightning makes a new AdamW, whose count begins at zero; steps do not."""
    ours, module = callback(out=tmp_path / "run"), Module()
    fit = trainer(ours, max_epochs=1)
    fit.fit(module, loader())
    fit.validate(module, loader(), verbose=False)
    fit.fit_loop.max_epochs = 2
    fit.fit(module, loader())
    recording = se.load(tmp_path / "run")
    assert recording.steps.tolist() == [2, 4, 6, 8, 10, 12]
    assert recording.seams.tolist() == [3]
    fit.save_checkpoint(tmp_path / "after.ckpt")  # by hand, after the end
    states = torch.load(tmp_path / "after.ckpt", weights_only=True)["callbacks"]
    assert states[ours.state_key]["step"] == 12


def test_an_exception_closes_the_recording_and_its_checkpoint_has_the_state(tmp_path: Path) -> None:
    ours = callback(out=tmp_path / "run", save_ring=True)
    saver = ModelCheckpoint(tmp_path, filename="broken", save_on_exception=True, save_top_k=1)
    with pytest.raises(ZeroDivisionError):
        trainer(ours, saver, max_epochs=2).fit(Module(fail_at=5 * ACCUMULATION), loader())
    assert read_log(tmp_path / "run").records[-1]["kind"] == "close"
    state = torch.load(tmp_path / "broken.ckpt", weights_only=True)["callbacks"][ours.state_key]
    assert state["step"] == 5
    assert state["ring"]


def test_two_callbacks(tmp_path: Path) -> None:
    one = callback(out=tmp_path / "fine", every=1, save_ring=True)
    other = callback(out=tmp_path / "coarse", every=3, blocks="all", save_ring=True)
    trainer(one, other, checkpoints(tmp_path), max_epochs=1).fit(Module(), loader())
    states = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["callbacks"]
    assert {one.state_key, other.state_key} < states.keys()
    again = [callback(out=tmp_path / "fine", every=1), callback(out=tmp_path / "coarse", every=3, blocks="all")]
    trainer(*again, checkpoints(tmp_path), max_epochs=2).fit(Module(), loader(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert se.load(tmp_path / "fine").steps.tolist() == list(range(1, 13))
    assert se.load(tmp_path / "coarse").steps.tolist() == [3, 6, 9, 12]
    assert not se.load(tmp_path / "fine").seams.size


def test_a_failing_monitor_never_stops_the_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    start, calls = UpdateRing.start, []

    def failing(self: UpdateRing, tensors: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("no memory left")
        return start(self, tensors)

    monkeypatch.setattr(UpdateRing, "start", failing)
    ours, module = callback(on_error="disable", out=tmp_path / "run"), Module()
    with pytest.warns(RuntimeWarning, match="stopped monitoring at step 8"):
        trainer(ours, checkpoints(tmp_path), max_epochs=3).fit(module, loader(), loader())
    assert_same_parameters(module.net, plain_run(3 * STEPS_AN_EPOCH, monitored=False)[1])
    assert se.load(tmp_path / "run").steps.tolist() == [2, 4, 6]
    last = torch.load(tmp_path / "epoch=2.ckpt", weights_only=False)["callbacks"]
    assert ours.state_key not in last  # nothing that a resumed run could go on from


def test_on_error_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UpdateRing, "start", lambda self, tensors: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer(callback()).fit(Module(), loader())


def test_evaluation_attaches_nothing(tmp_path: Path) -> None:
    ours, module = callback(save_ring=True), Module()
    fit = trainer(ours, checkpoints(tmp_path), max_epochs=1)
    fit.fit(module, loader())
    monitor = ours.monitor
    for verb in ("validate", "test"):
        getattr(fit, verb)(module, loader(), ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
    fit.predict(module, loader())
    assert ours.monitor is monitor
    fresh = callback()
    trainer(fresh, max_epochs=1).validate(module, loader(), verbose=False)
    assert fresh.monitor is None
    with pytest.raises(SettingError, match="none has begun"):
        _ = fresh.recording


def test_metrics_once_each(tmp_path: Path) -> None:
    """Equal values measured anew are kept, values that merely still stand there are not."""
    ours = callback()
    trainer(ours, max_epochs=4, check_val_every_n_epoch=2).fit(Module(), loader(), loader())
    metrics = ours.recording.metrics
    assert metrics["val_constant"][0].tolist() == [12, 24]
    assert metrics["val_constant"][1].tolist() == [1.0, 1.0]
    assert metrics["late"][0].tolist() == [6, 12, 18, 24]
    assert metrics["late"][1].tolist() == [0.0, 1.0, 2.0, 3.0]
    losses = np.reshape(plain_run(4 * STEPS_AN_EPOCH)[2], (4, -1))
    assert metrics["train_loss_epoch"][0].tolist() == [6, 12, 18, 24]
    np.testing.assert_allclose(metrics["train_loss_epoch"][1], losses.mean(axis=1), rtol=1e-6)  # means in float32
    assert metrics["train_loss_step"][0].tolist() == [6, 12, 18, 24]
    np.testing.assert_array_equal(metrics["train_loss_step"][1], losses[:, -1])
    assert "train_loss" not in metrics  # would be a mixture of both
    assert "step" not in metrics
    quiet = callback(log_metrics=False)
    trainer(quiet, max_epochs=1).fit(Module(), loader(), loader())
    assert not quiet.recording.metrics


def test_events_reach_the_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    event = Event(step=4, block="all", kind="planted", value=1.0, threshold=0.5, detector="planted")
    monkeypatch.setattr(Watch, "push", lambda self, row, seam: [event] if row["step"] == 4 else [])
    seen: list[Any] = []
    ours = callback(on_event=seen.append)
    trainer(ours, max_epochs=1).fit(Module(), loader())
    assert seen == ours.recording.events == [event]


def test_module_without_optimizers() -> None:
    class Nothing(Module):
        def configure_optimizers(self) -> None:
            return None

    with (
        pytest.raises(SettingError, match="it returned none"),
        pytest.warns(UserWarning, match="returned `None`"),
    ):
        trainer(callback()).fit(Nothing(), loader())


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"windw": 10}, "got windw"),
        ({"window": 1}, "window must be at least 2"),
        ({"lags": 1}, "lags must be at least"),
        ({"every": 0}, "every must be at least 1"),
        ({"on_error": "ignore"}, "on_error"),
        ({"resume": "yes"}, "resume"),
        ({"on_event": 3}, "on_event must be callable"),
        ({"model": None}, "got model"),
    ],
)
def test_mistakes_are_found_before_training(keywords: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingError, match=match):
        SpectralEdge(**keywords)


def test_both_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class of the package that is loaded; and either class in a trainer of the other package."""
    import pytorch_lightning

    assert issubclass(SpectralEdge, pl.Callback)
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    spec = importlib.util.spec_from_file_location("spectraledge.adapters.again", adapter.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    monkeypatch.undo()
    assert issubclass(again.SpectralEdge, pytorch_lightning.Callback)

    class Other(pytorch_lightning.LightningModule):
        training_step = Module.training_step
        configure_optimizers = Module.configure_optimizers

        def __init__(self) -> None:
            super().__init__()
            self.net, self.losses, self.fail_at, self.make_optimizer = Net().net, [], None, make_optimizer

    reference = plain_run()[0]
    assert reference is not None
    for ours in (again.SpectralEdge(**MONITORED), callback()):
        trainer(ours, package=pytorch_lightning).fit(Other(), loader())
        assert_same_products(ours.recording, reference)
    ours = again.SpectralEdge(**MONITORED)
    trainer(ours).fit(Module(), loader())
    assert_same_products(ours.recording, reference)
