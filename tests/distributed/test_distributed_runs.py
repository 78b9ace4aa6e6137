"""Real processes over Gloo: one rank or many, the same products; one rank fails, none hangs.

Processes take seconds to start, so that each start runs many cases (``rank_worker.py``).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_worker
import torch
from launch import Outcome, launch
from rank_models import adamw, batch, model, train, two

import spectraledge as se

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs Gloo")

WAYS_2 = ["ddp", "fsdp2", "tp", "fsdp1", "fsdp1-flat"]
WAYS_4 = ["fsdp2", "hsdp", "2d", "fsdp1-whole"]
TOLERANCE = 1e-10  # relative to ||delta_a|| ||delta_b||: training in float64, sums in another order


def results(outcomes: list[Outcome], name: str) -> list[dict[str, Any]]:
    for rank, outcome in enumerate(outcomes):
        assert outcome.code == 0, f"rank {rank}:\n{outcome.stderr[-3000:]}"
    return [outcome.result[name] for outcome in outcomes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two_ranks(folder: Path) -> list[Outcome]:
    cases = {"products": {"ways": WAYS_2}, "loops": {}, "faults": {}, "saved": {}}
    return launch("both", 2, folder, cases=cases)


@pytest.fixture(scope="module")
def four_ranks(folder: Path, two_ranks: list[Outcome]) -> list[Outcome]:
    return launch("both", 4, folder, cases={"products": {"ways": WAYS_4}, "resumed": {}})


@pytest.fixture(scope="module")
def one_rank(folder: Path) -> list[Outcome]:
    """A process group of one needs no process of its own."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=0, world_size=1)
    try:
        return [Outcome(0, rank_worker.both(folder, {"products": {"ways": ["fsdp2"]}}), "")]
    finally:
        torch.distributed.destroy_process_group()


def alone(make: Any = adamw, every: int = 1, decay: bool = True) -> Any:
    m = model()
    optimizers = make(m)
    with se.attach(m, optimizers, window=4, every=every, decay_products=decay, on_error="raise") as monitor:
        train(m, optimizers, range(1, 13))
    return monitor.recording


def assert_same(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    assert found.blocks == expected.blocks
    assert found.steps.tolist() == expected.steps.tolist()
    norms2 = expected.products[:, :, 0]
    for name in ("products", "decay_products"):
        a, b = getattr(expected, name), getattr(found, name)
        if a is None:
            continue
        assert np.array_equal(np.isnan(a), np.isnan(b))
        for lag in range(a.shape[2]):
            own = norms2 if name == "products" else expected.decay_norm2
            scale = np.sqrt(own[lag:] * norms2[: max(len(norms2) - lag, 0)])
            assert np.all(np.abs(a - b)[lag:, :, lag] <= tolerance * scale), (name, lag)
    for name in ("theta_dot", "theta_norm2"):
        a, b = getattr(expected, name), getattr(found, name)
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.abs(a).max())


@pytest.fixture(scope="module")
def unsharded() -> Any:
    return alone()


CASES = [("one_rank", 1, "fsdp2"), *(("two_ranks", 2, w) for w in WAYS_2), *(("four_ranks", 4, w) for w in WAYS_4)]


@pytest.mark.parametrize(("start", "world", "way"), CASES, ids=[f"{w}-{n}" for _, n, w in CASES])
def test_the_same_products_on_any_ranks(
    start: str, world: int, way: str, folder: Path, unsharded: Any, request: pytest.FixtureRequest
) -> None:
    found = [result[way] for result in results(request.getfixturevalue(start), "products")]
    assert_same(se.load(folder / f"{way}-{world}"), unsharded)
    n = sum(p.numel() for p in model().parameters() if p.requires_grad)
    assert [r["n"] for r in found] == [n] * world
    assert sum(r["n_local"] for r in found) == n  # every entry once
    assert all(r["same_losses"] and r["same_state"] and r["same_rng"] for r in found)
    if way == "ddp":  # replicas share the work
        assert max(r["n_local"] for r in found) < 0.6 * n


def test_several_optimizers_and_every_other_step(folder: Path, two_ranks: list[Outcome]) -> None:
    results(two_ranks, "loops")
    assert_same(se.load(folder / "two"), alone(two, every=2, decay=False))


def test_a_sketch_is_the_same_on_any_ranks(folder: Path, two_ranks: list[Outcome]) -> None:
    m = model()
    optimizers = adamw(m)
    with se.attach(m, optimizers, window=4, every=1, store="sketch", sketch_size=256, on_error="raise") as monitor:
        train(m, optimizers, range(1, 13))
    assert_same(se.load(folder / "sketch"), monitor.recording)


def test_accumulation_under_no_sync(folder: Path, two_ranks: list[Outcome]) -> None:
    m = model()
    (optimizer,) = adamw(m)
    with se.attach(m, optimizer, window=4, every=1, on_error="raise") as monitor:
        for step in range(1, 13):
            optimizer.zero_grad()
            for x, y in (batch(step), batch(step + 100)):
                (m(x) - y).square().mean().backward()
            optimizer.step()
    assert_same(se.load(folder / "no_sync"), monitor.recording)


