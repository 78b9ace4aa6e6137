"""What one rank does in the tests; ``launch.py`` starts it. Writes its results as JSON, raises on a failure."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.tensor
from rank_models import WAYS, adamw, batch, model, train, two
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import spectraledge as se
from spectraledge.recording import Event
from spectraledge.stream.ranks import group

STEPS = range(1, 13)


def state_of(m: torch.nn.Module) -> dict[str, list[float]]:
    from spectraledge.stream.parameters import Structure

    return {n: t.detach().reshape(-1).tolist() for n, t in Structure(m, None).locals().items()}


def products(folder: Path, ways: list[str]) -> dict[str, Any]:
    """Every way to shard, with and without a monitor."""
    out: dict[str, Any] = {}
    for way in ways:
        bare = WAYS[way](model())
        bare_losses = train(bare, adamw(bare), STEPS)
        rng = torch.get_rng_state()
        m = WAYS[way](model())
        optimizers = adamw(m)
        path = folder / f"{way}-{dist.get_world_size()}"
        with se.attach(m, optimizers, window=4, every=1, out=path, decay_products=True, on_error="raise") as monitor:
            losses = train(m, optimizers, STEPS, lambda step, monitor=monitor: monitor.log(loss=float(step)))
            n_local = monitor.ring.blocks.n_parameters
        out[way] = {
            "same_losses": losses == bare_losses,
            "same_state": state_of(m) == state_of(bare),
            "same_rng": bool(torch.equal(rng, torch.get_rng_state())),
            "n_local": n_local,
            "n": monitor.blocks.n_parameters,
        }
    return out


def loops(folder: Path) -> dict[str, Any]:
    """Several optimizers, accumulation under no_sync, snapshots every other step, a change of structure."""
    m = WAYS["fsdp2"](model())
    optimizers = two(m)
    with se.attach(m, optimizers, window=4, every=2, out=folder / "two", on_error="raise"):
        train(m, optimizers, STEPS)
    m = WAYS["fsdp2"](model())
    optimizers = adamw(m)
    with se.attach(m, optimizers, window=4, every=1, out=folder / "sketch", store="sketch", sketch_size=256):
        train(m, optimizers, STEPS)
    m = WAYS["ddp"](model())
    (optimizer,) = adamw(m)
    with se.attach(m, optimizer, window=4, every=1, out=folder / "no_sync", on_error="raise"):
        for step in STEPS:
            optimizer.zero_grad()
            x, y = batch(step)
            with m.no_sync():
                (m(x) - y).square().mean().backward()
            x, y = batch(step + 100)
            (m(x) - y).square().mean().backward()
            optimizer.step()
    m = WAYS["fsdp2"](model())
    (optimizer,) = adamw(m)
    with torch.no_grad():
        m(batch(0)[0])  # leaves the root gathered: the sharded parameters stand behind it
    with se.attach(m, optimizer, window=4, every=1, out=folder / "changed", on_error="raise") as monitor:
        train(m, [optimizer], range(1, 6))
        m.head.bias.requires_grad_(False)
        train(m, [optimizer], range(6, 13))
        names = sorted(monitor.ring.blocks.names)
    return {"names": names}


def faults(folder: Path) -> dict[str, Any]:
    """One rank fails; the others must hear of it, training must not."""
    rank, out = dist.get_rank(), {}

    def run(name: str, prepare: Callable[[Any], None], **options: Any) -> None:
        m = WAYS["fsdp2"](model())
        optimizers = adamw(m)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            monitor = se.attach(m, optimizers, window=4, every=1, out=folder / name, **options)

            def after(step: int) -> None:
                if step == 5:
                    prepare(monitor)

            losses = train(m, optimizers, STEPS, after)
            monitor.detach()
        out[name] = {
            "losses": losses,
            "warnings": [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)],
            "hooks": len(optimizers[0]._optimizer_step_post_hooks),
        }

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("planted")

    run("nothing", lambda monitor: None)
    run("hook", lambda monitor: rank == 1 and setattr(monitor.ring, "sums", fail))
    run("disk", lambda monitor: rank == 0 and setattr(monitor._writer, "write", fail))
    run("count", lambda monitor: rank == 1 and setattr(monitor, "_last_step", 3))
    run("metric", lambda monitor: rank == 0 and monitor.log(loss="much"))

    heard: list[Any] = []

    def events(monitor: Any) -> None:
        monitor.on_event(lambda event: heard.append([event.step, event.kind]))
        planted = Event(step=6, block="all", kind="planted", value=1.0, threshold=0.0, detector="test")
        push = monitor._watch.push
        own = [planted] if rank == 0 else []  # what the other rank finds does not count
        monitor._watch.push = lambda row, *a, **k: (push(row, *a, **k), own if row["step"] == 6 else [])[1]

    run("events", events)
    out["heard"] = heard

    said: dict[str, str] = {}

    def refused(name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"

    m = WAYS["ddp"](model())
    (optimizer,) = adamw(m)
    refused("occupied", lambda: se.attach(m, optimizer, window=4, out=folder / "nothing"))
    refused("filtered", lambda: se.attach(WAYS["fsdp2"](model()), optimizer, params="head" if rank else None))
    probe = se.Probe(train=lambda model: torch.zeros(()), val=None) if hasattr(se, "Probe") else None
    refused("probe", lambda: se.attach(m, optimizer, window=4, every=1, probe=probe))
    refused("unwrapped", lambda: se.attach(model(rank), optimizer))
    tensor = dist.tensor.distribute_tensor(torch.ones(4), dist.init_device_mesh("cpu", (2,)), [dist.tensor.Shard(0)])
    with se.attach(m, optimizer, window=4, every=1, on_error="raise") as monitor:
        refused("recording", lambda: monitor.recording)
        refused("save", lambda: monitor.save(folder / "state"))
        refused("modes", lambda: monitor.directions(4))
        refused("metric", lambda: monitor.log(norm=tensor))
    out["said"] = said
    return out


def _checkpoint(m: Any, optimizer: Any, monitor: Any, folder: Path, *, load: bool = False) -> None:
    states = dict(zip(("model", "optimizer"), get_state_dict(m, optimizer)))
    content = {**states, "monitor": monitor.checkpoint()}
    if not load:
        dcp.save(content, checkpoint_id=folder)
        return
    # the monitor comes last: it reads what the others have loaded
    dcp.load(states, checkpoint_id=folder)
    set_state_dict(m, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
    dcp.load({"monitor": content["monitor"]}, checkpoint_id=folder)


def saved(folder: Path) -> dict[str, Any]:
    """Twelve steps in one go; the same with a checkpoint at step 6 and a death at step 8."""
    m = WAYS["fsdp2"](model())
    (optimizer,) = adamw(m)
    with se.attach(m, optimizer, window=4, every=1, out=folder / "whole", on_error="raise"):
        train(m, [optimizer], STEPS)
    m = WAYS["fsdp2"](model())
    (optimizer,) = adamw(m)
    monitor = se.attach(m, optimizer, window=4, every=1, out=folder / "died", on_error="raise")
    train(m, [optimizer], range(1, 7))
    _checkpoint(m, optimizer, monitor, folder / "checkpoint")
    train(m, [optimizer], range(7, 9))
    monitor._counter.remove()  # as after kill -9: nothing is written any more
    monitor._writer.close()
    dist.barrier()
    if dist.get_rank() == 0:
        for copy in ("resumed-2", "resumed-4", "resumed-1"):
            shutil.copytree(folder / "died", folder / copy)
    dist.barrier()
    return resumed(folder)


def resumed(folder: Path) -> dict[str, Any]:
    """Go on from the checkpoint of ``saved``, on however many ranks there are."""
    m = WAYS["fsdp2"](model(seed=7))
    (optimizer,) = adamw(m)
    path = folder / f"resumed-{dist.get_world_size()}"
    get_state_dict(m, optimizer)  # makes the optimizer's state, with a step that must not be seen
    with se.attach(m, optimizer, window=4, every=1, out=path, resume="auto", on_error="raise") as monitor:
        _checkpoint(m, optimizer, monitor, folder / "checkpoint", load=True)
        return {"losses": train(m, [optimizer], range(7, 13))}


def lost(folder: Path, how: str) -> dict[str, Any]:
    """One rank dies or stalls while the other waits for it in the monitor's collective, and nowhere else."""
    group.TIMEOUT = 3.0
    m = model()  # no wrapper: training itself has no collective
    optimizers = adamw(m)
    monitor = se.attach(m, optimizers, window=4, every=1, out=folder / how)
    slowest, began = 0.0, time.perf_counter()

    def after(step: int) -> None:
        nonlocal slowest, began
        slowest, began = max(slowest, time.perf_counter() - began), time.perf_counter()
        if step == 5 and dist.get_rank() == 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(8.0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        losses = train(m, optimizers, STEPS, after)
    monitor.detach()
    return {"abandon": True, "losses": losses, "slowest": slowest, "warnings": [str(w.message) for w in caught]}


def both(folder: Path, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Several cases in one start."""
    return {name: globals()[name](folder, **options) for name, options in cases.items()}


def main() -> None:
    name, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    result = globals()[name](folder, **options)
    (folder / f"{name}-{dist.get_world_size()}.{rank}.json").write_text(json.dumps(result))
    if not result.get("abandon"):
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
