"""The monitor in real loops: counting, structure, non-finite values, rollback, failures, refusals."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stream_reference import batch, flat, relative_error, small_transformer, train

import spectraledge as se
from spectraledge.errors import DataError, OutputError, SettingError
from spectraledge.stream.pending import Pending
from spectraledge.stream.ring import UpdateRing


def adamw(model: torch.nn.Module, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, **options)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-9)])
@pytest.mark.parametrize("blocks", ["layer", "projection"])
def test_a_real_run_against_stacked_updates(dtype: torch.dtype, tolerance: float, blocks: str) -> None:
    model = small_transformer(dtype=dtype)
    optimizer = adamw(model)
    snapshots = [flat(model)]
    monitor = se.attach(model, optimizer, window=6, every=2, blocks=blocks, on_error="raise")
    train(model, [optimizer], 60, lambda step: snapshots.append(flat(model)) if step % 2 == 0 else None)
    monitor.detach()
    recording = monitor.recording
    updates = torch.stack([b - a for a, b in pairwise(snapshots)])  # in the run's own dtype
    assert recording.steps.tolist() == list(range(2, 61, 2))
    index = recording.blocks.index("all")
    assert relative_error(recording.products[:, index], updates.double().numpy()) < tolerance
    others = [b for b in range(len(recording.blocks)) if b != index]
    np.testing.assert_allclose(
        recording.products[:, others].sum(axis=1), recording.products[:, index], rtol=1e-12, atol=1e-18
    )


def test_singular_values_of_a_real_run_at_every_snapshot_and_block() -> None:
    # full-batch descent is smooth, so its windows have singular values over many orders of magnitude
    model = small_transformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = batch(torch.Generator().manual_seed(4))
    history: list[dict[str, torch.Tensor]] = []

    def keep(step: int = 0) -> None:
        history.append({n: p.detach().double().clone() for n, p in model.named_parameters()})

    keep()
    monitor = se.attach(model, optimizer, window=10, every=1, blocks="layer", on_error="raise")
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        keep()
    monitor.detach()
    recording = monitor.recording
    layers = {i["name"]: list(i["tensors"]) for i in monitor.blocks.info()}  # type: ignore[call-overload]
    n_small = 0
    for block in ["all", *layers]:
        names = [n for n in history[0] if block == "all" or n in layers[block]]
        thetas = torch.stack([torch.cat([h[n].float().reshape(-1) for n in names]) for h in history])
        delta = (thetas[1:] - thetas[:-1]).double().numpy()
        spectra = recording.spectra(10, block=block)
        for n, step in enumerate(spectra.steps):
            direct = np.linalg.svd(delta[step - 10 : step], compute_uv=False)
            wanted = direct >= 1e-5 * direct[0]
            n_small += int((direct < 1e-2 * direct[0]).sum())
            assert spectra.resolved[n][wanted].all()
            np.testing.assert_allclose(spectra.singular_values[n][wanted], direct[wanted], rtol=1e-4)
    assert n_small > 50  # the claim was put to the test


def test_accumulation_counts_optimizer_steps() -> None:
    model = small_transformer()
    optimizer = adamw(model)
    monitor = se.attach(model, optimizer, window=3, every=2, on_error="raise")
    generator = torch.Generator().manual_seed(0)
    for micro in range(24):
        x, y = batch(generator)
        torch.nn.functional.cross_entropy(model(x), y).backward()
        if micro % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    assert monitor.step == 6
    assert monitor.recording.steps.tolist() == [2, 4, 6]
    monitor.detach()


def test_learning_rates_and_decay_are_summed_over_the_interval() -> None:
    model = small_transformer(dtype=torch.float64)
    optimizer = adamw(model)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=12)
    monitor = se.attach(model, optimizer, window=3, every=3, decay_products=True, on_error="raise")
    rates, decay, thetas = [], torch.zeros(flat(model).numel(), dtype=torch.float64), [flat(model)]
    decays = []
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 13):
        x, y = batch(generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        rates.append(schedule.get_last_lr()[0])
        decay = decay - rates[-1] * 0.1 * flat(model)
        optimizer.step()
        schedule.step()
        if step % 3 == 0:
            thetas.append(flat(model))
            decays.append(decay)
            decay = torch.zeros_like(decay)
    recording = monitor.recording
    monitor.detach()
    np.testing.assert_allclose(recording.lr_sum[:, 0], np.array(rates).reshape(4, 3).sum(axis=1), rtol=1e-14)
    delta = [b - a for a, b in pairwise(thetas)]
    a = recording.blocks.index("all")
    assert recording.decay_products is not None
    for t in range(4):
        for lag in range(t + 1):
            wanted = float(decays[t] @ delta[t - lag])
            assert recording.decay_products[t, a, lag] == pytest.approx(wanted, rel=1e-10)


def test_coupled_decay_is_refused() -> None:
    model = small_transformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    with pytest.raises(SettingError, match=r"SGD couples its weight_decay=0.1 into the gradient"):
        se.attach(model, optimizer, decay_products=True)


def test_two_players_that_alternate_unevenly() -> None:
    a, b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    both = torch.nn.ModuleList([a, b])
    first, second = torch.optim.SGD(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.1)
    monitor = se.attach(both, [first, second], window=3, every=1, on_error="raise")
    for _ in range(4):
        for _ in range(3):
            first.zero_grad()
            a(torch.ones(2, 4)).square().sum().backward()
            first.step()
        second.zero_grad()
        b(torch.ones(2, 4)).square().sum().backward()
        second.step()
    # a | a | a b, four times: a step of the first alone ends when it steps again
    assert monitor.recording.steps.tolist() == list(range(1, 13))
    monitor.detach()


def test_nan_in_a_run_is_a_flag_an_event_and_no_number() -> None:
    model = small_transformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    monitor = se.attach(model, optimizer, window=4, every=1, on_error="raise")

    def poison(step: int) -> None:
        if step == 10:
            with torch.no_grad():
                model.norm.weight[0] = float("nan")
        if step == 12:
            with torch.no_grad():
                for p in model.parameters():
                    p.nan_to_num_(nan=0.1)

    train(model, [optimizer], 30, poison)
    monitor.detach()
    recording = monitor.recording
    assert "nonfinite" in recording.flags[10]
    assert "nonfinite" in recording.flags[12]  # the update back from NaN is not a number either
    assert [e.kind for e in recording.events] == ["nonfinite"] * len(recording.events)
    assert recording.events[0].step == 11
    spectra = recording.spectra(4)
    bad = np.isnan(spectra.singular_values).any(axis=1)
    assert bad.any()
    assert not bad[-1]
    assert (spectra.gap().position[bad] == 0).all()
    assert not spectra.resolved[bad].any()
    # windows that hold no update to or from a NaN are untouched: update t has step t + 1
    poisoned = {t for t in range(30) if np.isnan(recording.products[t, recording.blocks.index("all"), 0])}
    for n in range(len(bad)):
        assert bad[n] == bool(poisoned & set(range(n, n + 4)))


def test_no_movement_is_said() -> None:
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = se.attach(model, optimizer, window=3, every=1, on_error="raise")
    for _ in range(8):
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    monitor.detach()
    recording = monitor.recording
    assert all("zero_update" in flags for flags in recording.flags)
    assert recording.unchanged[0, recording.blocks.index("all")] == 12
    spectra = recording.spectra(3)
    assert not spectra.resolved.any()
    assert (spectra.gap("plain").position == 0).all()


@pytest.mark.parametrize("change", ["freeze", "unfreeze", "add", "resize"])
def test_structure_changes_open_a_segment(change: str, caplog: pytest.LogCaptureFixture) -> None:
    model = small_transformer()
    if change == "unfreeze":
        model.embed.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    monitor = se.attach(model, optimizer, window=3, every=1, on_error="raise")

    def alter(step: int) -> None:
        if step == 12:
            if change == "freeze":
                model.embed.requires_grad_(False)
            elif change == "unfreeze":
                model.embed.requires_grad_(True)
            elif change == "add":
                model.extra = torch.nn.Parameter(torch.ones(3))
            else:
                model.norm.weight = torch.nn.Parameter(torch.ones(16, 1).squeeze(1)[:16].repeat(1))
                model.norm = torch.nn.LayerNorm((1, 16))  # same numbers, another shape
                model.norm.forward = lambda x, n=model.norm: torch.nn.functional.layer_norm(  # type: ignore[method-assign]
                    x, (16,), n.weight[0], n.bias[0]
                )

    train(model, [optimizer], 24, alter)
    monitor.detach()
    recording = monitor.recording
    assert len(recording.meta["segments"]) == 2
    reason = recording.meta["segments"][1]["reason"]
    expected = {"freeze": "no longer trained", "unfreeze": "now trained", "add": "extra", "resize": "resized"}
    assert expected[change] in reason
    assert reason in caplog.text
    # step 13's update is not formed: its two snapshots are of different vectors
    assert recording.steps.tolist() == [*range(1, 13), *range(14, 25)]
    assert np.isnan(recording.products[12, :, 1:]).all()  # and nothing joins across


def test_rollback_is_a_rewind() -> None:
    model = small_transformer()
    optimizer = adamw(model)
    monitor = se.attach(model, optimizer, window=3, every=1, on_error="raise")
    saved: dict[str, Any] = {}

    def keep(step: int) -> None:
        monitor.log(loss=step)
        if step == 10:
            saved["m"] = {k: v.clone() for k, v in model.state_dict().items()}
            saved["o"] = json.loads(json.dumps({}))
            saved["o"] = torch.utils._pytree.tree_map(
                lambda v: v.clone() if isinstance(v, torch.Tensor) else v, optimizer.state_dict()
            )

    train(model, [optimizer], 20, keep)
    model.load_state_dict(saved["m"])
    optimizer.load_state_dict(saved["o"])
    train(model, [optimizer], 6, lambda step: monitor.log(loss=100 + step))
    monitor.detach()
    recording = monitor.recording
    assert recording.steps.tolist() == list(range(1, 17))
    assert np.isnan(recording.products[10, :, 1:]).all()
    assert "seam" in recording.flags[10]
    assert recording.metrics["loss"][1].tolist() == [*range(1, 11), *range(101, 107)]


def test_rollback_past_a_change_of_structure() -> None:
    model = small_transformer()
    optimizer = adamw(model)
    monitor = se.attach(model, optimizer, window=3, every=1, on_error="raise")
    saved: dict[str, Any] = {}

    def keep(step: int) -> None:
        if step == 10:
            saved["o"] = torch.utils._pytree.tree_map(
                lambda v: v.clone() if isinstance(v, torch.Tensor) else v, optimizer.state_dict()
            )
        if step == 12:
            model.embed.requires_grad_(False)

    train(model, [optimizer], 20, keep)
    optimizer.load_state_dict(saved["o"])
    train(model, [optimizer], 6)
    monitor.detach()
    recording = monitor.recording
    assert recording.report.n_rejected == 0
    assert recording.steps.tolist() == list(range(1, 17))
    assert np.isnan(recording.products[10, :, 1:]).all()
    reasons = [segment["reason"] for segment in recording.meta["segments"]]
    assert reasons == ["start", "rewound to before the last change of structure"]
    assert "embed" not in recording.meta["segments"][1]["blocks"]


def test_state_loaded_after_attaching() -> None:
    model = small_transformer()
    optimizer = adamw(model)
    train(model, [optimizer], 7)
    weights, state = model.state_dict(), optimizer.state_dict()
    model = small_transformer(seed=5)
    optimizer = adamw(model)
    monitor = se.attach(model, optimizer, window=3, every=1, on_error="raise")
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    before = flat(model)
    train(model, [optimizer], 4)
    monitor.detach()
    recording = monitor.recording
    assert recording.steps.tolist() == [8, 9, 10, 11]
    total = float((flat(model) - before).norm())
    assert np.sqrt(recording.products[:, 0, 0]).sum() >= total  # no jump to the loaded weights in it
    assert np.sqrt(recording.products[0, 0, 0]) <= total * 2


class TestResume:
    def interrupted(self, folder: Path, *, ring: bool, every: int, stop: int) -> Any:
        model = small_transformer()
        optimizer = adamw(model)
        monitor = se.attach(
            model, optimizer, window=4, every=every, out=folder, decay_products=True, on_error="raise"
        )
        saved: dict[str, Any] = {}

        def keep(step: int) -> None:
            monitor.log(loss=step)
            if step == stop:
                saved["m"] = {k: v.clone() for k, v in model.state_dict().items()}
                saved["o"] = torch.utils._pytree.tree_map(
                    lambda v: v.clone() if isinstance(v, torch.Tensor) else v, optimizer.state_dict()
                )
                if ring:
                    monitor.save(folder / "monitor.safetensors")

        train(model, [optimizer], stop + 9, keep)  # nine steps that will be lost
        monitor.detach()
        model = small_transformer(seed=9)
        model.load_state_dict(saved["m"])
        optimizer = adamw(model)
        optimizer.load_state_dict(saved["o"])
        monitor = se.attach(
            model, optimizer, window=4, every=every, out=folder, decay_products=True, resume="auto", on_error="raise"
        )
        if ring:
            monitor.load(folder / "monitor.safetensors")
        generator = torch.Generator().manual_seed(1)
        for _ in range(stop):
            batch(generator)
        for step in range(stop + 1, 41):
            x, y = batch(generator)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            monitor.log(loss=step)
        monitor.detach()
        return monitor.recording

    @pytest.mark.parametrize(("every", "stop"), [(1, 17), (3, 17), (3, 18)])
    def test_with_the_ring_it_is_bit_equal(self, tmp_path: Path, every: int, stop: int) -> None:
        model = small_transformer()
        optimizer = adamw(model)
        with se.attach(
            model, optimizer, window=4, every=every, out=tmp_path / "whole", decay_products=True, on_error="raise"
        ) as monitor:
            train(model, [optimizer], 40, lambda step: monitor.log(loss=step))
        resumed = self.interrupted(tmp_path / "cut", ring=True, every=every, stop=stop)
        assert resumed == se.load(tmp_path / "whole")
        assert resumed == se.load(tmp_path / "cut")

    def test_without_the_ring_there_is_a_seam(self, tmp_path: Path) -> None:
        recording = self.interrupted(tmp_path, ring=False, every=3, stop=17)
        # the grid of steps goes on; the update that begins at step 17 is shorter, and flagged
        assert recording.steps.tolist() == list(range(3, 40, 3))
        t = recording.steps.tolist().index(18)
        assert recording.n_steps[t] == 1
        assert {"seam", "uneven"} <= set(recording.flags[t])
        assert np.isnan(recording.products[t, :, 1:]).all()
        assert np.isfinite(recording.products[-1]).all()

    def test_a_step_that_cannot_be_told(self, tmp_path: Path) -> None:
        model = torch.nn.Linear(3, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with se.attach(model, optimizer, window=3, every=1, out=tmp_path, on_error="raise"):
            for _ in range(5):
                model(torch.ones(2, 3)).sum().backward()
                optimizer.step()
        with pytest.raises(SettingError, match="the step must be known; SGD keep no count of steps"):
            se.attach(model, optimizer, window=3, every=1, out=tmp_path, resume="auto")
        with se.attach(
            model, optimizer, window=3, every=1, out=tmp_path, resume="auto", step=3, on_error="raise"
        ) as m:
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        assert m.recording.steps.tolist() == [1, 2, 3, 4]


class TestFailures:
    def test_a_failure_disables_once_and_training_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = small_transformer()
        optimizer = adamw(model)
        monitor = se.attach(model, optimizer, window=3, every=1, out=tmp_path)

        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        train(model, [optimizer], 5)
        monkeypatch.setattr(os, "write", fail)
        with pytest.warns(RuntimeWarning, match="stopped monitoring at step 6; training goes on"):
            train(model, [optimizer], 1)
        train(model, [optimizer], 5)
        monitor.log(loss=1.0)
        monitor.detach()
        monkeypatch.undo()
        assert len(se.load(tmp_path).steps) == 5

    def test_or_raises_where_asked(self) -> None:
        model = small_transformer()
        optimizer = adamw(model)
        monitor = se.attach(model, optimizer, window=3, every=1, on_error="raise")
        with pytest.raises(SettingError, match=r"a metric must be a number; loss is 'low'"):
            monitor.log(loss="low")  # type: ignore[arg-type]
        monitor.detach()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window": 1}, "window must be at least 2; got 1. A single update has no gap"),
            ({"window": 2.5}, "window must be at least 2; got 2.5"),
            ({"every": 0}, "every must be at least 1; got 0"),
            ({"lags": 5}, "lags must be at least window - 1 = 9; got 5"),
            ({"blocks": "layers"}, "blocks must be one of"),
            ({"resume": "yes"}, "resume must be one of"),
            ({"resume": "auto", "overwrite": True}, "exclude each other"),
            ({"on_error": "ignore"}, "on_error must be one of"),
        ],
    )
    def test_arguments(self, options: dict[str, Any], message: str) -> None:
        model = small_transformer()
        with pytest.raises(SettingError, match=message):
            se.attach(model, adamw(model), **options)

    def test_models_and_optimizers(self) -> None:
        model = small_transformer()
        with pytest.raises(SettingError, match=r"optimizer must be a torch\.optim\.Optimizer"):
            se.attach(model, "adam")
        with pytest.raises(SettingError, match="got an empty list"):
            se.attach(model, [])
        with pytest.raises(SettingError, match=r"model must be a torch\.nn\.Module; got dict"):
            se.attach({}, adamw(model))  # type: ignore[arg-type]
        frozen = small_transformer().requires_grad_(False)
        with pytest.raises(SettingError, match="at least one trainable parameter"):
            se.attach(frozen, adamw(model))

    def test_memory_is_refused_with_figures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from spectraledge.stream import cost

        monkeypatch.setattr(cost, "free_memory", lambda device: 400_000)
        model = small_transformer()
        with pytest.raises(SettingError, match=r"need .* kB and cpu has 400 kB free.*fewer lags"):
            se.attach(model, adamw(model))

    def test_folders(self, tmp_path: Path) -> None:
        model = small_transformer()
        se.attach(model, adamw(model), out=tmp_path / "a").detach()
        before = (tmp_path / "a" / "recording.jsonl").read_bytes()
        with pytest.raises(OutputError, match="must not hold a recording yet"):
            se.attach(model, adamw(model), out=tmp_path / "a")
        assert (tmp_path / "a" / "recording.jsonl").read_bytes() == before
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match="file"):
            se.attach(model, adamw(model), out=tmp_path / "file" / "run")
        se.attach(model, adamw(model), out=tmp_path / "a", overwrite=True).detach()
        with pytest.raises(DataError):
            se.load(tmp_path / "nothing")

    def test_a_refused_model_leaves_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError):
            se.attach(torch.nn.ReLU(), adamw(small_transformer()), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_saved_state_that_is_none(self, tmp_path: Path) -> None:
        model = small_transformer()
        monitor = se.attach(model, adamw(model), on_error="raise")
        (tmp_path / "x.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
        with pytest.raises(DataError, match=r"must be a state saved by monitor.save"):
            monitor.load(tmp_path / "x.safetensors")
        with pytest.raises(DataError, match=r"must be a state saved by monitor.save"):
            monitor.load(tmp_path / "missing.safetensors")
        monitor.detach()


def test_two_monitors_and_detaching_midway() -> None:
    model = small_transformer()
    optimizer = adamw(model)
    first = se.attach(model, optimizer, window=3, every=1, on_error="raise")
    second = se.attach(model, optimizer, window=3, every=2, params="encoder", on_error="raise")
    train(model, [optimizer], 6)
    first.detach()
    train(model, [optimizer], 4)
    second.detach()
    assert first.recording.n_updates == 6
    assert second.recording.steps.tolist() == [2, 4, 6, 8, 10]
    assert second.recording.blocks == ["all", "encoder.layers.0", "encoder.layers.1"]


def test_wrappers_leave_names_alone() -> None:
    model = small_transformer()
    wrapped = torch.nn.DataParallel(model, device_ids=[])  # puts "module." in front, as other wrappers do
    optimizer = adamw(model)
    monitor = se.attach(wrapped, optimizer, window=3, every=1, on_error="raise")
    assert monitor.blocks.names == se.attach(model, optimizer, window=3, on_error="raise").blocks.names


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's compiler
def test_compiled_model_and_compiled_optimizer_step() -> None:
    # the "eager" backend traces as every other does and generates no code; fullgraph: the model has no graph break
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    optimizer = adamw(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    step = torch.compile(optimizer.step, backend="eager")
    monitor = se.attach(compiled, optimizer, window=3, every=1, decay_products=True, on_error="raise")
    for _ in range(6):
        optimizer.zero_grad()
        compiled(torch.ones(4, 6)).square().sum().backward()
        step()
    monitor.detach()
    assert monitor.blocks.names == ("0", "2")
    assert monitor.recording.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert not any(monitor.recording.flags)


def test_process_groups_are_refused(tmp_path: Path) -> None:
    model = small_transformer()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    try:
        se.attach(model, adamw(model), on_error="raise").detach()  # one rank is fine
    finally:
        torch.distributed.destroy_process_group()


def test_plan_says_what_it_costs_and_keeps_to_it() -> None:
    model = small_transformer()
    monitor = se.attach(model, adamw(model), window=10, every=100)
    n = sum(p.numel() for p in model.parameters())
    assert monitor.plan.n_parameters == n
    assert monitor.plan.ring_bytes == n * 4 * 20 == sum(t.nbytes for t in monitor._ring.state_tensors().values())
    assert "20 lags" not in str(monitor.plan)
    assert "19 lags" in str(monitor.plan)
    monitor.detach()
    assert se.plan(124_000_000, window=10, n_blocks=14).ring_bytes == 124_000_000 * 4 * 20
    with pytest.raises(SettingError, match="n_parameters must be at least 1; got 0"):
        se.plan(0)


class TestSumsThatAreStillOnTheirWay:
    """What CUDA does, acted out: sums are fetched only when somebody asks for them."""

    @pytest.fixture
    def fetched(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Steps at which sums were waited for."""
        waits: list[int] = []
        start = UpdateRing.start

        def later(ring: UpdateRing, tensors: Any) -> Pending:
            number, sums = ring.n_appended + 1, start(ring, tensors).result()

            def finish() -> np.ndarray:
                waits.append(number)
                return sums

            return Pending(finish)

        monkeypatch.setattr(UpdateRing, "start", later)
        return waits

    def run(self, out: Path | None = None, **options: Any) -> tuple[Any, list[int]]:
        """Recording of 30 steps, and the rows that were written by the end of each."""
        model = small_transformer()
        optimizer = adamw(model)
        monitor = se.attach(model, optimizer, window=4, every=3, out=out, on_error="raise", **options)
        written: list[int] = []
        monitor.on_record(lambda kind, fields: written.append(fields["step"]) if kind == "row" else None)
        seen = []

        def look(step: int) -> None:
            seen.append(len(written))
            if step == 20:
                monitor.log(loss=0.5)

        train(model, [optimizer], 30, look)
        monitor.detach()
        return monitor.recording, seen

    def test_no_step_waits_and_the_recording_is_the_same(
        self, fetched: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recording, seen = self.run(decay_products=True)
        assert fetched == list(range(1, 11))
        # each row comes with the next snapshot; the sixth with the metrics that follow it in the file
        assert seen == [0] * 5 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3 + [6] * 3 + [7] * 3 + [8] * 3 + [9]
        monkeypatch.undo()
        at_once, _ = self.run(decay_products=True)
        assert recording == at_once

    @pytest.mark.parametrize("ask", ["recording", "state_dict"])
    def test_whoever_asks_gets_everything(self, fetched: list[int], ask: str) -> None:
        model = small_transformer()
        optimizer = adamw(model)
        monitor = se.attach(model, optimizer, window=4, every=3, on_error="raise")
        train(model, [optimizer], 7)
        assert fetched == [1]
        if ask == "recording":
            assert monitor.recording.steps.tolist() == [3, 6]
        else:
            assert monitor.state_dict()["t"] == 2
        assert fetched == [1, 2]
        train(model, [optimizer], 2)
        monitor.detach()
        assert monitor.recording.steps.tolist() == [3, 6, 9]

    def test_a_change_of_structure_comes_behind_it(self, fetched: list[int]) -> None:
        model = small_transformer()
        optimizer = adamw(model)
        monitor = se.attach(model, optimizer, window=4, every=2, on_error="raise")
        train(model, [optimizer], 5)
        next(model.parameters()).requires_grad_(False)
        train(model, [optimizer], 5)
        monitor.detach()
        recording = monitor.recording
        assert recording.steps.tolist() == [2, 4, 8, 10]
        assert recording.segment.tolist() == [0, 0, 1, 1]

    def test_a_failure_on_the_way_disables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(ring: UpdateRing, tensors: Any) -> Pending:
            def finish() -> np.ndarray:
                raise RuntimeError("device lost")

            return Pending(finish)

        monkeypatch.setattr(UpdateRing, "start", broken)
        model = small_transformer()
        optimizer = adamw(model)
        monitor = se.attach(model, optimizer, window=4, every=2)
        with pytest.warns(RuntimeWarning, match="device lost"):
            train(model, [optimizer], 8)
        monitor.detach()


def test_counts_on_an_accelerator_are_read_only_with_a_scaler() -> None:
    class Accelerated(torch.Tensor):
        """A count that must not be read."""

        @property
        def device(self) -> Any:  # type: ignore[override]
            return torch.device("cuda")

        def __int__(self) -> int:
            raise AssertionError("waited for the device")

    model = torch.nn.Linear(2, 1)
    optimizer = adamw(model)
    monitor = se.attach(model, optimizer, window=2, every=1, on_error="raise")
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["step"] = state["step"].as_subclass(Accelerated)
    assert monitor._counter.reconcile() == 1
    monitor._counter._scaled = True
    with pytest.raises(AssertionError, match="waited"):
        monitor._counter.reconcile()
    monitor.detach()