def test_a_change_of_structure_on_all_ranks(folder: Path, two_ranks: list[Outcome]) -> None:
    found = se.load(folder / "changed")
    segments = found.meta["segments"]
    assert [s["reason"] for s in segments] == ["start", "no longer trained: head.bias"]
    first, second = (s["n_parameters"] for s in segments)
    assert first - second == 3


# one rank fails


@pytest.fixture
def faults(two_ranks: list[Outcome]) -> list[dict[str, Any]]:
    return results(two_ranks, "faults")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("hook", "rank 1: OSError: planted"),
        ("disk", "rank 0: OSError: planted"),
        ("count", "the ranks must make the same steps"),
        ("metric", "rank 0: SettingError: a metric must be a number"),
    ],
)
def test_all_ranks_stop_together_and_training_goes_on(
    what: str, reason: str, faults: list[dict[str, Any]], folder: Path
) -> None:
    (warning,) = faults[0][what]["warnings"]
    assert "stopped monitoring on all ranks at step" in warning
    assert reason in warning
    assert faults[1][what]["warnings"] == []
    for found in faults:
        assert found[what]["losses"] == found["nothing"]["losses"]
        assert found[what]["hooks"] == 0
    assert len(se.load(folder / what).steps) == 5
    assert len(se.load(folder / "nothing").steps) == 12


def test_events_are_heard_on_all_ranks_at_one_step(faults: list[dict[str, Any]], folder: Path) -> None:
    assert [found["heard"] for found in faults] == [[[6, "planted"]]] * 2
    assert [e.kind for e in se.load(folder / "events").events] == ["planted"]
    assert faults[0]["events"]["warnings"] == []


REFUSALS = {
    "occupied": (
        "OutputError: .* must not hold a recording yet",
        "SettingError: monitoring must be possible on every",
    ),
    "filtered": ("is missing on rank 1", "is missing on rank 1"),
    "probe": ("probes differentiate the whole model", "probes differentiate the whole model"),
    "unwrapped": ("must hold the same values on all ranks", "must hold the same values on all ranks"),
    "recording": (None, "only rank 0 keeps the recording"),
    "save": ("one file holds the ring of one process", "one file holds the ring of one process"),
    "modes": ("modes need whole updates", "modes need whole updates"),
    "metric": ("norm is a DTensor", None),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refusals_on_every_rank(what: str, faults: list[dict[str, Any]]) -> None:
    import re

    for found, pattern in zip(faults, REFUSALS[what], strict=True):
        if pattern is None:
            assert what not in found["said"]
        else:
            assert re.search(pattern, found["said"][what]), found["said"][what]


@pytest.mark.parametrize("how", ["killed", "stalled"])
def test_a_lost_rank_holds_up_nobody(how: str, folder: Path) -> None:
    survivor, other = launch("lost", 2, folder / how, how=how)
    assert survivor.code == 0, survivor.stderr[-3000:]
    assert other.code == (-9 if how == "killed" else 0)
    m = model()
    assert survivor.result["losses"] == train(m, adamw(m), range(1, 13))
    (warning,) = survivor.result["warnings"]
    assert "stopped monitoring at step" in warning
    assert "the other ranks were not reached" in warning
    assert survivor.result["slowest"] < 3.0 + 4.0  # the group's timeout and a busy machine
    assert len(se.load(folder / how / how).steps) in (4, 5)


# going on from a distributed checkpoint


def test_the_same_ranks_go_on_bit_for_bit(folder: Path, two_ranks: list[Outcome]) -> None:
    results(two_ranks, "saved")
    whole, resumed = se.load(folder / "whole"), se.load(folder / "resumed-2")
    assert resumed.steps.tolist() == whole.steps.tolist()
    for name in ("products", "theta_dot", "theta_norm2", "lr_sum"):
        assert np.array_equal(getattr(resumed, name), getattr(whole, name), equal_nan=True), name


def test_other_ranks_go_on_with_the_ring_resharded(folder: Path, four_ranks: list[Outcome]) -> None:
    results(four_ranks, "resumed")
    assert_same(se.load(folder / "resumed-4"), se.load(folder / "whole"))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process: that is what is wanted here
def test_one_process_goes_on_with_the_ring_of_two(folder: Path, two_ranks: list[Outcome]) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    m = model(seed=7)
    (optimizer,) = adamw(m)
    states = dict(zip(("model", "optimizer"), get_state_dict(m, optimizer)))
    dcp.load(states, checkpoint_id=folder / "checkpoint", no_dist=True)
    set_state_dict(m, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
    out = folder / "resumed-1"
    with se.attach(m, optimizer, window=4, every=1, out=out, resume="auto", on_error="raise") as monitor:
        dcp.load({"monitor": monitor.checkpoint()}, checkpoint_id=folder / "checkpoint", no_dist=True)
        train(m, [optimizer], range(7, 13))
    assert_same(se.load(out), se.load(folder / "whole"))
    assert math.isfinite(se.load(out).products[6, 0, 5])  # joined to updates from before
