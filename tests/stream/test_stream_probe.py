"""Probes against explicit vectors; that they change nothing; that they survive kills and failures."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import spectraledge as se
from spectraledge.curvature import undisturbed
from spectraledge.errors import SettingError
from spectraledge.recording import ProbeRecord

WINDOW = 4


class Run:
    """A small network trained on fixed data, whole vectors kept, with or without probes."""

    def __init__(
        self, *, probe: bool = True, out: Path | None = None, dtype: torch.dtype = torch.float64, **kw
    ) -> None:
        torch.manual_seed(5)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 3)
        ).to(dtype)
        self.x, self.y = torch.randn(48, 6).to(dtype), torch.randint(3, (48,))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, weight_decay=0.1)
        options = {"span": 2, "random": 1, "next_gradients": True, **kw.pop("options", {})}
        settings = se.Probe(train=self.train_loss, val=self.val_loss, **options) if probe else None
        self.monitor = se.attach(
            self.model,
            self.optimizer,
            window=WINDOW,
            every=2,
            probe=settings,
            probe_every=4 if probe else None,
            out=out,
            on_error=kw.pop("on_error", "raise"),
            **kw,
        )
        self.thetas: dict[int, torch.Tensor] = {0: self.flat()}

    def train_loss(self, model: torch.nn.Module) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(self.x[:32]), self.y[:32])

    def val_loss(self, model: torch.nn.Module) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(self.x[32:]), self.y[32:])

    def flat(self) -> torch.Tensor:
        return torch.cat([p.detach().reshape(-1).clone() for p in self.model.parameters()])

    def steps(self, n: int, start: int = 0) -> Run:
        for i in range(start, start + n):
            self.optimizer.zero_grad()
            rows = torch.randint(32, (16,))
            torch.nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()
            self.thetas[i + 1] = self.flat()
        return self

    def gradient(self, theta: torch.Tensor, loss: str) -> torch.Tensor:
        """Gradient at another point, by brute force."""
        now = self.flat()
        torch.nn.utils.vector_to_parameters(theta, self.model.parameters())
        with undisturbed(self.model):
            grads = torch.autograd.grad(getattr(self, f"{loss}_loss")(self.model), list(self.model.parameters()))
        torch.nn.utils.vector_to_parameters(now, self.model.parameters())
        return torch.cat([g.reshape(-1) for g in grads])

    def hessian_product(self, theta: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        e = 1e-5
        return (self.gradient(theta + e * v, "train") - self.gradient(theta - e * v, "train")) / (2 * e)


def updates(run: Run, step: int, n: int) -> torch.Tensor:
    """(n, P) the newest n updates at a snapshot, newest first."""
    return torch.stack([run.thetas[step - 2 * i] - run.thetas[step - 2 * i - 2] for i in range(n)])


@pytest.fixture(scope="module")
def run() -> Run:
    return Run().steps(24)


def test_probes_are_made_on_schedule(run: Run) -> None:
    probes = run.monitor.recording.probes
    assert [p.step for p in probes] == [8, 12, 16, 20, 24]  # the first window of four updates is full at step 8
    assert [p.next_step for p in probes] == [10, 14, 18, 22, -1]
    assert probes[0].directions == ("mode/1", "mode/2", "mode/3", "mode/4", "span/1", "span/2", "random/1")


@pytest.mark.parametrize("index", [0, 3])
def test_everything_equals_explicit_vectors(run: Run, index: int) -> None:
    recording = run.monitor.recording
    probe = recording.probes[index]
    theta = run.thetas[probe.step]
    deltas = updates(run, probe.step, WINDOW)
    train, val = run.gradient(theta, "train"), run.gradient(theta, "val")
    state = [run.optimizer.state[p] for p in run.model.parameters()]
    assert state  # at the last step; only the last probe's metric can be recomputed from it
    for name, vector in (("train", train), ("val", val)):
        np.testing.assert_allclose(probe.on_updates(name)[:WINDOW], (deltas @ vector).numpy(), rtol=1e-9, atol=1e-13)
    assert probe.dot("train", "val") == pytest.approx(float(train @ val), rel=1e-9)
    assert probe.dot("val", "theta") == pytest.approx(float(val @ theta), rel=1e-9)
    # what came next
    after = run.thetas[probe.next_step]
    delta = after - theta
    assert probe.on_next("val") == pytest.approx(float(val @ delta), rel=1e-9)
    assert probe.on_next("train") == pytest.approx(float(train @ delta), rel=1e-9)
    assert probe.next_gradient_products is not None
    next_val = float(run.gradient(after, "val") @ delta)
    assert probe.next_gradient_products[1].sum() == pytest.approx(next_val, rel=1e-9)
    # modes: v_j by an explicit SVD of the stacked updates
    vt = torch.linalg.svd(deltas, full_matrices=False)[2]
    for j in range(4):
        v = vt[j]
        ours = torch.tensor(probe.coefficients[j]) @ deltas
        assert abs(float(ours @ v)) == pytest.approx(1, abs=1e-9)
        h = run.hessian_product(theta, ours)
        assert probe.curvature[j] == pytest.approx(float(ours @ h), rel=1e-5, abs=1e-9)
        on_updates = probe.hessian_products[j].sum(axis=0)[:WINDOW]
        np.testing.assert_allclose(on_updates, (deltas @ h).numpy(), rtol=1e-4, atol=1e-9)
        assert probe.hessian_norm2[j] == pytest.approx(float(h @ h), rel=1e-5)
    for j in (4, 5):  # in the span of the modes, by linearity
        d = torch.tensor(probe.coefficients[j]) @ deltas
        assert float(d.norm()) == pytest.approx(1, rel=1e-9)
        assert probe.curvature[j] == pytest.approx(float(d @ run.hessian_product(theta, d)), rel=1e-5, abs=1e-9)
    assert np.isnan(probe.coefficients[6]).all()
    gram = recording.gram(WINDOW)[1][probe.t - WINDOW + 1]
    matrix = probe.hessian_in_modes(gram)
    np.testing.assert_allclose(np.abs(np.diag(matrix)), np.abs(probe.curvature[:4]), rtol=1e-6)
    np.testing.assert_allclose(np.abs(matrix), np.abs(matrix.T), rtol=1e-3, atol=1e-8)


def test_the_metric_of_the_optimizer(run: Run) -> None:
    probe = run.monitor.recording.probes[-1]
    deltas = updates(run, probe.step, WINDOW)
    inverse, direction = [], []
    for p in run.model.parameters():
        s = run.optimizer.state[p]
        root = (s["exp_avg_sq"] / (1 - 0.999**24)).sqrt() + 1e-8
        inverse.append((1 / root).reshape(-1))
        direction.append((s["exp_avg"] / (1 - 0.9**24) / root).reshape(-1))
    metric = torch.cat(inverse)
    theta = run.thetas[24]
    gradient = run.gradient(theta, "train")
    tilted = deltas @ (metric * gradient)
    np.testing.assert_allclose(probe.on_updates("preconditioned")[:WINDOW], tilted.numpy(), rtol=1e-8)
    np.testing.assert_allclose(
        probe.on_updates("direction")[:WINDOW], (deltas @ torch.cat(direction)).numpy(), rtol=1e-8
    )
    v = torch.tensor(probe.coefficients[0]) @ deltas
    expected = float((metric * v) @ run.hessian_product(theta, v))
    assert probe.preconditioned_curvature[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["difference", "exact"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bit_equal_with_and_without(method: str, dtype: torch.dtype) -> None:
    def replicate(model, optimizers, n_steps, copy) -> None:
        torch.manual_seed(copy)
        for _ in range(n_steps):
            optimizers[0].zero_grad()
            model(torch.randn(8, 6, dtype=dtype)).square().mean().backward()
            optimizers[0].step()

    options = {"curvature": method, "eigenvalues": 1, "replicate": replicate}
    runs = [Run(probe=probe, dtype=dtype, options=options).steps(20) for probe in (False, True)]
    assert len(runs[1].monitor.recording.probes) == 4
    for step in runs[0].thetas:
        assert torch.equal(runs[0].thetas[step], runs[1].thetas[step])
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
        for key, value in runs[0].optimizer.state[a].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(runs[1].optimizer.state[b][key]))
    assert torch.equal(*[torch.rand(3) for _ in (0,)] * 2)
    bands = [r.monitor.recording.products for r in runs]
    np.testing.assert_array_equal(*bands)


def test_methods_agree_in_float32() -> None:
    probes = [
        Run(dtype=torch.float32, options={"curvature": m}).steps(24).monitor.recording.probes
        for m in ("difference", "exact")
    ]
    for a, b in zip(*probes, strict=True):
        assert (a.method, b.method) == ("difference", "exact")
        scale = np.abs(b.curvature).max()
        np.testing.assert_allclose(a.curvature, b.curvature, rtol=1e-2, atol=1e-2 * scale)


def test_replicates_are_two_continuations_and_leave_no_hooks() -> None:
    seen = []

    def replicate(model, optimizers, n_steps, copy) -> None:
        seen.append((n_steps, copy))
        for _ in range(n_steps):
            optimizers[0].zero_grad()
            model(torch.ones(4, 6, dtype=torch.float64) * (copy + 1)).square().mean().backward()
            optimizers[0].step()

    run = Run(options={"replicate": replicate, "modes": 0, "span": 0, "random": 0}).steps(12)
    recording = run.monitor.recording
    assert seen == [(2, 0), (2, 1)] * 2
    assert len(recording.steps) == 6  # the copies' steps were not recorded
    gram = recording.probes[0].replicate_gram
    assert gram is not None
    total = gram.sum(axis=0)
    assert total[0, 0] > 0
    assert total[0, 1] ** 2 <= total[0, 0] * total[1, 1] * (1 + 1e-12)
    assert recording.probes[0].directions == ()


def test_saved_loaded_and_merged(tmp_path: Path, run: Run) -> None:
    recording = run.monitor.recording
    recording.save(tmp_path / "copy")
    assert se.load(tmp_path / "copy").equals(recording)
    recording.merged().save(tmp_path / "merged")
    merged = se.load(tmp_path / "merged")
    assert merged.blocks == ["all"]
    spectra = [r.spectra(WINDOW) for r in (recording, merged)]
    np.testing.assert_array_equal(spectra[0].singular_values, spectra[1].singular_values)
    for whole, one in zip(recording.probes, merged.probes, strict=True):
        np.testing.assert_allclose(whole.on_updates("train"), one.on_updates("train"), rtol=1e-12)
        assert one.dot("val", "theta") == pytest.approx(whole.dot("val", "theta"), rel=1e-12)
        np.testing.assert_array_equal(whole.curvature, one.curvature)
    kept = recording.merged({name: [name] for name in recording.blocks[1:]})
    for whole, one in zip(recording.probes, kept.probes, strict=True):
        assert one.blocks == whole.blocks
        np.testing.assert_array_equal(one.gradient_products, whole.gradient_products)
        np.testing.assert_array_equal(one.gradient_gram, whole.gradient_gram)


@pytest.mark.parametrize("at", [8, 9, 11, 12])
def test_killed_and_resumed_is_the_same(tmp_path: Path, at: int) -> None:
    """Also where a probe waits for the next update when the state is saved."""
    whole = Run(out=tmp_path / "whole").steps(24)
    whole.monitor.detach()
    first = Run(out=tmp_path / "cut").steps(at)
    state = {
        "model": {k: v.clone() for k, v in first.model.state_dict().items()},
        "optimizer": copy.deepcopy(first.optimizer.state_dict()),
        "rng": torch.get_rng_state(),
    }
    first.monitor.save(tmp_path / "monitor.safetensors")
    first.steps(5, at)  # lost work, which the rewind takes back
    first.monitor._writer.close()
    second = Run(out=tmp_path / "cut", resume="auto")
    second.model.load_state_dict(state["model"])
    second.optimizer.load_state_dict(state["optimizer"])
    second.monitor.load(tmp_path / "monitor.safetensors")
    torch.set_rng_state(state["rng"])
    second.steps(24 - at, at)
    second.monitor.detach()
    assert se.load(tmp_path / "cut").equals(se.load(tmp_path / "whole"))


def test_a_failing_probe_ends_probing_and_not_the_recording() -> None:
    run = Run(on_error="disable")
    run.steps(8)
    run.y = run.y[:10]  # the losses now fail
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(8):
            run.optimizer.zero_grad()
            run.model(run.x).square().mean().backward()
            run.optimizer.step()
    messages = [str(w.message) for w in caught if "spectraledge" in str(w.message)]
    assert len(messages) == 1
    assert "stopped probing at step 10; training and recording go on" in messages[0]
    assert len(run.monitor.recording.steps) == 8
    assert len(run.monitor.recording.probes) == 1


def test_arguments_are_checked() -> None:
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = se.Probe(train=lambda m: m(torch.ones(1, 3)).sum())
    with pytest.raises(SettingError, match="probe_every needs a probe; got probe_every=100 alone"):
        se.attach(model, optimizer, probe_every=100)
    with pytest.raises(SettingError, match=r"multiple of every.*got 150 and 100. Use probe_every=200"):
        se.attach(model, optimizer, probe=probe, probe_every=150)
    with pytest.raises(SettingError, match="lags >= window; got 9 and 10"):
        se.attach(model, optimizer, probe=probe, lags=9)
    with pytest.raises(SettingError, match=r"must be a spectraledge.Probe; got function"):
        se.attach(model, optimizer, probe=lambda m: m)
    with pytest.raises(SettingError, match="functions from the model to a scalar loss"):
        se.Probe(train=3.0)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="modes must be at least 0; got -1"):
        se.Probe(train=lambda m: m, modes=-1)


def test_the_plan_announces_the_cost() -> None:
    probe = se.Probe(train=lambda m: m, val=lambda m: m)
    plan = se.plan(1000, probe=probe, probe_every=500)
    assert plan.probe_evaluations == pytest.approx(10 + 1 / 3)
    assert "a probe every 500 steps at 10.3 gradient evaluations" in str(plan)
    assert "probe" not in str(se.plan(1000))
    assert se.plan(1000, probe=dataclasses.replace(probe, eigenvalues=1)).probe_bytes > plan.probe_bytes


def test_sgd_without_momentum_has_no_direction_of_its_own() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.randn(16, 5).double()
    probe = se.Probe(train=lambda m: (m(x) - 1).square().mean(), modes=2, span=0)
    with se.attach(model, optimizer, window=3, every=1, probe=probe, probe_every=1, on_error="raise") as monitor:
        for _ in range(8):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
    record: ProbeRecord = monitor.recording.probes[0]
    assert record.vectors == ("train", "preconditioned")
    np.testing.assert_array_equal(record.on_updates("train"), record.on_updates("preconditioned"))
    np.testing.assert_allclose(record.curvature, record.preconditioned_curvature, rtol=1e-12)
    assert np.isnan(record.val_loss)
    assert np.isnan(record.on_next("val"))


def test_bfloat16_parameters_take_the_exact_method() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 2).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    x = torch.randn(16, 5).bfloat16()
    probe = se.Probe(train=lambda m: (m(x) - 1).square().mean(), modes=2)
    with se.attach(model, optimizer, window=3, every=1, probe=probe, probe_every=1, on_error="raise") as monitor:
        for _ in range(6):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
    probes = monitor.recording.probes
    assert probes
    assert all(p.method == "exact" for p in probes)
