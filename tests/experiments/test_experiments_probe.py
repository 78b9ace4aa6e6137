"""Probes of catalogued runs, in the world where every answer is known and on a real transformer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import spectraledge as se
from spectraledge.errors import SettingError
from spectraledge.experiments.config import configure
from spectraledge.experiments.settings import QuadraticSettings
from spectraledge.experiments.tasks.quadratic_world import QuadraticWorld, quadratic_world
from spectraledge.recording import ProbeRecord, Recording
from spectraledge.theory.linear_descent import descent_path, rest_point
from spectraledge.theory.loss import in_sample_contributions, out_of_sample_contributions, second_order_term
from spectraledge.theory.spectrum import gram_spectrum

WINDOW, EVERY = 5, 4
OPTIONS = {"eigenvalues": "2,1,0.5,0.2,0.1,0.05,0.02", "lr": 0.1, "weight_decay": 0.05, "steps": 80}


def exact_run(**options: object) -> tuple[Recording, QuadraticWorld, QuadraticSettings]:
    values = {**OPTIONS, **options}
    recording = se.run(
        "quadratic", settings=values, window=WINDOW, every=EVERY, probe_every=8, probe={"modes": 3, "eigenvalues": 2}
    )
    settings = QuadraticSettings(**values)  # type: ignore[arg-type]
    return recording, quadratic_world(settings), settings


@pytest.fixture(scope="module")
def descent() -> tuple[Recording, QuadraticWorld, QuadraticSettings]:
    return exact_run(optimizer="gd")


def path(world: QuadraticWorld, settings: QuadraticSettings, step: int) -> np.ndarray:
    """Parameters after ``step`` steps of gradient descent, by the closed form in the modes of H."""
    q = world.modes
    steps = descent_path(
        q.T @ world.start,
        world.curvatures,
        settings.lr,
        np.array([step]),
        weight_decay=settings.weight_decay,
        optimum=q.T @ world.optimum,
    )
    return q @ np.reshape(steps, (-1, len(q)))[-1]


def updates(world: QuadraticWorld, settings: QuadraticSettings, step: int, n: int) -> np.ndarray:
    """(n, P) the newest n updates at ``step``, newest first."""
    thetas = [path(world, settings, step - EVERY * i) for i in range(n + 1)]
    return np.array([thetas[i] - thetas[i + 1] for i in range(n)])


def test_curvature_and_gradients_of_the_exact_world(descent) -> None:
    recording, world, settings = descent
    assert len(recording.probes) == 8
    for probe in recording.probes:
        theta = path(world, settings, probe.step)
        deltas = updates(world, settings, probe.step, WINDOW)
        train, val = world.hessian @ (theta - world.optimum), world.hessian @ (theta - world.val_optimum)
        scale = np.linalg.norm(deltas, axis=1)
        for name, gradient in (("train", train), ("val", val)):
            error = np.abs(probe.on_updates(name)[:WINDOW] - deltas @ gradient)
            assert (error <= 1e-8 * scale * np.linalg.norm(gradient)).all()
        for j in range(3):
            v = probe.coefficients[j] @ deltas
            v /= np.linalg.norm(v)
            assert probe.curvature[j] == pytest.approx(v @ world.hessian @ v, rel=1e-6)
        np.testing.assert_allclose(probe.eigenvalues, [2, 1], rtol=1e-2)  # the tolerance at which Lanczos stops
        assert probe.preconditioned_curvature[0] == pytest.approx(probe.curvature[0], rel=1e-12)  # SGD: P = 1


def test_the_loss_identity_in_sample(descent) -> None:
    """sum_j c_j + remainder = <g, delta_t> to 1e-12; with - delta^T H delta / 2 it is the change of loss (R8)."""
    recording, world, settings = descent
    steps, grams = recording.gram(WINDOW)
    for probe in recording.probes:
        gram = grams[np.searchsorted(steps, probe.step)]
        products = probe.on_updates("val")[:WINDOW][::-1]
        contributions, remainder = in_sample_contributions(products, gram, update_eps=recording.update_eps)
        total = np.nansum(contributions) + remainder
        assert abs(total - products[-1]) <= 1e-12 * np.abs(products).max()
        delta = updates(world, settings, probe.step, 1)[0]
        theta = path(world, settings, probe.step)
        second = second_order_term(delta @ world.hessian @ delta, gradient_at="end")
        change = loss(world, theta) - loss(world, theta - delta)
        assert total + second == pytest.approx(change, rel=1e-8)
        assert float(second) < 0


def test_the_loss_identity_out_of_sample(descent) -> None:
    """<g(theta_t), delta_{t+1}> + delta^T H delta / 2 is the change of loss exactly: the loss is quadratic (R8)."""
    recording, world, settings = descent
    steps, grams = recording.gram(WINDOW)
    n = 0
    for probe in recording.probes:
        if probe.next_products is None:
            continue
        n += 1
        delta = path(world, settings, probe.next_step) - path(world, settings, probe.step)
        second = float(second_order_term(delta @ world.hessian @ delta, gradient_at="start"))
        measured = probe.next_val_loss - probe.val_loss
        assert second > 0
        assert probe.on_next("val") + second == pytest.approx(measured, rel=1e-9)
        assert probe.next_gradient_products is not None
        by_gradients = 0.5 * (probe.next_gradient_products[1].sum() - probe.on_next("val"))
        assert by_gradients == pytest.approx(second, rel=1e-6)
        # The modes of the past window hold less than all of the next update; with all seven they would hold it.
        t = probe.t
        on_window = recording.products[t + 1, 0, 1 : WINDOW + 1][::-1]
        spectrum = gram_spectrum(grams[np.searchsorted(steps, probe.step)], update_eps=recording.update_eps)
        out = out_of_sample_contributions(probe.on_updates("val")[:WINDOW][::-1], on_window, spectrum)
        deltas = updates(world, settings, probe.step, WINDOW)
        basis = np.linalg.svd(deltas, full_matrices=False)[2][: np.isfinite(out).sum()]
        theta = path(world, settings, probe.step)
        expected = (basis @ (world.hessian @ (theta - world.val_optimum))) @ (basis @ delta)
        # Weak modes are known to sqrt(eps) only, and so is what they carry.
        assert np.nansum(out) == pytest.approx(expected, rel=1e-4)
    assert n == 7


def loss(world: QuadraticWorld, theta: np.ndarray) -> float:
    away = theta - world.val_optimum
    return float(away @ world.hessian @ away / 2)


def test_the_metric_of_a_frozen_preconditioner() -> None:
    recording, world, _ = exact_run(optimizer="frozen_adamw", lr=0.02, noise=0.0, weight_decay=0.0)
    inverse = 1 / np.sqrt(world.second_moments)
    exact = np.sort(np.linalg.eigvalsh(np.sqrt(inverse)[:, None] * world.hessian * np.sqrt(inverse)))[::-1]
    for probe in recording.probes:
        assert "direction" in probe.vectors
        np.testing.assert_allclose(probe.preconditioned_eigenvalues, exact[:2], rtol=1e-2)


def test_replicates_measure_the_known_noise() -> None:
    """N1: half the squared distance of two continuations is the noise energy of an update."""
    options = {"eigenvalues": "0", "repeat": 400, "optimizer": "sgd", "noise": 0.04, "lr": 0.1, "tensors": 1}
    recording = se.run(
        "quadratic", settings={**options, "steps": 60}, window=3, every=5, probe_every=10, probe={"replicate": "true"}
    )
    expected = 0.1**2 * 0.04 * 400 * 5  # lr^2 sigma^2 n per step, and nothing relaxes
    grams = [p.replicate_gram.sum(axis=0) for p in recording.probes if p.replicate_gram is not None]
    noise = [0.5 * (g[0, 0] + g[1, 1] - 2 * g[0, 1]) for g in grams]
    signal = [g[0, 1] for g in grams]
    # 400 degrees of freedom a probe and five probes: sd of the mean 3 %
    assert np.mean(noise) == pytest.approx(expected, rel=0.1)
    assert np.abs(np.mean(signal)) < 0.1 * expected
    assert len({round(x, 12) for x in noise}) == len(noise) == 5  # every probe draws its own


def tiny(**options: object) -> Recording:
    settings = {"p": 7, "d_model": 16, "heads": 2, "layers": 1, "d_hidden": 16, "batch_size": 16, "steps": 60}
    arguments = {"window": 3, "every": 5, "probe_every": 10, "probe": {"modes": 2}, **options}
    return se.run("modular/add", settings=settings, **arguments)  # type: ignore[arg-type]


def test_a_transformer_is_probed_and_unchanged() -> None:
    with_probes = tiny(probe={"modes": 2, "replicate": True})
    without = tiny(probe_every=None, probe=None)
    np.testing.assert_array_equal(with_probes.products, without.products)
    for name, (steps, values) in without.metrics.items():
        np.testing.assert_array_equal(with_probes.metrics[name][0], steps)
        np.testing.assert_array_equal(with_probes.metrics[name][1], values)
    assert [p.step for p in with_probes.probes] == [20, 30, 40, 50, 60]
    first: ProbeRecord = with_probes.probes[0]
    assert first.directions[:2] == ("mode/1", "mode/2")
    assert set(first.vectors) == {"train", "val", "preconditioned", "direction"}


def test_both_methods_agree_on_a_transformer_in_float32() -> None:
    difference, exact = (tiny(probe={"modes": 3, "random": 2, "curvature": m}) for m in ("difference", "exact"))
    for a, b in zip(difference.probes, exact.probes, strict=True):
        np.testing.assert_allclose(a.curvature, b.curvature, rtol=1e-2, atol=1e-2 * np.abs(b.curvature).max())


def test_the_kernel_and_its_rate() -> None:
    recording = tiny(probe={"modes": 0, "kernel": 3})
    for probe in recording.probes:
        assert probe.kernel is not None
        found = probe.kernel
        assert found["adiabatic"] == pytest.approx(found["rate"] / (found["lr"] * found["width"] ** 2), rel=1e-9)
        assert (np.diff(found["eigenvalues"]) <= 0).all()
        k = int(found["position"])
        assert found["width"] == pytest.approx(found["eigenvalues"][k - 1] - found["eigenvalues"][k], rel=1e-9)
    with pytest.raises(SettingError, match="needs a task with outputs; QuadraticTask has none"):
        se.run("quadratic", settings={"steps": 10}, every=1, window=3, probe_every=5, probe={"kernel": 2})


class Killed(BaseException):
    pass


def test_killed_and_resumed_with_probes(tmp_path: Path) -> None:
    def kill(step: int, steps: int, metrics: object) -> None:
        if step >= 40:
            raise Killed

    settings = {"p": 7, "d_model": 16, "heads": 2, "layers": 1, "d_hidden": 16, "batch_size": 16, "steps": 60}
    common = {"window": 3, "every": 5, "probe_every": 10, "probe": {"modes": 2}, "checkpoint_every": 15}
    settings["eval_every"] = 20
    with pytest.raises(Killed):
        se.run("modular/add", settings=settings, out=tmp_path / "cut", progress=kill, **common)
    se.run("modular/add", settings=settings, out=tmp_path / "cut", resume=True, **common)
    whole = se.run("modular/add", settings=settings, **{**common, "checkpoint_every": None})
    cut = se.load(tmp_path / "cut")
    assert len(cut.probes) == 5
    assert cut.equals(whole)


def test_the_command_repeats_the_probes() -> None:
    config = configure("quadratic", probe_every=50, probe={"modes": "2", "replicate": "true"})[1]
    assert "--probe-every 50 --probe modes=2" in config["command"]
    assert "--probe replicate=True" in config["command"]
    assert json.loads(json.dumps(config))["probe"]["replicate"] is True
    assert "probe" not in configure("quadratic")[1]


def test_mistakes_are_named() -> None:
    with pytest.raises(SettingError, match=r"got mods. Did you mean modes\?"):
        configure("quadratic", probe_every=50, probe={"mods": 2})
    with pytest.raises(SettingError, match="need the steps between probes; got modes alone"):
        configure("quadratic", probe={"modes": 2})
    with pytest.raises(SettingError, match=r"got 30 and 25. Use probe_every=25"):
        configure("quadratic", probe_every=30)


def test_rest_point_is_used_nowhere_by_accident(descent) -> None:
    """The run is far from rest while it is probed: the tests above are about moving parameters."""
    _, world, settings = descent
    rest = world.modes @ rest_point(world.curvatures, world.modes.T @ world.optimum, settings.weight_decay)
    assert np.linalg.norm(path(world, settings, 80) - rest) > 1e-3
