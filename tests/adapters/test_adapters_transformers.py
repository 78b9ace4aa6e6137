"""The Hugging Face Trainer with the callback: the plain loop's recording, also over skips and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters_reference import (
    ACCUMULATION,
    MICRO_BATCH,
    MONITORED,
    STEPS,
    Net,
    assert_same_parameters,
    assert_same_products,
    data,
    make_optimizer,
    plain_run,
)

import spectraledge as se
from spectraledge.detect.events import DETECTORS
from spectraledge.errors import OutputError, SettingError

pytest.importorskip("transformers")
from transformers import Trainer, TrainerCallback, TrainingArguments

from spectraledge.adapters.transformers import SpectralEdgeCallback


class Samples(torch.utils.data.Dataset):
    """The reference's samples as the Trainer wants them."""

    def __init__(self) -> None:
        self.x, self.y = data()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[index], "y": self.y[index]}


def callback(**keywords: Any) -> SpectralEdgeCallback:
    return SpectralEdgeCallback(**{**MONITORED, **keywords})


def make_trainer(
    folder: Path, *callbacks: TrainerCallback, steps: int = STEPS, optimizer: Any = "own", **arguments: Any
) -> Trainer:
    """A Trainer of the reference problem; ``optimizer="own"`` is the reference's, None lets the Trainer make one."""
    model = Net()
    if optimizer == "own":
        optimizer = make_optimizer(model)
    elif callable(optimizer):
        optimizer = optimizer(model)
    settings = {
        "max_steps": steps,
        "per_device_train_batch_size": MICRO_BATCH,
        "gradient_accumulation_steps": ACCUMULATION,
        "train_sampling_strategy": "sequential",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_steps": 5,
        "label_names": ["y"],
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **arguments,
    }
    return Trainer(
        model,
        TrainingArguments(output_dir=str(folder / "trainer"), **settings),
        train_dataset=Samples(),
        eval_dataset=Samples(),
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )


class At(TrainerCallback):
    """Does something at the end of one step."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.action()


def crash() -> None:
    raise RuntimeError("the node is gone")


def plant_scaler(trainer: Trainer, overflowing: int) -> None:
    """Give the Trainer a gradient scaler, which it only makes on a GPU, and one overflow in step ``overflowing``.

    ``accelerator.prepare`` hands the accelerator's scaler to its optimizer, and ``accelerator.backward`` asks for it:
    from here on all is the frameworks' own code. Scales are powers of two, so that scaling is exact.
    """
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    backwards = 0

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal backwards
        backwards += 1
        return gradient * torch.inf if backwards == ACCUMULATION * overflowing else gradient

    next(iter(trainer.model.parameters())).register_hook(overflow)


@pytest.fixture(scope="module")
def reference() -> tuple[se.Recording, Net]:
    recording, model, _ = plain_run()
    assert recording is not None
    return recording, model


def test_recording_is_the_plain_loops(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    spectral = callback()
    trainer = make_trainer(tmp_path, spectral)
    trainer.train()
    assert_same_products(spectral.recording, reference[0])
    assert_same_parameters(trainer.model, reference[1])
    assert not spectral._late.running
    losses, values = spectral.recording.metrics["loss"]
    assert losses.tolist() == [5, 10, 15, 20]
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert values.tolist() == logged
    assert {"grad_norm", "learning_rate", "train_runtime"} <= set(spectral.recording.metrics)


def test_training_is_the_same_without(tmp_path: Path) -> None:
    runs = []
    for callbacks in ([], [callback(events=True)]):
        trainer = make_trainer(tmp_path, *callbacks, max_grad_norm=0.1, train_sampling_strategy="random", seed=1)
        trainer.train()
        runs.append((trainer, torch.random.get_rng_state()))
    (one, rng), (other, other_rng) = runs
    assert_same_parameters(one.model, other.model)
    assert torch.equal(rng, other_rng)
    assert [e.get("loss") for e in one.state.log_history] == [e.get("loss") for e in other.state.log_history]
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        for name, value in one.optimizer.state[p].items():
            assert torch.equal(value, other.optimizer.state[q][name])


def test_clipping(tmp_path: Path) -> None:
    spectral = callback()
    make_trainer(tmp_path, spectral, max_grad_norm=0.1).train()
    expected, _, _ = plain_run(clip=0.1)
    assert expected is not None
    assert_same_products(spectral.recording, expected)


@pytest.mark.parametrize("fused", [False, True])
def test_skipped_step_is_not_counted(tmp_path: Path, fused: bool) -> None:
    spectral = callback(every=1)
    trainer = make_trainer(tmp_path, spectral, optimizer=lambda model: make_optimizer(model, fused=fused))
    plant_scaler(trainer, overflowing=6)
    said: list[bool] = []
    trainer.add_callback(At(6, lambda: said.append(trainer.accelerator.optimizer_step_was_skipped)))
    trainer.train()
    expected, model, _ = plain_run(every=1, skipped={6}, optimizer_options={"fused": fused})
    assert expected is not None
    assert said == [not fused]  # why accelerate is not asked
    assert trainer.accelerator.scaler.get_scale() == 2.0**9
    assert trainer.state.global_step == STEPS
    assert spectral.recording.steps.tolist() == list(range(1, STEPS))
    assert_same_products(spectral.recording, expected)
    assert_same_parameters(trainer.model, model)
    assert spectral.recording.metrics["loss"][0].tolist() == [5, 9, 14, 19]  # at the optimizer's step


def test_fused_optimizer_of_the_trainer(tmp_path: Path) -> None:
    spectral = callback()
    trainer = make_trainer(tmp_path, spectral, optimizer=None, optim="adamw_torch_fused", weight_decay=0.1)
    trainer.train()

    def make(model: torch.nn.Module) -> torch.optim.Optimizer:  # the Trainer does not decay biases
        named = list(model.named_parameters())
        groups = [
            {"params": [p for n, p in named if "bias" not in n], "weight_decay": 0.1},
            {"params": [p for n, p in named if "bias" in n], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1e-2, fused=True)

    own = callback()
    make_trainer(tmp_path, own, optimizer=make).train()
    assert_same_products(spectral.recording, own.recording)
    assert spectral.recording.lr_sum.shape[1] == 2


@pytest.mark.parametrize("save_ring", [True, False])
def test_crash_and_resume(tmp_path: Path, save_ring: bool, reference: tuple[se.Recording, Net]) -> None:
    out = tmp_path / "run"
    first = callback(out=out, save_ring=save_ring)
    trainer = make_trainer(tmp_path, first, At(13, crash), save_strategy="steps", save_steps=9)
    with pytest.raises(RuntimeError, match="node"):
        trainer.train()
    assert se.load(out).steps.tolist() == [2, 4, 6, 8, 10, 12]
    first.detach()
    second = callback(out=out, save_ring=save_ring)
    resumed = make_trainer(tmp_path, second, save_strategy="steps", save_steps=9)
    resumed.train(resume_from_checkpoint=True)
    assert_same_parameters(resumed.model, reference[1])
    recording = se.load(out)
    assert (tmp_path / "trainer/checkpoint-18/spectral_edge/monitor.safetensors").exists() is save_ring
    if save_ring:
        assert_same_products(recording, reference[0])
        assert recording.metrics["loss"][0].tolist() == [5, 10, 15, 20]
    else:
        _check_seam(recording, reference[0], step=9)


def _check_seam(recording: se.Recording, expected: se.Recording, *, step: int) -> None:
    """Rows up to ``step`` as ever, then one short update of its own, and no product across."""
    assert recording.steps.tolist() == expected.steps.tolist()
    before = expected.steps <= step
    np.testing.assert_array_equal(recording.products[before], expected.products[before])
    after = np.flatnonzero(~before)
    assert "uneven" in recording.flags[after[0]]
    np.testing.assert_array_equal(recording.products[after[1:], :, 0], expected.products[after[1:], :, 0])
    for age, row in enumerate(after):
        assert np.isnan(recording.products[row, :, age + 1 :]).all()
        assert np.isfinite(recording.products[row, :, : age + 1]).all()


def test_ring_is_of_the_checkpoint_that_was_loaded(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    for name in ("one", "other"):  # two runs with a checkpoint of the same step
        own = callback(out=tmp_path / name / "run", save_ring=True)
        make_trainer(tmp_path / name, own, steps=9, save_strategy="steps", save_steps=9).train()
    loaded = tmp_path / "one/trainer/checkpoint-9"

    found_at_its_old_place = callback(out=tmp_path / "one/run", save_ring=True)
    trainer = make_trainer(tmp_path / "other", found_at_its_old_place)
    trainer.train(resume_from_checkpoint=str(loaded))
    assert_same_products(found_at_its_old_place.recording, reference[0])

    moved = loaded.rename(tmp_path / "checkpoint-9")
    elsewhere = callback(out=tmp_path / "elsewhere", save_ring=True)
    trainer = make_trainer(tmp_path / "other", elsewhere)
    trainer.train(resume_from_checkpoint=str(moved))
    assert elsewhere.recording.steps.tolist() == list(range(11, 21, 2))  # a recording of its own, with a seam at 9
    assert np.isnan(elsewhere.recording.products[0, :, 1:]).all()

    told = callback(out=tmp_path / "told", save_ring=True)
    trainer = make_trainer(tmp_path / "other", told, resume_from_checkpoint=str(moved))
    trainer.train(resume_from_checkpoint=str(moved))
    assert told.recording.steps.tolist() == list(range(10, 21, 2))  # the update that was under way goes on from 8
    np.testing.assert_array_equal(told.recording.products[:, :, 0], reference[0].products[-6:, :, 0])


def test_checkpoint_without_optimizer_or_without_callback(tmp_path: Path) -> None:
    def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01)

    saving = {"save_strategy": "steps", "save_steps": 9, "optimizer": sgd}
    make_trainer(tmp_path, steps=9, **saving).train()
    late = callback(out=tmp_path / "run")
    make_trainer(tmp_path, late, steps=18, **saving).train(resume_from_checkpoint=True)  # saves at 18, and may
    assert late.recording.steps.tolist() == [11, 13, 15, 17]
    again = callback(out=tmp_path / "run")
    make_trainer(tmp_path, again, **saving, save_only_model=True).train(resume_from_checkpoint=True)
    assert again.recording.steps.tolist() == [11, 13, 15, 17, 19]


def test_train_called_again(tmp_path: Path) -> None:
    spectral = callback(out=tmp_path / "run")
    trainer = make_trainer(tmp_path, spectral, steps=10)
    trainer.train()
    trainer.train()
    recording = spectral.recording
    assert recording.steps.tolist() == list(range(2, 21, 2))
    assert np.isnan(recording.products[5, :, 1:]).all()  # the seam
    assert np.isfinite(recording.products[6, :, 1]).all()
    trainer.optimizer = make_optimizer(trainer.model)  # another training: not silently over the first
    with pytest.raises(OutputError, match="recording"):
        trainer.train()
    assert se.load(tmp_path / "run").steps.tolist() == list(range(2, 21, 2))


def test_train_called_again_after_an_exception(tmp_path: Path) -> None:
    spectral = callback(out=tmp_path / "run")
    crashing = At(7, crash)
    trainer = make_trainer(tmp_path, spectral, crashing, steps=10)
    with pytest.raises(RuntimeError, match="node"):
        trainer.train()
    trainer.remove_callback(crashing)
    trainer.train()
    assert spectral.recording.steps.tolist() == [2, 4, 6, 8, 10, 12, 14, 16]
    assert np.isnan(spectral.recording.products[3, :, 1:]).all()


def test_best_model_evaluation_and_rotation(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    spectral = callback(save_ring=True)
    make_trainer(
        tmp_path,
        spectral,
        save_strategy="steps",
        eval_strategy="steps",
        save_steps=4,
        eval_steps=4,
        eval_on_start=True,
        save_total_limit=1,
        load_best_model_at_end=True,
    ).train()
    assert_same_products(spectral.recording, reference[0])
    assert spectral.recording.metrics["eval_loss"][0].tolist() == [0, 4, 8, 12, 16, 20]
    rings = list((tmp_path / "trainer").rglob("monitor.safetensors"))
    checkpoints = list((tmp_path / "trainer").glob("checkpoint-*"))
    assert sorted(r.parents[1] for r in rings) == sorted(checkpoints)
    assert len(checkpoints) <= 2


def test_evaluation_outside_training_is_left_alone(tmp_path: Path) -> None:
    spectral = callback()
    trainer = make_trainer(tmp_path, spectral, steps=4)
    trainer.evaluate()
    trainer.predict(Samples())
    assert spectral.monitor is None
    with pytest.raises(SettingError, match="Train first"):
        _ = spectral.recording
    trainer.train()
    before = spectral.recording.metrics
    trainer.evaluate()
    assert spectral.recording.metrics.keys() == before.keys()


def test_checkpoints_of_the_trainer_are_analyzed(tmp_path: Path) -> None:
    spectral = callback(save_ring=True)
    make_trainer(tmp_path, spectral, save_strategy="steps", save_steps=2).train()
    live = spectral.recording
    offline = se.analyze(tmp_path / "trainer", window=3, blocks="layer")
    assert offline.steps.tolist() == live.steps[1:].tolist()  # the first update begins before the first checkpoint
    assert set(offline.blocks) == set(live.blocks)
    for block in live.blocks:
        ours = live.products[1:, live.blocks.index(block)]
        theirs = offline.products[:, offline.blocks.index(block)]
        norms = np.sqrt(ours[:, 0])
        for lag in range(ours.shape[1]):
            bound = 1e-12 * norms[lag:] * norms[: len(norms) - lag]
            assert (np.abs(ours[lag:, lag] - theirs[lag:, lag]) <= bound).all()


def test_two_callbacks(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    with pytest.raises(SettingError, match="different names"):
        make_trainer(tmp_path, callback(), callback(every=1), steps=2).train()

    def pair() -> list[SpectralEdgeCallback]:
        return [
            callback(out=tmp_path / "one", save_ring=True),
            callback(out=tmp_path / "two", save_ring=True, name="second", blocks="all", every=3),
        ]

    saving = {"save_strategy": "steps", "save_steps": 4}
    make_trainer(tmp_path, *pair(), steps=8, **saving).train()
    one, two = pair()
    make_trainer(tmp_path, one, two, **saving).train(resume_from_checkpoint=True)
    assert_same_products(one.recording, reference[0])
    expected, _, _ = plain_run(blocks="all", every=3)
    assert expected is not None
    assert_same_products(two.recording, expected)


def test_stops_on_an_event(tmp_path: Path) -> None:
    def event(detector: str) -> None:
        found = se.recording.Event(step=8, block="all", kind="of a test", detector=detector)
        spectral.monitor._watch.tell([found])  # type: ignore[union-attr]  # as a detector's own would be

    seen: list[str] = []
    spectral = callback(stop_on="gap-opening", on_event=lambda e: seen.append(e.detector))
    trainer = make_trainer(
        tmp_path, At(6, lambda: event("gap-collapse")), At(8, lambda: event("gap-opening")), spectral
    )
    trainer.train()
    assert trainer.state.global_step == 8
    assert seen == ["gap-collapse", "gap-opening"]
    assert (tmp_path / "trainer/checkpoint-8").is_dir()
    spectral = callback(stop_on=lambda e: e.step == 8)
    trainer = make_trainer(tmp_path, At(9, lambda: event("gap-collapse")), spectral)
    trainer.train()
    assert trainer.state.global_step == 9


def test_only_the_detectors_that_can_stop_are_started() -> None:
    keywords = [
        SpectralEdgeCallback(stop_on=["gap-opening"])._late.keywords["events"],
        SpectralEdgeCallback(stop_on="gap-opening", events=["coherence-loss"])._late.keywords["events"],
        SpectralEdgeCallback(stop_on="gap-opening", events=True)._late.keywords["events"],
    ]
    assert keywords == [["gap-opening"], ["coherence-loss", "gap-opening"], True]
    heard = SpectralEdgeCallback(stop_on="grokking", on_event=print)._late.keywords["events"]
    assert heard == [*DETECTORS, "grokking"]


@pytest.mark.parametrize(
    "keywords",
    [
        {"windows": 3},
        {"every": 0},
        {"name": "../up"},
        {"name": ""},
        {"stop_on": "groking"},
        {"stop_on": []},
        {"on_event": 3},
    ],
)
def test_mistakes_are_found_at_once(keywords: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        SpectralEdgeCallback(**keywords)


def test_failing_monitor_does_not_stop_training(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    spectral = callback(on_error="disable", save_ring=True)

    def spoil() -> None:
        def start(*args: Any) -> None:
            raise RuntimeError("out of memory")

        spectral.monitor._ring.start = start  # type: ignore[union-attr, method-assign]

    trainer = make_trainer(tmp_path, spectral, At(7, spoil), save_strategy="steps", save_steps=10)
    with pytest.warns(RuntimeWarning, match="training goes on") as caught:
        trainer.train()
    assert len(caught) == 1
    assert spectral.recording.steps.tolist() == [2, 4, 6]
    assert_same_parameters(trainer.model, reference[1])
    assert not (tmp_path / "trainer/checkpoint-20/spectral_edge").exists()  # there is no state to go on from


def test_spoilt_sidecars_do_not_stop_training(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    keywords = {"out": tmp_path / "run", "save_ring": True, "on_error": "disable"}
    folder = tmp_path / "trainer/checkpoint-9"
    spectral = callback(**keywords)
    first = make_trainer(tmp_path, spectral, steps=9, save_strategy="steps", save_steps=9)
    folder.mkdir(parents=True)
    (folder / "spectral_edge").write_text("a file where a folder should be")
    with pytest.warns(RuntimeWarning, match="will have a seam"):
        first.train()
    (folder / "spectral_edge").unlink()
    (folder / "spectral_edge").mkdir()
    (folder / "spectral_edge/monitor.safetensors").write_bytes(b"half of it")
    resumed = make_trainer(tmp_path, callback(**keywords))
    with pytest.warns(RuntimeWarning, match="seam is marked"):
        resumed.train(resume_from_checkpoint=True)
    assert_same_parameters(resumed.model, reference[1])
    _check_seam(se.load(tmp_path / "run"), reference[0], step=9)


def test_ring_of_an_earlier_training_is_removed(tmp_path: Path) -> None:
    saving = {"steps": 2, "save_strategy": "steps", "save_steps": 2}
    make_trainer(tmp_path, callback(save_ring=True), **saving).train()
    ring = tmp_path / "trainer/checkpoint-2/spectral_edge/monitor.safetensors"
    assert ring.exists()
    make_trainer(tmp_path, callback(), **saving).train()
    assert not ring.exists()


def test_restored_by_the_trainer(tmp_path: Path, reference: tuple[se.Recording, Net]) -> None:
    def make() -> SpectralEdgeCallback:
        return callback(out=tmp_path / "run", save_ring=True, params=lambda name, tensor: True, on_error="disable")

    saving = {"save_strategy": "steps", "save_steps": 9}
    make_trainer(tmp_path, make(), steps=9, **saving).train()
    entry = json.loads((tmp_path / "trainer/checkpoint-9/trainer_state.json").read_text())
    assert entry["stateful_callbacks"]["SpectralEdgeCallback"]["args"]["out"] == str(tmp_path / "run")
    trainer = make_trainer(tmp_path, make(), **saving, restore_callback_states_from_checkpoint=True)
    with pytest.warns(RuntimeWarning, match="params cannot"):
        trainer.train(resume_from_checkpoint=True)
    (restored,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, SpectralEdgeCallback))
    assert_same_products(restored.recording, reference[0])
